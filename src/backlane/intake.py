"""The intake: the verb that tasks and message queues are given to store jobs by.

Here what is known of a queue's speed goes into the append, a refusal of the engine or of
the door becomes the error it means (or, with `on_full="wait"`, a wait and another try), a
commit in doubt gets the ids to send again, and the observers are told.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from backlane.door import Caller, turned_away
from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission, Capability, Engine
from backlane.errors import (
    EngineUnavailable,
    OutcomeUnknown,
    QueueFull,
    WrongUse,
)
from backlane.fault import fault, naming
from backlane.gauge import Gauge, Line, Measuring
from backlane.middleware import Wrap
from backlane.model.event import JobEnqueued, JobRefused, Observers, RoomAwaited
from backlane.model.job import Job, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.pressure.slots import Ask
from backlane.model.queue import Queue
from backlane.model.retry import milliseconds
from backlane.options import Terms
from backlane.place import Place
from backlane.visit import Tally, Visit, moving, shown
from backlane.wait import in_a_loop

log = logging.getLogger("backlane")

Answer = list[Receipt] | Refusal

# A reservation takes a millisecond or two; a caller who cannot wait for another's does without.
LOCK_SECONDS = 0.1


class Intake:
    """The way into the store, for what holds tasks or for what holds messages.

    `admission` is what each append is judged by, `queue` finds a declared queue by its name,
    `wraps` is the middleware around each enqueue. Of the limits in `admission` an append
    takes along those that its jobs are under.
    """

    __slots__ = (
        "_gauge",
        "_has_warned",
        "_judged",
        "_limits",
        "_observers",
        "decoders",
        "place",
        "queue",
        "wraps",
    )

    def __init__(
        self,
        place: Place,
        gauge: Gauge,
        admission: Admission,
        queue: Callable[[str], Queue],
        observers: Observers,
        wraps: tuple[Wrap, ...],
    ) -> None:
        self.place = place
        self.queue = queue
        self.wraps = wraps
        self._gauge = gauge
        self._limits = admission.limits
        self._judged = msgspec.structs.replace(admission, limits={})  # of the last append
        self._observers = observers
        self._has_warned = False
        # How results of each task are read; tasks enter theirs.
        self.decoders: dict[str, Callable[[bytes], Any]] = {}

    def append(
        self, jobs: Sequence[Job], terms: Terms, tally: Tally | None = None
    ) -> list[Receipt]:
        """Store all jobs or none, in the caller's transaction if there is a connection.

        A caller who waits for room, and whose jobs are told in `tally`, may have some of
        them stored before the others.

        Raises:
            QueueFull, StaleId, KeyReused, StoreMoved, WrongUse: the store refused them.
            OutcomeUnknown: names the ids, which can be sent again.
        """
        if in_a_loop():
            self._check_in_a_loop(jobs[0], terms)
        answer = self._ask(jobs, terms)
        if not isinstance(answer, Refusal):
            return self._taken(jobs, answer, tally)
        visit = self._visit(jobs, terms, tally)
        while True:
            if not isinstance(answer, Refusal):
                visit.entered(self._taken(visit.part, answer, tally))
                if visit.is_over:
                    return visit.receipts
            elif not visit.cuts(answer):
                pause_ms = self._pause_ms(visit, self._full(answer, visit))
                started_ms = self.place.clock.boot_ms()
                self.place.rest(pause_ms / 1000)
                visit.passed(max(pause_ms, self.place.clock.boot_ms() - started_ms))
            answer = self._ask(visit.part, visit.terms)

    async def aappend(
        self, jobs: Sequence[Job], terms: Terms, tally: Tally | None = None
    ) -> list[Receipt]:
        """Like `append`."""
        answer = await self._aask(jobs, terms)
        if not isinstance(answer, Refusal):
            return self._taken(jobs, answer, tally)
        visit = self._visit(jobs, terms, tally)
        while True:
            if not isinstance(answer, Refusal):
                visit.entered(self._taken(visit.part, answer, tally))
                if visit.is_over:
                    return visit.receipts
            elif not visit.cuts(answer):
                pause_ms = self._pause_ms(visit, await self._afull(answer, visit))
                started_ms = self.place.clock.boot_ms()
                await self.place.arest(pause_ms / 1000)
                visit.passed(max(pause_ms, self.place.clock.boot_ms() - started_ms))
            answer = await self._aask(visit.part, visit.terms)

    def require(self, capability: Capability, what: str) -> None:
        """Refuse, where it is written, what the engine cannot do.

        Raises:
            NotSupported: names the remedy.
        """
        self.place.require(capability, what)

    # -- one try --

    def _ask(self, jobs: Sequence[Job], terms: Terms) -> Answer:
        engine, queue = self.place.engine, jobs[0].queue
        try:
            if terms.connection is not None:
                plan = engine.append(jobs, self._admission(self._gauge.known(engine), jobs, terms))
                return engine.joined(terms.connection).run(plan)
            due = self._gauge.due(engine, queue)
            if due is not None:
                self._measure(engine, due)
            line = self._gauge.line(engine, queue)
            refusal = self._turned_away(line, jobs, terms)
            if refusal is not None:
                return refusal
            answer = engine.run(
                engine.append(jobs, self._admission(self._gauge.paces, jobs, terms))
            )
            return self._let_in(line, answer, len(jobs))
        except OutcomeUnknown as error:
            raise naming(jobs, error) from error

    async def _aask(self, jobs: Sequence[Job], terms: Terms) -> Answer:
        engine, queue = self.place.engine, jobs[0].queue
        try:
            if terms.connection is not None:
                plan = engine.append(jobs, self._admission(self._gauge.known(engine), jobs, terms))
                return await engine.joined(terms.connection).arun(plan)
            due = self._gauge.due(engine, queue)
            if due is not None:
                await self._ameasure(engine, due)
            line = self._gauge.line(engine, queue)
            refusal = self._turned_away(line, jobs, terms)
            if refusal is not None:
                return refusal
            plan = engine.append(jobs, self._admission(self._gauge.paces, jobs, terms))
            return self._let_in(line, await engine.arun(plan), len(jobs))
        except OutcomeUnknown as error:
            raise naming(jobs, error) from error

    def _measure(self, engine: Engine, due: Measuring) -> None:
        measured = None
        try:
            measured = engine.run(due.plan)
        except (EngineUnavailable, OutcomeUnknown) as error:  # the append may yet succeed
            log.debug("queues could not be measured, so no wait is foretold: %s", error)
        finally:
            due.end(measured)

    async def _ameasure(self, engine: Engine, due: Measuring) -> None:
        measured = None
        try:
            measured = await engine.arun(due.plan)
        except (EngineUnavailable, OutcomeUnknown) as error:
            log.debug("queues could not be measured, so no wait is foretold: %s", error)
        finally:
            due.end(measured)

    def _admission(self, paces: Mapping[str, Pace], jobs: Sequence[Job], terms: Terms) -> Admission:
        judged = self._judged
        if judged.paces is not paces:
            judged = self._judged = msgspec.structs.replace(judged, paces=paces)
        if terms.remade:
            judged = msgspec.structs.replace(judged, remade=True)
        if not self._limits:
            return judged
        names = {each.limit for job in jobs for each in job.uses}
        names |= {f"queue:{job.queue}" for job in jobs}
        declared = {name: self._limits[name] for name in sorted(names & self._limits.keys())}
        return msgspec.structs.replace(judged, limits=declared) if declared else judged

    def _turned_away(self, line: Line | None, jobs: Sequence[Job], terms: Terms) -> Refusal | None:
        if line is None or not line.is_guarded:
            return None
        now_ms = self.place.clock.wall_ms()
        return turned_away(line, jobs, terms.ticket or shown.get(), self._gauge.secret, now_ms)

    def _let_in(self, line: Line | None, answer: Answer, number: int) -> Answer:
        if line is not None and not isinstance(answer, Refusal):
            line.slots.entered(number)
        return answer

    def _taken(
        self, jobs: Sequence[Job], receipts: list[Receipt], tally: Tally | None
    ) -> list[Receipt]:
        """Count what was stored and tell the observers."""
        if tally is not None:
            tally.stored += len(receipts)
        if self._observers:
            for job, receipt in zip(jobs, receipts, strict=True):
                made = uuid.UUID(bytes=receipt.first or receipt.job)
                self._observers.tell(JobEnqueued(made, job.task, job.queue, receipt.is_new))
        return receipts

    # -- refused --

    def _visit(self, jobs: Sequence[Job], terms: Terms, tally: Tally | None) -> Visit:
        return Visit(jobs, terms, self._waits_ms(jobs[0], terms), tally)

    def _waits_ms(self, job: Job, terms: Terms) -> int | None:
        """Return how long a caller waits for room at most; None: it does not wait.

        In a transaction of its own it would keep others from making room, and inside a job
        a slot that could make some, so there only who says so expressly waits.
        """
        if terms.connection is not None or (job.parent is not None and terms.on_full is None):
            return None
        queue = self.queue(job.queue)
        if (terms.on_full or queue.on_full) == "refuse":
            return None
        if terms.on_full_timeout_ms is not None:
            return terms.on_full_timeout_ms
        return milliseconds(queue.on_full_timeout, "on_full_timeout")

    def _full(self, refusal: Refusal, visit: Visit) -> QueueFull:
        """Return what a refused caller is told, or raise what waiting would not mend."""
        if refusal.limit == "moving" and refusal.can_fit:
            return moving(refusal, visit)
        caller = self._caller(refusal, visit)
        lock = caller.lock
        if lock is None or not lock.acquire(timeout=LOCK_SECONDS):
            return caller.full(visit.accepted, visit.waited)
        try:
            ask = caller.lacks()
            if ask is not None and visit.terms.connection is None:
                try:
                    caller.granted(ask, self.place.engine.run(self._reserve(refusal, ask)))
                except (EngineUnavailable, OutcomeUnknown) as error:
                    log.debug("no places of %s could be reserved: %s", refusal.queue, error)
            return caller.full(visit.accepted, visit.waited)
        finally:
            lock.release()

    async def _afull(self, refusal: Refusal, visit: Visit) -> QueueFull:
        if refusal.limit == "moving" and refusal.can_fit:
            return moving(refusal, visit)
        caller = self._caller(refusal, visit)
        lock = caller.lock
        if lock is None or not await _acquired(lock):
            return caller.full(visit.accepted, visit.waited)
        try:
            ask = caller.lacks()
            if ask is not None and visit.terms.connection is None:
                try:
                    begins_ms = await self.place.engine.arun(self._reserve(refusal, ask))
                    caller.granted(ask, begins_ms)
                except (EngineUnavailable, OutcomeUnknown) as error:
                    log.debug("no places of %s could be reserved: %s", refusal.queue, error)
            return caller.full(visit.accepted, visit.waited)
        finally:
            lock.release()

    def _caller(self, refusal: Refusal, visit: Visit) -> Caller:
        wrong = fault(refusal)
        if wrong is not None:
            self._tell_refused(refusal.limit, visit)
            raise wrong
        gauge = self._gauge
        return Caller(
            refusal,
            visit.part,
            gauge.line(self.place.engine, refusal.queue),
            ticket=visit.terms.ticket or shown.get(),
            secret=gauge.secret,
            now_ms=self.place.clock.wall_ms(),
        )

    def _reserve(self, refusal: Refusal, ask: Ask) -> Plan[int]:
        return self.place.engine.reserve(refusal.queue, ask.after_ms, ask.spacing_us, ask.number)

    def _pause_ms(self, visit: Visit, full: QueueFull) -> int:
        """Return how long to wait before the next try, or raise the refusal."""
        is_told_anew = visit.is_told_anew(full)
        pause_ms = visit.pause_ms(full)
        if pause_ms is None:
            self._tell_refused(full.limit, visit)
            raise full
        if self._observers and is_told_anew:
            job, wait = visit.part[0], full.retry_after or timedelta(milliseconds=pause_ms)
            told = RoomAwaited(job.task, job.queue, full.limit, visit.left, wait)
            self._observers.tell(told)
        return pause_ms

    def _tell_refused(self, limit: str, visit: Visit) -> None:
        if self._observers:
            job = visit.part[0]
            self._observers.tell(JobRefused(job.task, job.queue, limit, visit.left))

    def _check_in_a_loop(self, job: Job, terms: Terms) -> None:
        """Warn of a short block of the running event loop; refuse a long one."""
        if self._waits_ms(job, terms) is not None:
            raise WrongUse(
                "on_full='wait' would block the running event loop while it waits for room; "
                "use `await task.aenqueue(…)` (or asend), or on_full='refuse'"
            )
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            "enqueue (or send) inside a running event loop blocks it until the job is stored; "
            "use `await task.aenqueue(…)` (or asend)",
            RuntimeWarning,
            stacklevel=_caller_depth(),
        )


async def _acquired(lock: threading.Lock) -> bool:
    """Take a lock that another coroutine of this thread may hold, without blocking it."""
    tries = round(LOCK_SECONDS * 1000)
    while not lock.acquire(blocking=False):
        if not (tries := tries - 1):
            return False
        await asyncio.sleep(0.001)
    return True


def _caller_depth() -> int:
    """Return how many frames up the first one outside this package is."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == "backlane":
        depth, frame = depth + 1, frame.f_back
    return depth
