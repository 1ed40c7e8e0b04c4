"""Consuming: the broker brings a queue's messages in advance; claims take them from here.

What was brought is ours until it is answered or its channel is lost. Then it is the
broker's again: the buffer is emptied, and an answer that comes later is passed over.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import TypeGuard

from pamqp import commands

from backlane.engine.transport import Bounds, Delivery
from backlane.engine.transports.rabbit import frame, question, topology
from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.channel import Channel
from backlane.engine.transports.rabbit.fault import NOT_FOUND, Declined, declined
from backlane.engine.transports.rabbit.line import Line
from backlane.engine.transports.rabbit.properties import read
from backlane.errors import SchemaMismatch

OPEN_SECONDS = 5.0
MOST_PREFETCH = 4_096
# A queue that nobody asks for messages keeps none of them from others for longer.
IDLE_SECONDS = 30.0
LONGEST_PAUSE = 1.0

_tag = Struct(">QB")

Brought = tuple[int, int, bytes, bytes]  # its tag, whether it was shown before, header, body


class Hold:
    """What one channel brought, and nobody has answered."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.open: dict[int, None] = {}  # tags, in the order in which they came
        self.buffer: deque[Brought] = deque()
        self.arrived = asyncio.Event()  # something came, or nothing will any more
        self.listening = 0  # how often we asked to have messages brought: the last one's name
        self.is_leaving = False
        self.is_fruitful = False
        channel.on_content = self._brought
        channel.on_cancel = channel.close  # the queue was deleted, or moved: look again
        channel.on_lost = self._lost

    def answer(self, tags: set[int]) -> None:
        """Acknowledge these: all that come first by one frame, the others one by one."""
        written: list[bytes] = []
        number, last = self.channel.number, 0
        for tag in self.open:
            if tag not in tags:
                break
            last = tag
        if last:
            written.append(frame.ack(number, last, multiple=True))
        for tag in tags:
            if tag in self.open:
                del self.open[tag]
                if tag > last:
                    written.append(frame.ack(number, tag, multiple=False))
        self.channel.write(b"".join(written))
        self._leave_if_done()

    def give_back(self, tags: Sequence[int]) -> None:
        """Let the broker show these again, the first of them first."""
        # It puts each at the head of its queue as it comes.
        returned = [it for it in sorted(tags) if it in self.open]
        for tag in returned:
            del self.open[tag]
        number = self.channel.number
        self.channel.write(b"".join(frame.requeue(number, it) for it in returned))
        self._leave_if_done()

    def leave(self) -> None:
        """Take nothing more, and give back what nobody has taken."""
        if self.channel.lost is not None:
            return
        self.is_leaving = True
        waiting = [it[0] for it in self.buffer]
        self.buffer.clear()
        if len(waiting) == len(self.open):
            self.channel.close()
            return
        self.channel.tell(commands.Basic.Cancel(consumer_tag=str(self.listening), nowait=True))
        self.give_back(waiting)

    def _leave_if_done(self) -> None:
        if self.is_leaving and not self.open:
            self.channel.close()

    def _brought(self, method: bytes, header: bytes, body: bytes) -> None:
        tag, shown = _tag.unpack_from(method, 5 + method[4])
        self.open[tag] = None
        if self.is_leaving:
            self.give_back((tag,))
            return
        self.buffer.append((tag, shown, header, body))
        self.is_fruitful = True
        if not self.arrived.is_set():
            self.arrived.set()

    def _lost(self, _why: Exception) -> None:
        self.buffer.clear()
        self.open.clear()
        self.arrived.set()


