"""A session: one worker's time with its engine, from its owner's name to its last word."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from backlane.engine.hearing import Enlisted
from backlane.engine.limiting import Declared
from backlane.engine.protocol import Declare, Engine
from backlane.errors import (
    BacklaneError,
    EngineUnavailable,
    SchemaMismatch,
    StoreCorrupt,
    UnknownQueue,
    nearest,
)
from backlane.model.job import Lane
from backlane.model.outcome import Released
from backlane.model.queue import Bounds, Kind
from backlane.worker.channel import Hello, QueueReport
from backlane.worker.dispatcher import Dispatcher
from backlane.worker.pacing import Pacing
from backlane.worker.post import Post
from backlane.worker.posts import Posts
from backlane.worker.timetable import Timekeeper
from backlane.worker.upkeep import Upkeep
from backlane.worker.wants import Wants

log = logging.getLogger("backlane.worker")

LAST_SETTLE_SECONDS = 5.0  # for an engine that is away when the worker ends
AGAIN_SECONDS = 1.0
DRAINED_SECONDS = 1.0  # for a process that has nothing left to do; then it is killed
KILLED_SECONDS = 5.0


class Crewed(Protocol):
    """Whoever starts and ends the executors of a session."""

    @property
    def deaf(self) -> frozenset[str]: ...

    def hire(self) -> Post: ...

    def leave(self) -> None: ...

    def kill(self, post: Post) -> None: ...

    def kill_all(self) -> None: ...


class Session:
    """Connects an engine, a dispatcher and the upkeep around the executors of `crewed`.

    Args:
        queues: what to claim from; none means all that the application declares.
        slots: of all executors together, for the record of workers.
        exclusive: the most jobs in exclusive executors at a time.
    """

    def __init__(
        self,
        engine: Engine,
        crewed: Crewed,
        hello: Hello,
        *,
        queues: Sequence[str],
        lease_ms: int,
        slots: int,
        exclusive: int,
    ) -> None:
        self._engine, self._crewed, self._hello = engine, crewed, hello
        self.owner = os.urandom(12).hex()  # of this start: leases of an earlier one are not ours
        chosen = _chosen(hello, queues)
        limits = {report.name: report.concurrency for report in chosen}
        wants = Wants(self.owner, lease_ms, limits)
        pacing = Pacing(lease_ms)
        posts = Posts(pacing, wants.limits, exclusive, crewed.hire)
        self.dispatcher = Dispatcher(engine, wants, pacing, posts)
        self._upkeep = Upkeep(
            self.dispatcher,
            slots=slots + exclusive,
            most=_most(chosen, {Lane.SHARED: slots, Lane.EXCLUSIVE: exclusive}),
            kill=crewed.kill,
            deaf=lambda task: task in crewed.deaf,
            retention=hello.retention,
        )
        self._timekeeper = Timekeeper(engine, hello)
        self._enlisted: Enlisted | None = None
        self.serving: list[asyncio.Future[None]] = []  # what must never end by itself

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The sign of life, to be passed on to executors."""
        return self._enlisted.descriptors if self._enlisted else ()

    async def open(self, is_wanted: Callable[[], bool]) -> None:
        """Connect, waiting for an engine that is away while `is_wanted`; declare the queues.

        Raises:
            SchemaMismatch, StoreCorrupt: waiting would not help.
            EngineUnavailable: it was away until nobody wanted it any more.
        """
        while True:
            try:
                self._enlisted = self._enlisted or self._engine.enlist(self.owner)
                await self._declare()
                return
            except (SchemaMismatch, StoreCorrupt):
                raise
            except EngineUnavailable as error:
                if not is_wanted():
                    raise
                log.warning("the engine is not there yet (%s); trying again", error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _declare(self) -> None:
        for report in self._hello.queues:
            if not report.has_tasks:
                continue  # it may be one of messages, and to declare it would fix its kind
            bounds = report.bounds
            declare = Declare(Kind.TASKS, bounds, report.is_fair)
            before = await self._engine.arun(self._engine.tune(report.name, declare))
            if before is not None and before.kind is Kind.TASKS and before.declared != bounds:
                log.warning(
                    "queue %s was declared with %s, now with %s; if another version still runs, "
                    "each start changes it",
                    report.name,
                    _told(before.declared),
                    _told(bounds),
                )

        for name, limit in self._hello.limits.items():
            await self._engine.arun(self._engine.regulate(name, Declared(limit)))

    def start(self) -> None:
        """Begin to take turns."""
        self.dispatcher.posts.tell_changed(self.owner, "started")
        self.serving = [
            asyncio.ensure_future(self.dispatcher.serve()),
            asyncio.ensure_future(self._upkeep.serve()),
            asyncio.ensure_future(self._timekeeper.serve()),
        ]

    def learn(self, hello: Hello) -> None:
        """Take the schedules of the application as it was just loaded anew."""
        self._timekeeper.learn(hello)

    def check(self) -> None:
        """Raise what ended the dispatcher or the upkeep, if that ever happened."""
        for part in self.serving:
            if part.done():
                part.result()
                raise RuntimeError("a part of the worker ended by itself")

    async def end(self, grace: float, at_once: asyncio.Event) -> bool:
        """Finish what runs for `grace` seconds, give the rest back, and say good-bye.

        Returns False when the engine did not take the last outcomes.
        """
        self.dispatcher.stop_claiming()
        self.dispatcher.posts.tell_changed(self.owner, "draining")
        self._crewed.leave()
        await self._all_idle(grace, at_once)
        await self._kill_rest()
        self.dispatcher.stop()
        serving, *others = self.serving
        await asyncio.wait({serving}, timeout=LAST_SETTLE_SECONDS)
        left = self.dispatcher.give_up()
        if left:
            log.error("%d outcomes could not be stored; those jobs run again", left)
        for other in others:
            other.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)
        return not left

    async def close(self) -> None:
        """Take the sign of life down and let go of the engine."""
        try:
            await self._upkeep.announce(leaving=True)
        except BacklaneError as error:
            log.debug("could not say that this worker leaves: %s", error)
        if self.dispatcher.posts.number_held:
            # Threads cannot be killed. While one still runs its job, the sign of life has to
            # stay, or the job would be given to another at once; so its lease ends by time.
            log.error("%d jobs do not end; their leases lapse", self.dispatcher.posts.number_held)
        elif self._enlisted is not None:
            self._enlisted.close()

    async def _all_idle(self, grace: float, at_once: asyncio.Event) -> None:
        posts = self.dispatcher.posts
        await _until(lambda: not posts.number_held or at_once.is_set(), grace)
        if posts.number_held:
            log.warning("%d jobs still run; they are given back", posts.number_held)

    async def _kill_rest(self) -> None:
        """End the processes; what they still hold is released, uncounted."""
        posts = self.dispatcher.posts
        for post in posts.all:
            for held in post.held.values():
                held.verdict = held.verdict or Released()
        if not posts.number_held:
            await _until(lambda: not posts.all, DRAINED_SECONDS)
        self._crewed.kill_all()
        await _until(lambda: not posts.all, KILLED_SECONDS)


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds, at most so long."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:  # noqa: ASYNC110 - it is nobody's event
        await asyncio.sleep(0.005)


