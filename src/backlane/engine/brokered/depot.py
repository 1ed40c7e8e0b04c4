"""The depot: all that one process has of the transport, and how threads speak to it.

Claims take from the stock in whatever thread or loop they are, under one lock; all else
happens on the loop of the broker. What is told to that loop is gathered and told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from backlane.engine.brokered.belt import Belt, Load
from backlane.engine.brokered.foreign import Customs
from backlane.engine.brokered.letter import named
from backlane.engine.brokered.pace import Extent
from backlane.engine.brokered.patience import Patience
from backlane.engine.brokered.pump import Pump
from backlane.engine.brokered.relay import Relay, Way
from backlane.engine.hearing import Bell
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Claimed, Wanted
from backlane.engine.transport import Delivery, Transport
from backlane.engine.transports import loop
from backlane.engine.transports.bell import ArrivalBell, Belfry
from backlane.engine.transports.name import physical
from backlane.errors import EngineUnavailable
from backlane.model.job import Lane, Lease
from backlane.model.outcome import Released, Settlement
from backlane.model.queue import Kind

log = logging.getLogger("backlane.broker")

Taken = tuple[Belt, bytes, Load]

HEAR_SECONDS = 60.0  # of one wait for the ledger's bell
RING_SECONDS = 0.02  # between two rings for which nothing arrives


class Depot:
    """What this process has of the transport, from its first use until it is closed."""

    def __init__(
        self, transport: Transport, ledger: Ledger, prefix: str, patience: Patience, extent: Extent
    ) -> None:
        self.lock = threading.Lock()
        self.belts: dict[Way, Belt] = {}
        self._transport, self._ledger = transport, ledger
        self._prefix, self.patience, self.extent = prefix, patience, extent
        self._pid = os.getpid()
        self._is_closed = False
        self.relay = Relay(transport, ledger, self.belts, self.lock, patience)
        self.customs = Customs(transport, ledger, self.appended)
        self._belfry = Belfry()
        self._hearing: dict[ArrivalBell, asyncio.Task[None]] = {}
        self._pumps: dict[Belt, tuple[Pump, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._poked: set[Belt] = set()
        self._lacking: set[Belt] = set()  # belts whose pump is to go on
        self._acks: list[Delivery] = []
        self._dropped: list[bytes] = []
        self._is_acking = self._is_nudged = False
        self.background = loop.enter()
        self.background.loop.call_soon_threadsafe(self._begin)

    @property
    def is_own(self) -> bool:
        """Whether it is of this process, and open."""
        return self._pid == os.getpid() and not self._is_closed and self.background.is_own

    @property
    def is_busy(self) -> bool:
        """Whether the loop has not seen yet to all that has gathered."""
        return self._is_nudged or self._is_acking or bool(self._acks or self._dropped)

    # -- for claims, in any thread --

    def belt(self, queue: str, lane: Lane, kind: Kind) -> Belt:
        """Return the belt of a queue; under the lock."""
        belt = self.belts.get((queue, lane))
        if belt is None:
            way = (physical(self._prefix, queue, lane), queue, lane)
            is_ordered = self._transport.terms.is_ordered
            belt = Belt(way, kind, self.patience, self.extent, is_ordered=is_ordered)
            self.belts[queue, lane] = belt
        return belt

    def nudge_for(self, belts: Iterable[Belt], now: float) -> None:
        """Let pumps bring more, and the relay fill windows, where need be; under the lock."""
        for belt in belts:
            if belt not in self._pumps or belt.is_low(now):
                self._lacking.add(belt)
            if belt.wants_look(belt.window(now)):
                self._poked.add(belt)
        if self._lacking or self._poked:
            self._nudge()

    def use(self, taken: Sequence[Taken]) -> None:
        """These were leased, and it is committed."""
        if not taken:
            return
        now = time.monotonic()
        with self.lock:
            for belt, _, load in taken:
                belt.taken += 1
                belt.refusals = 0
                belt.speed.add(1, now)
                self._acks.append(load.delivery)
        self._nudge()

    def drop(self, taken: Sequence[Taken]) -> None:
        """These are not to be had now: their messages are of no use."""
        if not taken:
            return
        now = time.monotonic()
        with self.lock:
            for belt in {belt for belt, _, _ in taken}:
                # Else what the ledger offers and never gives would go round and round.
                belt.refusals += 1
                belt.not_before = now + min(1.0, 0.01 * 2 ** min(belt.refusals, 10))
            self._dropped += [job for _, job, _ in taken]
            self._acks += [load.delivery for _, _, load in taken]
        self._nudge()

    def give_back(self, leases: Sequence[Lease]) -> None:
        """These were leased, and are of a queue that nobody asked for: they were moved."""
        released = [Settlement(lease.job, lease.token, Released()) for lease in leases]
        self._call(self._settle(released))

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        await self._ledger.arun(self._ledger.settle(settlements))

    def put_back(self, taken: Sequence[Taken]) -> None:
        if not taken:
            return
        by_belt: dict[Belt, list[tuple[bytes, Load]]] = {}
        for belt, job, load in taken:
            by_belt.setdefault(belt, []).append((job, load))
        with self.lock:
            for belt, loads in by_belt.items():
                self._acks += belt.put_back(loads)

    def is_cut_off(self, belt: Belt, now: float) -> bool:
        """Whether its jobs are to be had from the ledger alone for now."""
        seconds = self.patience.cut_off
        if any(it.has_lasted(seconds, now) for it in (self.relay.trouble, belt.trouble)):
            return True
        return belt.down_since is not None and now - belt.down_since >= seconds

    def tell_buried(self, claimed: list[Claimed]) -> list[Claimed]:
        """Add the dead letters that the relay found on its way."""
        if not self.relay.buried or not claimed:
            return claimed
        with self.lock:
            buried, self.relay.buried = self.relay.buried, []
        first = msgspec.structs.replace(claimed[0], buried=claimed[0].buried + buried)
        return [first, *claimed[1:]]

    # -- for appends, in any thread --

    def appended(self, ways: Iterable[Way], kind: Kind) -> None:
        """Jobs were appended there, and it is committed."""
        now = time.monotonic()
        with self.lock:
            for queue, lane in ways:
                belt = self.belt(queue, lane, kind)
                # Behind a full window they wait for whoever takes from it.
                if not belt.has_more or now - belt.looked_at > self.patience.poll:
                    self._poked.add(belt)
        if self._poked:
            self._nudge()

    def look(self) -> None:
        """Something may have changed in any queue that this process has to do with."""
        with self.lock:
            self._poked |= set(self.belts.values())
        self._nudge()

    # -- bells --

    def has_arrived(self, wanted: Wanted) -> bool:
        """Whether something is there to be claimed; if not, it is called for."""
        now = time.monotonic()
        with self.lock:
            lanes = tuple(Lane) if wanted.lane is None else (Lane(wanted.lane),)
            ways = [(queue, lane) for queue in wanted.queues for lane in lanes]
            belts = [self.belt(*way, Kind(wanted.kind)) for way in ways]
            if any(belt.stock or self.is_cut_off(belt, now) for belt in belts):
                return True
            for belt in belts:
                belt.ask(wanted.number, now)
            self._poked |= set(belts)
            self.nudge_for(belts, now)
            return False

    def arrivals(self, wanted: Wanted) -> ArrivalBell:
        """Subscribe to what arrives, and to nothing else."""
        bell = ArrivalBell(wanted.queues, self._belfry.take_down)
        self._belfry.hang(bell)
        with self.lock:
            belts = [it for (queue, _), it in self.belts.items() if queue in wanted.queues]
            if any(belt.stock for belt in belts):  # meanwhile
                bell.ring()
        return bell

    def listen(self, queues: Sequence[str]) -> ArrivalBell:
        """Subscribe here and at the ledger.

        A ring of the ledger is first heard by the relay. What it then publishes rings when it
        arrives; only where nothing will arrive (a job is to be cancelled, is due later, or the
        broker is away) those who listen are rung at once.
        """
        heard = self._ledger.listen(queues)
        bell = ArrivalBell(queues, self._unhang)
        self._belfry.hang(bell)
        self._call(self._hear(bell, heard))
        return bell

    def _unhang(self, bell: ArrivalBell) -> None:
        self._belfry.take_down(bell)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.background.loop.call_soon_threadsafe(self._hush, bell)

    def _hush(self, bell: ArrivalBell) -> None:
        task = self._hearing.pop(bell, None)
        if task is not None:
            task.cancel()

    async def _hear(self, bell: ArrivalBell, heard: Bell) -> None:
        """Pass the rings of the ledger on, once the relay has looked."""
        task = asyncio.current_task()
        try:
            while task is not None and self._belfry.has(bell):
                self._hearing[bell] = task
                try:
                    if await heard.aheard(HEAR_SECONDS) and not await self.relay.look(bell.queues):
                        bell.ring()
                        await asyncio.sleep(RING_SECONDS)
                except Exception as error:  # noqa: BLE001 - a bell only makes it sooner
                    log.debug("no bell (%r); polling goes on", error)
                    await asyncio.sleep(self.patience.poll)
        finally:
            self._hearing.pop(bell, None)
            heard.close()

    # -- on the loop --

    def _begin(self) -> None:
        self._serving = self._start(self.relay.serve())

    def _nudge(self) -> None:
        """Let the loop see to what has gathered."""
        if not self._is_nudged:
            self._is_nudged = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.background.loop.call_soon_threadsafe(self._react)

    def _react(self) -> None:
        self._is_nudged = False
        with self.lock:
            poked, self._poked = self._poked, set()
            lacking, self._lacking = self._lacking, set()
        if self._is_closed:
            return
        if poked:
            self.relay.poke(poked)
        for belt in lacking:
            self._go_on(belt)
        if (self._acks or self._dropped) and not self._is_acking:
            self._is_acking = True
            self._start(self._ack())

    def _go_on(self, belt: Belt) -> None:
        """Let a belt's pump bring more; begin one if there is none."""
        if belt in self._pumps:
            self._pumps[belt][0].wake()
            return
        notice = self.relay.trouble.notice
        pump = Pump(belt, self._transport, self.lock, self.patience, self._arrived, notice)
        task = self._start(pump.serve())
        self._pumps[belt] = pump, task
        task.add_done_callback(lambda task: self._end_pump(belt, task))

    def _end_pump(self, belt: Belt, task: asyncio.Task[None]) -> None:
        del self._pumps[belt]
        is_ending = self._is_closed or task.cancelled()
        if not is_ending and belt.is_wanted(time.monotonic()):  # meanwhile
            self._go_on(belt)

    def _arrived(self, belt: Belt, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        loads: list[tuple[bytes, Load]] = []
        foreign: list[Delivery] = []
        for delivery in deliveries:
            found = named(delivery, belt.kind)
            if found is None:
                foreign.append(delivery)
            else:
                loads.append((found[0], Load(delivery, found[1], now)))
        with self.lock:
            doubles = belt.arrive(loads, now)
            self._acks += doubles
        if doubles:
            self._nudge()
        if foreign:
            self._start(self.customs.take_in(belt, foreign))
        if loads:
            self._belfry.ring((belt.queue,))

    async def _ack(self) -> None:
        """Acknowledge what has gathered; first let go of what was in vain."""
        try:
            while True:
                with self.lock:
                    acks, self._acks = self._acks, []
                    dropped, self._dropped = self._dropped, []
                if not acks and not dropped:
                    return
                if dropped:
                    await self.relay.withdraw(dropped)
                await self._transport.ack(acks)
        except EngineUnavailable as error:
            log.debug("some messages will come again: %s", error)
        finally:
            self._is_acking = False

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self.background.loop.call_soon_threadsafe(self._start, work)
        except RuntimeError:  # the loop is closed
            work.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.background.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the broker's loop failed at something; it goes on", exc_info=error)

    # -- the end --

    def close(self) -> None:
        """Publish nothing any more and give all back, in bounded time."""
        if not self.is_own:
            return
        self._is_closed = True
        with contextlib.suppress(TimeoutError):
            self.background.run(self._leave(), 3 * self.patience.closing)
        loop.leave(self.background)

    async def _leave(self) -> None:
        self.relay.end()
        await asyncio.wait([self._serving], timeout=self.patience.closing / 4)
        tasks = [*self._tasks, *self.relay.tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.patience.closing)
        with self.lock:
            left = [delivery for belt in self.belts.values() for delivery in belt.emptied()]
            acks, self._acks = self._acks, []
        for bell in list(self._hearing):
            self._belfry.take_down(bell)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience.closing):
                await self.relay.let_go()
        with contextlib.suppress(EngineUnavailable, TimeoutError):
            async with asyncio.timeout(self.patience.closing):
                if acks:
                    await self._transport.ack(acks)
                if left:
                    await self._transport.release(left)
        with contextlib.suppress(EngineUnavailable, TimeoutError):
            async with asyncio.timeout(self.patience.closing):
                await self._transport.close()
