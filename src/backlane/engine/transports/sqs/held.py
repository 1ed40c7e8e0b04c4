"""Held: what was received and is ours for a while, and the calls that say what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backlane.engine.transport import Delivery
from backlane.engine.transports.sqs.address import LONGEST_VISIBILITY
from backlane.engine.transports.sqs.link import Link
from backlane.engine.transports.sqs.pace import backoff
from backlane.engine.transports.sqs.places import Place
from backlane.engine.transports.sqs.trouble import Kind, Trouble

log = logging.getLogger("backlane.sqs")

BATCH = 10
GATHER_SECONDS = 0.2  # what is acknowledged alone waits so long for company
ANSWER_SECONDS = 10.0  # for an acknowledgement, tried again and again
LAST_SECONDS = 2.0  # for deletions that are under way at the end
MARGIN_SECONDS = 1.0  # the end of our time as we see it lies before the end that SQS sees


class Hold(msgspec.Struct, eq=False):
    """The grip on one delivery."""

    place: Place
    handle: str
    since: float  # monotonic
    until: float  # monotonic: then it is shown to others

    @property
    def is_ours(self) -> bool:
        return time.monotonic() < self.until


class Holder:
    """What one link holds, and how it lets go of it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.holds: dict[str, Hold] = {}  # by handle
        self._waiting: dict[str, list[tuple[Hold, asyncio.Future[None]]]] = {}  # by queue
        self._deleting: set[asyncio.Task[None]] = set()
        self._most = 1_000  # holds, before those that are over are looked for

    def take(self, place: Place, handle: str, seconds: float) -> Hold:
        """Remember a message that has just come."""
        now = time.monotonic()
        hold = Hold(place, handle, now, now + seconds - min(MARGIN_SECONDS, seconds / 2))
        if len(self.holds) >= self._most:
            self.holds = {it.handle: it for it in self.holds.values() if it.is_ours}
            self._most = max(1_000, 2 * len(self.holds))
        self.holds[handle] = hold
        return hold

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Have them deleted: tens at once, the rest with what comes within 200 ms."""
        loop = asyncio.get_running_loop()
        done: list[asyncio.Future[None]] = []
        for hold in _holds(deliveries):
            self.holds.pop(hold.handle, None)
            done.append(loop.create_future())
            waiting = self._waiting.setdefault(hold.place.queue, [])
            waiting.append((hold, done[-1]))
            if len(waiting) == BATCH:
                self._flush(hold.place.queue)
            elif len(waiting) == 1:
                loop.call_later(GATHER_SECONDS, self._flush, hold.place.queue, waiting)
        for failed in await asyncio.gather(*done, return_exceptions=True):
            if isinstance(failed, Trouble):
                raise failed.unavailable() from failed
            if failed is not None:
                raise failed

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Show them to others at once. Where that fails, their time ends by itself."""
        holds = [it for it in _holds(deliveries) if self.holds.pop(it.handle, None) and it.is_ours]
        await self.let_go(holds)

    async def let_go(self, holds: Sequence[Hold]) -> None:
        for hold in holds:
            hold.until = 0.0
        results = await asyncio.gather(
            *(self._change(batch, 0) for batch in _batches(holds)), return_exceptions=True
        )
        for failed in results:
            if isinstance(failed, Trouble):
                log.info("messages were not given back; they come by themselves: %s", failed)
            elif isinstance(failed, BaseException):
                raise failed

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:
        """Keep them; return those that are lost. What got no answer is ours while its time is."""
        now = time.monotonic()
        of: dict[str, Delivery] = {
            it.tag.handle: it for it in deliveries if isinstance(it.tag, Hold)
        }
        ours = [it for it in _holds(deliveries) if it.is_ours]
        asked: dict[int, list[Hold]] = {}
        for hold in ours:  # no message can be kept for more than twelve hours in all
            most = LONGEST_VISIBILITY - int(now - hold.since) - 1
            asked.setdefault(max(0, min(most, -int(-seconds // 1))), []).append(hold)
        results = await asyncio.gather(
            *(self._extend(part, by) for by, part in asked.items()), return_exceptions=True
        )
        for failed in results:
            if isinstance(failed, BaseException) and not isinstance(failed, Trouble):
                raise failed
        lost = [of[hold.handle] for hold in _holds(deliveries) if not hold.is_ours]
        for delivery in lost:
            if isinstance(delivery.tag, Hold):
                self.holds.pop(delivery.tag.handle, None)
        return lost

    async def close(self) -> None:
        """Delete what waits for it, and give the rest back."""
        for queue in list(self._waiting):
            self._flush(queue)
        if self._deleting:
            await asyncio.wait(self._deleting, timeout=LAST_SECONDS)
        holds = [hold for hold in self.holds.values() if hold.is_ours]
        self.holds.clear()
        await self.let_go(holds)

    # -- calls --

    def _flush(self, queue: str, waiting: object = None) -> None:
        if waiting is not None and self._waiting.get(queue) is not waiting:
            return  # these went already, as ten
        batch = self._waiting.pop(queue, [])
        if batch:
            task = self._link.keep(self._delete([hold for hold, _ in batch]))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)
            task.add_done_callback(lambda ended: _tell(ended, [done for _, done in batch]))

    async def _delete(self, holds: Sequence[Hold]) -> None:
        once = {hold.handle: hold for hold in holds}  # SQS takes no handle twice in a call
        await self._carry_out("DeleteMessage", list(once.values()), {})

    async def _extend(self, holds: Sequence[Hold], seconds: int) -> None:
        results = await asyncio.gather(
            *(self._change(batch, seconds) for batch in _batches(holds)), return_exceptions=True
        )
        for failed in results:
            if isinstance(failed, BaseException):
                raise failed

    async def _change(self, holds: Sequence[Hold], seconds: int) -> None:
        begun = time.monotonic()
        lost = await self._carry_out(
            "ChangeMessageVisibility", holds, {"VisibilityTimeout": seconds}
        )
        for hold in holds:
            gone = hold in lost or not seconds
            until = begun + seconds - min(MARGIN_SECONDS, seconds / 2)
            hold.until = 0.0 if gone else until

    async def _carry_out(
        self, action: str, holds: Sequence[Hold], more: Mapping[str, Any]
    ) -> list[Hold]:
        """Do something to a batch, again where it fails; return those that SQS knows no more.

        Raises:
            Trouble: some of it did not succeed in the time there is.
        """
        until = asyncio.get_running_loop().time() + ANSWER_SECONDS
        lost: list[Hold] = []
        left = list(holds)
        tries = 0
        while True:
            try:
                if not await self._link.pace.turn(time.monotonic() + ANSWER_SECONDS):
                    raise Trouble(Kind.THROTTLED, f"{action}: throttled for too long")
                answer = await self._link.call(
                    action,
                    left[0].place.queue,
                    until,
                    QueueUrl=left[0].place.url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": it.handle, **more}
                        for n, it in enumerate(left)
                    ],
                )
            except Trouble as trouble:
                if trouble.kind is Kind.GONE:  # with all that was in it
                    return [*lost, *left]
                out_of_time = asyncio.get_running_loop().time() >= until
                if out_of_time or trouble.kind in (Kind.DENIED, Kind.REFUSED):
                    raise
            else:
                failed = answer.get("Failed") or ()
                lost += [left[int(it["Id"])] for it in failed if it.get("SenderFault")]
                left = [left[int(it["Id"])] for it in failed if not it.get("SenderFault")]
                if not left:
                    return lost
                if asyncio.get_running_loop().time() >= until:
                    raise Trouble(Kind.DOUBT, f"{action}: {failed}")
            tries += 1
            await asyncio.sleep(backoff(tries))


def _holds(deliveries: Sequence[Delivery]) -> list[Hold]:
    return [it.tag for it in deliveries if isinstance(it.tag, Hold)]


def _batches(holds: Sequence[Hold]) -> list[list[Hold]]:
    by_queue: dict[str, list[Hold]] = {}
    for hold in holds:
        by_queue.setdefault(hold.place.queue, []).append(hold)
    return [
        part[at : at + BATCH] for part in by_queue.values() for at in range(0, len(part), BATCH)
    ]


def _tell(ended: asyncio.Future[None], waiting: Sequence[asyncio.Future[None]]) -> None:
    error = None if ended.cancelled() else ended.exception()
    for done in waiting:
        if done.done():
            continue
        if ended.cancelled():
            done.cancel()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)