def _told(bounds: Bounds) -> str:
    """Return bounds as a line for people."""
    told = f"{bounds.max_jobs} jobs and {bounds.max_bytes} bytes at most"
    if bounds.max_wait_ms is not None:
        told += f", a wait of {bounds.max_wait_ms / 1000:g} s"
    if bounds.group_share is not None:
        told += f", a share of {bounds.group_share:g} for a group"
    return told


def _most(queues: Sequence[QueueReport], slots: Mapping[Lane, int]) -> dict[str, int]:
    """Return how many slots the jobs of a queue can take, where that is not all of them."""
    most = {}
    for report in queues:
        number = sum(slots[lane] for lane in report.lanes or slots)
        number = number if report.concurrency is None else min(number, report.concurrency)
        if number < sum(slots.values()):
            most[report.name] = number
    return most


def _chosen(hello: Hello, queues: Sequence[str]) -> list[QueueReport]:
    """Return the queues to serve.

    Raises:
        UnknownQueue: the application does not declare one of them.
    """
    if not queues:
        return hello.queues
    known = {report.name: report for report in hello.queues}
    for name in queues:
        if name not in known:
            raise UnknownQueue(
                f"the application declares no queue {name!r}{nearest(name, known)}; "
                f"name one that it has: {', '.join(sorted(known)) or 'none'}"
            )
    return [known[name] for name in dict.fromkeys(queues)]
