"""The relay: publishes what is ready in the ledger, as much as there is a window for.

It looks where it was poked (this process has appended, or taken from a full window), at
the ledger's bell, where jobs become due, and once in a while at all that this process
claims from. Whatever stops it leaves jobs where they are: ready, in the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from backlane.engine.brokered.belt import Belt
from backlane.engine.brokered.letter import parcel
from backlane.engine.brokered.patience import Patience
from backlane.engine.brokered.trouble import Notice, Trouble
from backlane.engine.offering import Carried, Ledger, Offer, Offered
from backlane.engine.transport import Blocked, Fate, Transport
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.job import JobRecord, Lane

log = logging.getLogger("backlane.broker")

Way = tuple[str, Lane]

OFFERS_MOST = 500  # in one look: a few milliseconds of the ledger
PARCELS_MOST = 1_000  # in one publish
CALLS_MOST = 4  # of publish at a time, of one queue
BURIED_KEPT = 10_000  # dead letters that the next claim tells of
UNASKED_SECONDS = 15.0  # without a claim, until this process leaves a queue to others
LOOK_SECONDS = 0.5  # that somebody waits to learn whether something was published


class Relay:
    """Runs on the loop of the broker. `lock` guards the belts, which claims change too."""

    def __init__(
        self,
        transport: Transport,
        ledger: Ledger,
        belts: Mapping[Way, Belt],
        lock: threading.Lock,
        patience: Patience,
    ) -> None:
        self._transport, self._ledger = transport, ledger
        self._belts, self._lock, self._patience = belts, lock, patience
        self.trouble = Trouble(Notice(transport.terms.name))
        self._astray = Trouble(Notice("the ledger"))
        self.buried: list[JobRecord] = []
        self._dirty: dict[Belt, None] = {}
        self._looks: list[tuple[asyncio.Future[bool], frozenset[str]]] = []
        self._waker = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._poll_at = 0.0
        self._due_at: float | None = None
        self._is_looking = self._is_ending = False
        self._left: list[bytes] = []  # jobs that were offered, and not published any more

    # -- what it is told, on its loop --

    def poke(self, belts: Iterable[Belt]) -> None:
        """Something may be ready there, or may have room."""
        for belt in belts:
            self._dirty[belt] = None
        self._waker.set()

    async def look(self, queues: Iterable[str]) -> bool:
        """Look at these queues now; return whether something will arrive for it."""
        names = frozenset(queues)
        belts = [belt for belt in list(self._belts.values()) if belt.queue in names]
        belts = [belt for belt in belts if not belt.has_more]
        if not belts or self.trouble or self._astray:
            self.poke(belts)
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._looks.append((future, names))
        self.poke(belts)
        # Not `wait_for`, here and elsewhere: in Python 3.11 it may swallow a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return await future
        return False

    def end(self) -> None:
        """Publish no more, from the next look on."""
        self._is_ending = True
        self._waker.set()

    async def let_go(self) -> None:
        """Let others offer what was offered here and not published."""
        left, self._left = self._left, []
        if left:
            await self.withdraw(left)

    @property
    def is_idle(self) -> bool:
        """Whether all it was told of is published."""
        return not (self._dirty or self.tasks or self._is_looking)

    # -- looking --

    async def serve(self) -> None:
        """Look until told to end."""
        while not self._is_ending:
            now = time.monotonic()
            belts = self._next(now)
            if not belts:
                await self._pause(now)
                continue
            self._is_looking = True
            try:
                if self.trouble and not await self._is_well(belts[0]):
                    self.poke(belts)  # nothing is offered that could not be published
                else:
                    await self._look_at(belts, now)
            except (EngineUnavailable, OutcomeUnknown) as error:
                self._fail(belts, error)
            except Exception as error:
                if not self._astray:
                    log.exception("the relay failed; it goes on")
                self._fail(belts, error)
            finally:
                self._is_looking = False

    def _next(self, now: float) -> list[Belt]:
        """Take the belts to be looked at."""
        if now >= self._poll_at or (self._due_at is not None and now >= self._due_at):
            self._due_at = None
            self._poll_at = now + self._patience.poll * random.uniform(0.7, 1.3)  # noqa: S311
            self._dirty |= dict.fromkeys(self._claimed(now))
        if now < max(self.trouble.resume_at, self._astray.resume_at):
            return []
        belts = [it for it in self._dirty if it.not_before <= now and it.under_way < CALLS_MOST][
            :OFFERS_MOST
        ]
        for belt in belts:
            del self._dirty[belt]
        return belts

    def _claimed(self, now: float) -> list[Belt]:
        """The belts that this process claims from."""
        with self._lock:
            belts = [belt for belt in self._belts.values() if belt.is_claimed]
            for belt in belts:
                belt.is_claimed = now - belt.asked_at < UNASKED_SECONDS
        return [belt for belt in belts if belt.is_claimed]

    async def _pause(self, now: float) -> None:
        """Wait for a poke, or for what is due."""
        at = self._poll_at if self._due_at is None else min(self._poll_at, self._due_at)
        resume_at = max(self.trouble.resume_at, self._astray.resume_at)
        if resume_at > now:  # a poke does not bring it about
            at = resume_at
        elif self._dirty:
            # One with calls under way is looked at when the first of them has ended.
            idle = [belt.not_before for belt in self._dirty if belt.under_way < CALLS_MOST]
            at = min([at, *(max(before, now + 0.001) for before in idle)])
        self._waker.clear()
        with contextlib.suppress(TimeoutError):
            if resume_at > now:
                await asyncio.sleep(at - now)
            else:
                async with asyncio.timeout(max(0.0, at - now)):
                    await self._waker.wait()

    async def _look_at(self, belts: Sequence[Belt], now: float) -> None:
        looks, self._looks = self._looks, []
        named: set[str] = set()
        try:
            offered = await self._offer(belts, now)
            if self._is_ending:
                self._left += [job.job for job in offered.jobs]
                return
            by_belt: dict[Belt, list[Carried]] = {}
            for job in offered.jobs:
                by_belt.setdefault(self._belts[job.queue, job.lane], []).append(job)
            for belt, jobs in by_belt.items():
                if belt.is_claimed:
                    named.add(belt.queue)
                for at in range(0, len(jobs), PARCELS_MOST):
                    belt.under_way += 1
                    part = jobs[at : at + PARCELS_MOST]
                    self._start(self._publish(belt, part, offered.now_ms))
            for way in offered.doubtful:
                self._start(self._doubt(self._belts[way], offered.now_ms))
        finally:
            for future, queues in looks:
                if not future.done():
                    future.set_result(bool(queues & named))

    async def _offer(self, belts: Sequence[Belt], now: float) -> Offered:
        with self._lock:
            offers = [
                Offer(belt.queue, belt.window(now), belt.lane, belt.void_ms(now)) for belt in belts
            ]
            for belt in belts:
                belt.taken, belt.looked_at = 0, now
        offered = await self._ledger.arun(self._ledger.offer(offers, self._patience.offer_ms))
        self._astray.end()
        full = set(offered.more)
        with self._lock:
            for belt in belts:
                belt.has_more = (belt.queue, belt.lane) in full
            self.buried = (self.buried + offered.buried)[-BURIED_KEPT:]
        if offered.next_due_ms is not None:
            due_at = time.monotonic() + max(0.005, offered.next_due_ms / 1000)
            self._due_at = due_at if self._due_at is None else min(self._due_at, due_at)
        return offered

    # -- publishing --

    async def _publish(self, belt: Belt, jobs: Sequence[Carried], at_ms: int) -> None:
        parcels = [parcel(job, belt.kind, at_ms) for job in jobs]
        try:
            fates = await self._transport.publish(belt.name, parcels, self._patience.publish)
        except (EngineUnavailable, Blocked) as error:
            self.trouble.begin(error, time.monotonic())
            await self.withdraw([job.job for job in jobs])
            self.poke([belt])
            return
        except asyncio.CancelledError:  # it may arrive: then it is claimed, and once
            self._left += [job.job for job in jobs]
            raise
        finally:
            belt.under_way -= 1
        belt.number_published += fates.count(Fate.CONFIRMED)
        refused = [job.job for job, fate in zip(jobs, fates, strict=True) if fate is Fate.REFUSED]
        self.trouble.end()
        if not refused:
            belt.trouble.end()
        else:  # this queue's own: others go on
            belt.trouble.begin(RuntimeError("it refuses them"), time.monotonic())
            belt.not_before = max(belt.not_before, belt.trouble.resume_at)
            await self.withdraw(refused)
            self.poke([belt])

    async def withdraw(self, jobs: Sequence[bytes]) -> None:
        """Let jobs be offered again. Where this fails, their offers become void in time."""
        try:
            await self._ledger.arun(self._ledger.withdraw(jobs))
        except (EngineUnavailable, OutcomeUnknown) as error:
            log.debug("%d jobs stay offered for a while: %s", len(jobs), error)

    # -- what may be lost --

    async def _doubt(self, belt: Belt, now_ms: int) -> None:
        """Ask the broker whether it has what was offered long ago.

        Only where it has nothing twice, so long apart that whoever had something in hand
        has given it back or used it meanwhile.
        """
        now = time.monotonic()
        if belt.stock or (belt.zero_at is not None and now - belt.zero_at < self._patience.settled):
            return
        try:
            if belt.listened_at + self._patience.offer < now and not self._transport.terms.held_ms:
                # RabbitMQ 3.10 does not always tell who listens that a queue was deleted and
                # made again, and brings nothing then: listen anew.
                belt.listened_at = now
                await self._transport.forget(belt.name)
            standing = await self._transport.standing(belt.name)
        except EngineUnavailable as error:
            log.debug("%s: %s", belt.name, error)
            return
        if standing.ready:
            belt.zero_at = None
        elif belt.zero_at is None:
            belt.zero_at = now
        elif standing.is_exact or now - belt.zero_at >= self._patience.inexact:
            with self._lock:
                belt.void_to_ms = now_ms - self._patience.offer_ms
            belt.zero_at = None
            self.poke([belt])

    # -- its tasks --

    async def _is_well(self, belt: Belt) -> bool:
        """Ask the broker for a sign of life."""
        try:
            async with asyncio.timeout(self._patience.publish):
                await self._transport.standing(belt.name)
        except (EngineUnavailable, TimeoutError) as error:
            self.trouble.begin(error, time.monotonic())
            return False
        return True

    def _fail(self, belts: Iterable[Belt], error: Exception) -> None:
        """Remember what was not looked at, and wait a little."""
        self._astray.begin(error, time.monotonic())
        self.poke(belts)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the relay failed; it goes on", exc_info=error)
        self._waker.set()
