"""The core: what one process has in its hands of a bare transport.

All of it is of one thread, that of the broker's loop. Nothing here outlives a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping, Sequence

import msgspec

from backlane.engine import wire
from backlane.engine.bare.depth import Depths
from backlane.engine.bare.line import Line
from backlane.engine.bare.routing import broker_queue, dead_queue, hop_ms
from backlane.engine.transport import Blocked, Bounds, Delivery, Fate, Parcel, Transport
from backlane.engine.transports.bell import Belfry
from backlane.errors import BacklaneError, EngineUnavailable, SchemaMismatch
from backlane.model.clock import Clock
from backlane.model.job import Lane, Lease
from backlane.model.queue import DEFAULT_BOUNDS
from backlane.model.queue import Bounds as QueueBounds

log = logging.getLogger("backlane.broker")

PUBLISH_SECONDS = 10.0  # until a publish that nobody confirms is in doubt
KEEP_SECONDS = 0.25  # how exactly leases end
REFUSED_SECONDS = 5.0  # until it is looked again whether a queue is as it should be
TELL_SECONDS = 60.0
AGAIN_SECONDS = 1.0  # between two tries to publish what an outcome asks for
# A message that was shown so often took its process down each time, or is not acknowledged
# for another reason that trying again does not mend.
SHOWN_MOST = 100
# Deliveries whose acknowledgement nobody waits for. A broker that takes them slower than it
# brings others would show these again before their turn came, so from here on one waits.
SENT_OFF_MOST = 1_000
# Of so many that succeeded it is remembered, so that one whose acknowledgement was lost with
# the connection is not begun again here.
DONE_MOST = 10_000


class Held(msgspec.Struct, gc=False):
    """A delivery that became a lease, and is neither acknowledged nor given back."""

    delivery: Delivery
    letter: wire.Letter
    headers: Mapping[str, str]
    lease: Lease
    line: Line
    until: float  # monotonic: the end of the lease
    same: list[Delivery] = []  # the same message, shown again meanwhile
    next: list[Delivery] = []  # another of its id: what is to become of it comes after
    has_copy: bool = False  # what its outcome asked for is published: acknowledge, no more

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.delivery, *self.same]


class Owed(msgspec.Struct, gc=False):
    """What an outcome asks to be published, and is not confirmed yet. Its lease is over."""

    held: Held
    name: str
    parcel: Parcel
    extended_at: float

    @property
    def deliveries(self) -> list[Delivery]:
        return self.held.deliveries


class Waiting(msgspec.Struct, gc=False):
    """A delivery that came before it was due, where the broker cannot put it off."""

    delivery: Delivery
    line: Line
    until: float
    extended_at: float

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.delivery]


class Core:
    """Receives, holds and publishes for one process."""

    def __init__(self, transport: Transport, clock: Clock, prefix: str, belfry: Belfry) -> None:
        self.transport, self.clock, self.prefix = transport, clock, prefix
        self.depths = Depths(transport)
        self.held: dict[bytes, Held] = {}
        self.owed: list[Owed] = []
        self.waiting: list[Waiting] = []
        self.bounds: dict[str, QueueBounds] = {}  # as declared here
        self._done: dict[bytes, int] = {}
        self._belfry = belfry
        self._lines: dict[str, Line] = {}
        self.made: set[str] = set()  # of the broker's queues: those that are as they should be
        self._declared: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, float] = {}  # queues made otherwise: when to look again
        self._told: dict[str, float] = {}  # when to say so again
        self._keeper: asyncio.Task[None] | None = None
        self._asides: set[asyncio.Task[None]] = set()
        self._acks: dict[asyncio.Task[None], int] = {}  # on their way, and of how many
        # So that no receipt of another process, or of an earlier start, is one of ours.
        self._token = random.SystemRandom().getrandbits(52)

    # -- queues --

    def name(self, queue: str, lane: Lane = Lane.SHARED) -> str:
        return broker_queue(self.prefix, queue, lane)

    async def declare(self, queue: str, lane: Lane = Lane.SHARED) -> str:
        """Make one of the broker's queues, with its bounds and its dead letters; once."""
        name = self.name(queue, lane)
        if name in self.made:
            return name
        made = self._declared.get(name)
        if made is None:
            made = asyncio.ensure_future(self.transport.declare(name, self.asked(queue, name)))
            self._declared[name] = made
        try:
            await asyncio.shield(made)
        except BaseException:
            if self._declared.get(name) is made and made.done():
                del self._declared[name]
            raise
        self.made.add(name)
        return name

    def asked(self, queue: str, name: str) -> Bounds:
        """Return what the broker's queue of that name is made with."""
        dead = self.name(dead_queue(queue))
        if name == dead:  # what is dead is not lost for want of room
            return Bounds()
        bounds = self.bounds.get(queue, DEFAULT_BOUNDS)
        return Bounds(bounds.max_jobs, bounds.max_bytes, SHOWN_MOST, dead)

    async def has(self, queue: str, lane: Lane) -> bool:
        """Make a queue to receive from; say so where it is there, and made otherwise.

        Its bounds would not hold, so nothing is sent there or received; the others go on.
        """
        name = self.name(queue, lane)
        now = time.monotonic()
        if now < self._refused.get(name, 0.0):
            return False
        try:
            await self.declare(queue, lane)
        except SchemaMismatch as error:
            self._refused[name] = now + REFUSED_SECONDS
            if now >= self._told.get(name, 0.0):
                self._told[name] = now + TELL_SECONDS
                log.warning("queue %s is not served: %s", queue, error)
            return False
        return True

    def is_declared(self, queue: str, lane: Lane) -> bool:
        return self.name(queue, lane) in self._declared

    def line(self, queue: str, lane: Lane) -> Line:
        name = self.name(queue, lane)
        line = self._lines.get(name)
        if line is None:
            line = Line(self.transport, name, queue, lane, self._ring)
            self._lines[name] = line
        return line

    def _ring(self, queue: str) -> None:
        self._belfry.ring((queue,))

    # -- what is held --

    def new_token(self) -> int:
        self._token += 1
        return self._token

    def keep(self) -> None:
        """See to what is held from now on."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.ensure_future(self._see_to_it())

    def aside(self, work: asyncio.Task[None]) -> None:
        """Let something go on that nobody waits for."""
        self._asides.add(work)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._asides.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.warning("what was to be published is tried again: %r", error)

    def drop(self, held: Held) -> None:
        """The delivery is done with; what came meanwhile under its id is looked at."""
        if self.held.get(held.lease.job) is held:
            del self.held[held.lease.job]
        for delivery in held.next:
            held.line.put_back(delivery)

    def finish(self, held: Held) -> None:
        """Like `drop`, of one that is not to be begun again."""
        self.drop(held)
        self._done[held.lease.job] = _print(held.delivery)
        if len(self._done) > DONE_MOST:
            del self._done[next(iter(self._done))]

    def is_done(self, job: bytes, delivery: Delivery) -> bool:
        """Whether this very message was finished here."""
        return delivery.received > 1 and self._done.get(job) == _print(delivery)

    async def send_off(self, deliveries: Sequence[Delivery]) -> None:
        """Have these acknowledged; wait for it only while very many are on their way."""
        ack = asyncio.ensure_future(self._ack(deliveries))
        self._acks[ack] = len(deliveries)
        ack.add_done_callback(self._acks.pop)
        while sum(self._acks.values()) > SENT_OFF_MOST:
            await asyncio.wait(self._acks, return_when=asyncio.FIRST_COMPLETED)

    async def _ack(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self.transport.ack(deliveries)
        except EngineUnavailable as error:  # what comes again here is known to be done
            log.warning("%d jobs that are done may come again: %s", len(deliveries), error)

    # -- publishing --

    async def publish(self, name: str, parcels: Sequence[Parcel]) -> list[Fate]:
        """Publish, with an answer for each whatever happens; refused is not published."""
        try:
            return await self.transport.publish(name, parcels, PUBLISH_SECONDS)
        except (Blocked, EngineUnavailable):
            return [Fate.REFUSED] * len(parcels)

    def parcel(
        self,
        job: bytes,
        letter: wire.Letter,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Parcel:
        """Return a letter as a message; `body` is that of a raw one."""
        left_ms = 0
        if letter.due is not None:
            left_ms = letter.due - self.clock.wall_ms()
        delay_ms = hop_ms(self.transport.terms.delays, left_ms)
        text = wire.written(letter)
        if body is None:
            return Parcel(wire.id_text(job), text, {}, letter.group, delay_ms)
        own = {**headers, wire.HEADER: text.decode()}
        return Parcel(wire.id_text(job), body, own, letter.group, delay_ms)

    # -- by the clock --

    async def _see_to_it(self) -> None:
        paid_at = 0.0
        while self.held or self.owed or self.waiting:
            await asyncio.sleep(KEEP_SECONDS)
            now = time.monotonic()
            try:
                await self._let_lapse(now)
                await self._hand_on(now)
                if self.owed and now - paid_at > AGAIN_SECONDS:
                    paid_at = now
                    await self._pay(now)
            except BacklaneError as error:
                log.debug("not this time: %s", error)

    async def _let_lapse(self, now: float) -> None:
        """Give back what nobody extended: whoever had it does not live, or does not answer."""
        lapsed = [held for held in self.held.values() if held.until <= now]
        for held in lapsed:
            self.drop(held)
        if lapsed:
            log.warning("%d leases have lapsed; their messages are shown again", len(lapsed))
            await self.transport.release([one for held in lapsed for one in held.deliveries])

    async def _hand_on(self, now: float) -> None:
        """Give what is due to who asks, and keep what is not."""
        due = [it for it in self.waiting if it.until <= now]
        self.waiting = [it for it in self.waiting if it.until > now]
        for it in due:
            it.line.put_back(it.delivery)
        await self._extended(self.waiting, now)

    async def _pay(self, now: float) -> None:
        """Publish what outcomes asked for and the broker did not take before."""
        lost = await self._extended(self.owed, now)
        for owed in list(self.owed):
            held = owed.held
            if all(any(one is other for other in lost) for one in held.deliveries):
                self.owed.remove(owed)  # it is shown again, as it was before the outcome
                self.drop(held)
                continue
            fate = (await self.publish(owed.name, [owed.parcel]))[0]
            if fate is Fate.CONFIRMED:
                self.owed.remove(owed)
                await self.transport.ack(held.deliveries)
                self.finish(held)

    async def _extended(
        self, items: Sequence[Owed] | Sequence[Waiting], now: float
    ) -> list[Delivery]:
        """Keep deliveries that only we know of; return those that are ours no more."""
        held_ms = self.transport.terms.held_ms
        ripe = [item for item in items if not held_ms or now - item.extended_at > held_ms / 3000]
        if not ripe:
            return []
        for item in ripe:
            item.extended_at = now
        kept = [one for item in ripe for one in item.deliveries]
        return await self.transport.extend(kept, held_ms / 1000)

    # -- the end --

    async def give_back(self, queues: Sequence[str]) -> None:
        """Receive no more from these queues."""
        for line in list(self._lines.values()):
            if line.queue in queues:
                del self._lines[line.name]
                await line.end()

    async def close(self) -> None:
        """Give back what is here, and let go of the broker."""
        for work in (self._keeper, *self._asides):
            if work is not None:
                work.cancel()
        for line in self._lines.values():
            await line.end()
        self._lines.clear()
        left = [one for held in self.held.values() for one in held.deliveries]
        left += [it.delivery for it in self.waiting]
        self.held.clear()
        if left:
            with contextlib.suppress(BacklaneError):
                await self.transport.release(left)
        await self.transport.close()


def _print(delivery: Delivery) -> int:
    return hash((delivery.body, delivery.headers.get(wire.HEADER)))
