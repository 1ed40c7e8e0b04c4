"""Sources: what comes from a queue. One poll waits there; while polls come back full, more.

A poll cannot be called off. So what it brings when nobody asks any more is given back,
and while somebody does it is not repeated: a call of `receive` that ends leaves its poll
behind for the next.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from backlane.engine.transport import Delivery
from backlane.engine.transports.sqs.client import Client
from backlane.engine.transports.sqs.entry import delivery_of, digest_of
from backlane.engine.transports.sqs.held import BATCH, Hold, Holder
from backlane.engine.transports.sqs.link import Link
from backlane.engine.transports.sqs.places import Place, Places
from backlane.engine.transports.sqs.trouble import Kind, Trouble, trouble_of

log = logging.getLogger("backlane.sqs")

MOST_POLLS = 8  # of one queue
SHORT_WAIT = 1  # seconds: of all polls while queues take turns
KEEP_SECONDS = 5.0  # what came in advance is given back when nobody has asked for so long

SYSTEM = ["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"]


class Source:
    """What comes from one queue."""

    def __init__(self, queue: str, link: Link, places: Places, holder: Holder) -> None:
        self.queue = queue
        self.asked_at = 0.0  # monotonic: by somebody who wants messages
        self.polls = 0  # that are on their way, or wait for their turn
        self._link, self._places, self._holder = link, places, holder
        self._came: deque[Delivery] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._wanted = 0  # messages, by the last who asked
        self._most_polls = 1
        self._is_open = True
        self._place: Place | None = None

    async def receive(self, number: int, until: float, wait: Callable[[], int]) -> list[Delivery]:
        """Return up to `number`, as soon as there is one; [] at `until`, a time of the loop.

        `wait` tells how many seconds a poll may wait now.

        Raises:
            Trouble: a poll failed in a way that waiting does not mend.
        """
        loop = asyncio.get_running_loop()
        self._is_open = True
        while True:
            self._wanted, self.asked_at = number, time.monotonic()
            taken = self._take(number)
            self._feed(wait)
            if taken or loop.time() >= until:
                return taken
            came = loop.create_future()
            self._waiting.append(came)
            try:
                async with asyncio.timeout_at(until):
                    await came
            except TimeoutError:
                pass
            finally:
                if came in self._waiting:
                    self._waiting.remove(came)
                self.asked_at = time.monotonic()

    async def forget(self) -> None:
        """Give back what came in advance; what still comes is given back as it comes."""
        self._is_open = False
        for came in self._waiting:
            if not came.done():
                came.set_result(None)
        given, self._came = list(self._came), deque()
        await self._holder.release(given)

    @property
    def is_idle(self) -> bool:
        """Whether it can be let go of."""
        return not (self.polls or self._came or self._waiting)

    # -- what came --

    def _take(self, number: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while self._came and len(taken) < number:
            delivery = self._came.popleft()
            if isinstance(delivery.tag, Hold) and delivery.tag.is_ours:
                taken.append(delivery)  # else others see it already
        return taken

    def _wake(self) -> None:
        for came in self._waiting:
            if not came.done():
                came.set_result(None)

    def _fail(self, error: Exception) -> None:
        for came in self._waiting:
            if not came.done():
                came.set_exception(error)

    # -- polls --

    def _feed(self, wait: Callable[[], int]) -> None:
        """Have as many polls on their way as what is wanted needs."""
        while self._is_open and self.polls < self._most_polls:
            missing = self._wanted - len(self._came) - BATCH * self.polls
            if self.polls and missing <= 0:
                break
            if missing <= 0 and self._came:
                break
            self.polls += 1
            first = self.polls == 1
            self._link.keep(self._poll(wait if first else _no_wait, wait))

    async def _poll(self, wait: Callable[[], int], again: Callable[[], int]) -> None:
        """Poll once, and see that there is a next one if it is wanted."""
        number = max(1, min(BATCH, self._wanted))
        found: list[Delivery] = []
        try:
            found = await self._ask(number, wait)
        except Trouble as trouble:
            if trouble.kind is Kind.THROTTLED:
                self._link.pace.throttled()
            elif trouble.kind is Kind.GONE:
                self._places.forget(self.queue)
            else:
                self._fail(trouble)
        except Exception as error:  # noqa: BLE001 - who waits shall hear of it
            self._fail(error)
        finally:
            self.polls -= 1
        if len(found) == number:
            self._most_polls = min(MOST_POLLS, self._most_polls * 2)
        else:
            self._most_polls = max(1, self._most_polls - 1 if found else 1)
        if found and not self._is_open:
            await self._holder.release(found)
            return
        self._came.extend(found)
        if found:
            self._wake()
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._clear)
        if any(not came.done() for came in self._waiting):
            self._feed(again)

    def _clear(self) -> None:
        """Give back what nobody has come for."""
        if not self._came or self._waiting:
            return
        if time.monotonic() - self.asked_at < KEEP_SECONDS:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._clear)
            return
        given, self._came = list(self._came), deque()
        self._link.keep(self._holder.release(given))

    async def _ask(self, number: int, wait: Callable[[], int]) -> list[Delivery]:
        """Make the call, when its turn has come."""
        address = self._link.address
        if not await self._link.pace.turn(time.monotonic() + address.wait):
            return []
        place = await self._places.of(self.queue)
        answer = await self._link.poll(functools.partial(_receive, self._link, place, number, wait))
        self._link.pace.went_well()
        found: list[Delivery] = []
        for message in answer.get("Messages") or ():
            hold = self._holder.take(place, message["ReceiptHandle"], address.visibility)
            told = message.get("MD5OfBody")
            if told and told != digest_of(message["Body"].encode("utf-8", "surrogatepass")):
                log.error("a message of queue %r came damaged; it is left there", self.queue)
                self._holder.holds.pop(hold.handle, None)
                continue
            found.append(delivery_of(self.queue, message, hold))
        return found


class Sources:
    """The sources of one link."""

    def __init__(self, link: Link, places: Places, holder: Holder) -> None:
        self._link, self._places, self._holder = link, places, holder
        self._known: dict[str, Source] = {}

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """See `Source.receive`."""
        source = self._known.get(queue)
        if source is None:
            if len(self._known) > 2 * self._link.polls.most:
                self._known = {n: it for n, it in self._known.items() if not it.is_idle}
            source = Source(queue, self._link, self._places, self._holder)
            self._known[queue] = source
        until = asyncio.get_running_loop().time() + seconds
        return await source.receive(number, until, self._wait)

    async def forget(self, queue: str) -> None:
        source = self._known.get(queue)
        if source is not None:
            await source.forget()

    async def close(self) -> None:
        for source in self._known.values():
            await source.forget()

    def _wait(self) -> int:
        """Return how long a poll may wait: long, unless there are more than there are threads.

        Then all wait shortly, and take turns in the order in which they asked.
        """
        polls = sum(source.polls for source in self._known.values())
        return self._link.address.wait if polls <= self._link.polls.most else SHORT_WAIT


def _no_wait() -> int:
    return 0


def _receive(
    link: Link, place: Place, number: int, wait: Callable[[], int], client: Client
) -> Mapping[str, Any]:
    """Receive. In a thread, which gives back by itself what came after the end."""
    if link.is_closed:
        return {}
    try:
        answer = client.receive_message(
            QueueUrl=place.url,
            MaxNumberOfMessages=number,
            WaitTimeSeconds=wait(),
            VisibilityTimeout=link.address.visibility,
            MessageSystemAttributeNames=SYSTEM,
            AttributeNames=SYSTEM,  # as it was called before; some endpoints know no other
            MessageAttributeNames=["All"],
        )
        if link.is_closed and answer.get("Messages"):
            client.change_message_visibility_batch(
                QueueUrl=place.url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": it["ReceiptHandle"], "VisibilityTimeout": 0}
                    for n, it in enumerate(answer["Messages"])
                ],
            )
            return {}
    except Exception as error:
        raise trouble_of(error, "ReceiveMessage", place.queue, link.address) from error
    return answer