class Feed:
    """A queue that somebody listens to, over all channels it needs one after the other."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.hold: Hold | None = None
        self.prefetch = 0
        self.opening: asyncio.Task[Hold] | None = None
        self.failures = 0
        self.waiting = 0
        self.used = 0.0

    @property
    def now(self) -> Hold | None:
        """What brings messages, if anything does just now."""
        return self.hold if self.hold is not None and self.hold.channel.lost is None else None


class Consumer:
    """Listens to queues, on a connection of its own."""

    def __init__(self, address: Address, bounds: Mapping[str, Bounds]) -> None:
        self._address, self._bounds = address, bounds
        self._line = Line(address, "consume")
        self._feeds: dict[str, Feed] = {}
        self._idle: asyncio.TimerHandle | None = None

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """As `Transport.receive`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        feed = self._feeds.setdefault(queue, Feed(queue))
        feed.waiting += 1
        try:
            while True:
                if self._feeds.get(queue) is not feed:  # it was forgotten meanwhile
                    feed.waiting -= 1
                    feed = self._feeds.setdefault(queue, Feed(queue))
                    feed.waiting += 1
                hold = feed.now
                if hold is not None and hold.buffer:
                    return _taken(hold, queue, number)
                left = until - loop.time()
                hold = await self._opened(feed, number, left)
                if hold is None or left <= 0:
                    return []
                hold.arrived.clear()
                if not hold.buffer and hold.channel.lost is None:
                    await _within(hold.arrived, until - loop.time())
        finally:
            feed.waiting -= 1
            feed.used = loop.time()
            self._watch()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """As `Transport.ack`."""
        for hold, tags in _by_hold(deliveries).items():
            hold.answer(set(tags))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """As `Transport.release`."""
        for hold, tags in _by_hold(deliveries).items():
            hold.give_back(tags)

    def kept(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return those that are not ours any more."""
        return [it for it in deliveries if not _is_ours(it.tag)]

    async def forget(self, queue: str) -> None:
        """As `Transport.forget`."""
        feed = self._feeds.pop(queue, None)
        if feed is None:
            return
        if feed.opening is not None:
            feed.opening.cancel()
        if feed.hold is not None:
            feed.hold.leave()

    async def waiting(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        channel = await self._channel()
        try:
            return await topology.waiting(channel, self._address, queue) or 0
        finally:
            channel.close()

    async def purge(self, queue: str) -> None:
        """Drop what waits in a queue."""
        channel = await self._channel()
        try:
            await channel.ask(
                question.Purge(queue=queue), commands.Queue.PurgeOk, topology.ASK_SECONDS
            )
        except Declined as error:
            if error.code != NOT_FOUND:
                raise declined(self._address, error, queue, "read") from error
        finally:
            channel.close()

    async def close(self) -> None:
        """Give everything back and say good-bye."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        for queue in list(self._feeds):
            await self.forget(queue)
        await self._line.close()

    # -- the channels --

    async def _channel(self) -> Channel:
        connection = await self._line.connected(OPEN_SECONDS)
        return await connection.channel(OPEN_SECONDS)

    async def _opened(self, feed: Feed, number: int, seconds: float) -> Hold | None:
        """Return what brings messages, with room for as many; None: not within the time."""
        hold = feed.now
        if hold is not None and feed.prefetch >= len(hold.open) + number:
            return hold
        if feed.opening is None:
            feed.opening = asyncio.ensure_future(self._open(feed, number))
            feed.opening.add_done_callback(lambda _: _has_opened(feed))
        done, _ = await asyncio.wait((feed.opening,), timeout=max(0.0, seconds))
        if done:
            return await done.pop()
        if self._line.failure is not None:
            raise self._line.failure
        return None

    async def _open(self, feed: Feed, number: int) -> Hold:
        """Listen to a queue, or to more of it at a time."""
        before = feed.now
        held = len(before.open) if before is not None else 0
        feed.prefetch = min(MOST_PREFETCH, _power_of_two(2 * (held + number)))
        if before is not None and held:
            await self._widen(before, feed)
            return before
        if before is not None:
            before.leave()
        elif feed.hold is not None and self._line.connection is not None:
            await self._pause(feed)
        try:
            channel = await self._channel()
        except Declined as error:
            raise declined(self._address, error, feed.queue) from error
        hold = feed.hold = Hold(channel)
        try:
            await topology.declare(channel, self._address, feed.queue, self._bounds.get(feed.queue))
        except SchemaMismatch:
            if feed.queue in self._bounds:
                raise
            # Nothing was asked of it: it is taken as it is. The channel is gone by that.
            hold = feed.hold = Hold(await self._channel())
        await self._consume(hold, feed)
        return hold

    async def _widen(self, hold: Hold, feed: Feed) -> None:
        """Have more brought at a time: what is held here is held on."""
        await hold.channel.ask(
            commands.Basic.Cancel(consumer_tag=str(hold.listening)),
            commands.Basic.CancelOk,
            OPEN_SECONDS,
        )
        await self._consume(hold, feed)

    async def _consume(self, hold: Hold, feed: Feed) -> None:
        ask = hold.channel.ask
        hold.listening += 1  # RabbitMQ 3.10 crashes when a name comes again before all is answered
        try:
            await ask(
                commands.Basic.Qos(prefetch_count=feed.prefetch),
                commands.Basic.QosOk,
                OPEN_SECONDS,
            )
            await ask(
                question.Consume(queue=feed.queue, consumer_tag=str(hold.listening)),
                commands.Basic.ConsumeOk,
                OPEN_SECONDS,
            )
        except Declined as error:
            raise declined(self._address, error, feed.queue, "read") from error

    async def _pause(self, feed: Feed) -> None:
        """Wait before a channel is opened anew on a connection that still stands."""
        feed.failures = 0 if feed.hold and feed.hold.is_fruitful else feed.failures + 1
        if feed.failures:
            longest = min(LONGEST_PAUSE, 0.05 * 2.0**feed.failures)
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311  (no secret)

    # -- letting go --

    def _watch(self) -> None:
        if self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(
                IDLE_SECONDS / 4, self._let_go_of_idle
            )

    def _let_go_of_idle(self) -> None:
        self._idle = None
        now = asyncio.get_running_loop().time()
        for feed in list(self._feeds.values()):
            if not feed.waiting and now - feed.used > IDLE_SECONDS and feed.opening is None:
                del self._feeds[feed.queue]
                if feed.hold is not None:
                    feed.hold.leave()
        if self._feeds:
            self._watch()


def _has_opened(feed: Feed) -> None:
    opening, feed.opening = feed.opening, None
    if opening is not None and not opening.cancelled():
        opening.exception()  # its callers were told; there may have been none left


async def _within(event: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _taken(hold: Hold, queue: str, number: int) -> list[Delivery]:
    """Take messages out of the buffer, and read what came with them."""
    taken: list[Delivery] = []
    buffer = hold.buffer
    while buffer and len(taken) < number:
        tag, shown, header, body = buffer.popleft()
        found = read(header)
        taken.append(
            Delivery(
                queue,
                body,
                found.id,
                found.headers,
                found.group,
                1 + (found.returned or shown & 1),
                found.sent_ms,
                (hold, tag),
            )
        )
    return taken


def _is_ours(tag: object) -> TypeGuard[tuple[Hold, int]]:
    return isinstance(tag, tuple) and tag[1] in tag[0].open


def _by_hold(deliveries: Sequence[Delivery]) -> dict[Hold, list[int]]:
    found: dict[Hold, list[int]] = {}
    for delivery in deliveries:
        if _is_ours(delivery.tag):
            hold, tag = delivery.tag
            found.setdefault(hold, []).append(tag)
    return found


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
