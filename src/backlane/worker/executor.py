"""The shared executor: runs many attempts at a time, on its loop and in its threads.

It hears frames from a dispatcher and answers with outcomes. It starts at most `slots`
attempts; what else it was given waits unstarted, and can be taken back. It never
talks to the engine about the jobs it runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import assert_never

from backlane.app import Backlane
from backlane.model.event import JobBuried, LeaseLost, ResourceChanged, WorkerChanged
from backlane.model.job import Lane, Lease
from backlane.model.outcome import Cancelled, Outcome, Released, Settlement
from backlane.model.queue import Queue
from backlane.worker.attempt import Attempt, Attempts
from backlane.worker.channel import (
    Buried,
    Changed,
    Channel,
    Completed,
    Drain,
    Ended,
    Failing,
    Frame,
    Halt,
    Hello,
    Lost,
    Noted,
    Overdue,
    Ping,
    Pong,
    QueueReport,
    Run,
    TakeBack,
    Turned,
    Unfit,
    Will,
)
from backlane.worker.crew import FLUSH_AT, STARTED, Crew, Marks, Running, Slots
from backlane.worker.outbox import Outbox
from backlane.worker.verdict import Stop, overran
from backlane.worker.watch import Watch

log = logging.getLogger("backlane.worker")

RELEASED = Released()
LATE_SECONDS = 0.001


def hello(app: Backlane) -> Hello:
    """Return what a dispatcher has to know of an application."""
    lanes: dict[str, set[Lane]] = {}
    for task in app.tasks.values():
        lanes.setdefault(task.queue, set()).add(task.lane)
    names = dict.fromkeys([*app.queues, *sorted(lanes)])
    return Hello(
        url=app.url,
        queues=[_report(app, name, lanes.get(name, ())) for name in names],
        deaf=frozenset(
            task.name for task in app.tasks.values() if not task.is_async and not task.takes_context
        ),
        observed=bool(app.observers),
        has_exclusive=any(task.lane is Lane.EXCLUSIVE for task in app.tasks.values()),
        limits=dict(app.limits.in_store),
        templates=[task.template for task in app.tasks.values()],
        schedules=list(app.schedules.declared.values()),
        admission=app.admission,
        retention=app.retention.kept,
    )


def _report(app: Backlane, name: str, lanes: Iterable[Lane]) -> QueueReport:
    queue = app.queues.get(name) or Queue(name)
    return QueueReport(name, queue.bounds, queue.concurrency, frozenset(lanes), queue.fair)


class SharedExecutor:
    """Runs attempts in the loop that it is made in, and in threads.

    Args:
        marks: one byte a place, which outlives this process: what had started.
        finished: called once everything has ended after a `Drain`.
        can_end: whether this process may be given up when an attempt cannot be ended.
    """

    def __init__(
        self,
        app: Backlane,
        channel: Channel,
        *,
        slots: int,
        marks: Marks,
        finished: Callable[[], None],
        end_process: Callable[[], None] | None,
    ) -> None:
        self._app, self._channel = app, channel
        self._finished, self._end_process = finished, end_process
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(channel.send)
        self._attempts = Attempts(app, self._outbox.note, self._outbox.completed)
        self._slots = Slots(slots)
        self._running = Running(marks, self._outbox.note)
        self._line: deque[tuple[Lease, int]] = deque()  # async jobs that wait for a slot
        self._late: asyncio.TimerHandle | None = None
        self._is_flushing = self._is_draining = self._has_finished = False
        self._crew = Crew(
            self._attempts,
            self._slots,
            self._running,
            self._outbox,
            is_wanted_back=lambda: bool(self._line) and self._slots.free <= 0,
            on_rest=self._on_rest,
        )
        self._watch = Watch(
            self._loop,
            self._running,
            self._crew,
            self._outbox,
            overdue=self._on_overdue,
            stuck=self._on_stuck,
        )

    # -- what is heard --

    def hear(self, frame: Frame) -> None:
        """Act on a frame of the dispatcher. Called in the loop."""
        match frame:
            case Run():
                self._accept(frame)
            case Halt():
                for place, token in frame.attempts:
                    self._halt(place, token, frame.why)
            case TakeBack():
                self._give_back(set(frame.places))
            case Drain():
                self._is_draining = True
                self._give_back(None)
                self._check_finished()
            case Ping():
                self._channel.send(Pong(resident_kib()))
            case Lost():
                self._app.observers.tell(LeaseLost(_uuid(frame.job), frame.task, frame.queue))
            case Buried():
                self._app.observers.tell(
                    JobBuried(_uuid(frame.job), frame.task, frame.queue, frame.reason)
                )
            case Changed():
                self._app.observers.tell(WorkerChanged(frame.owner, frame.change))
            case Turned():
                self._app.observers.tell(ResourceChanged(frame.resource, frame.state, frame.why))
            case Hello() | Unfit() | Ended() | Completed() | Noted() | Pong() | Overdue():
                log.error("the dispatcher sent %s, which only an executor says", type(frame))
            case Failing() | Will():
                log.error("the dispatcher sent %s, which only an executor says", type(frame))
            case _:
                assert_never(frame)

    def _accept(self, frame: Run) -> None:
        plain = []
        is_async, expect, line = self._attempts.is_async, self._running.expect, self._line
        for lease, place in zip(frame.leases, frame.places, strict=True):
            expect(place)
            if is_async(lease):
                line.append((lease, place))
            else:
                plain.append((lease, place))
        if plain:
            self._crew.add(plain)
        self._start_waiting()
        self._watch.rouse()

    def _halt(self, place: int, token: int, why: Stop) -> None:
        attempt = self._running.attempts.get(place)
        if attempt is not None and attempt.lease.token == token:
            if attempt.completed is not None:
                return  # its lease went with its own commit: nobody else has the job
            attempt.stop = attempt.stop or why
            if attempt.asyncio_task is not None and attempt.started:
                attempt.asyncio_task.cancel()
        elif not self._give_back({place}, unstarted(why)):
            self._running.halt_early(place, token, why)

    def _give_back(self, places: set[int] | None, outcome: Outcome = RELEASED) -> bool:
        """Settle what has not started (of these places, or all) without running it."""
        found = False
        for line in (self._line, self._crew.line):
            kept = []
            while line:
                try:
                    lease, place = line.popleft()
                except IndexError:  # a thread took the last one
                    break
                if places is None or place in places:
                    found = True
                    self._outbox.put(Settlement(lease.job, lease.token, outcome))
                else:
                    kept.append((lease, place))
            line.extendleft(reversed(kept))
        self._crew.ensure()
        self._outbox.flush()
        return found

    # -- async attempts --

    def _start_waiting(self) -> None:
        line, take = self._line, self._slots.take
        while line and take():
            lease, place = line.popleft()
            attempt = self._running.add(lease, place)
            attempt.asyncio_task = self._loop.create_task(self._attend(attempt))

    async def _attend(self, attempt: Attempt) -> None:
        lease, running, outbox = attempt.lease, self._running, self._outbox
        if attempt.stop is None:
            running.marks[attempt.place] = STARTED
            settlement = await self._attempts.arun(attempt)
        else:  # asked to stop before its first step
            settlement = Settlement(lease.job, lease.token, unstarted(attempt.stop))
        running.end(attempt)
        outbox.forget(lease.job)
        outbox.put(settlement)
        if not attempt.is_replaced:
            self._slots.give()
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Start more, and send the outcomes of this turn of the loop in one frame.

        While async jobs wait for a slot, a frame may wait for theirs, a millisecond long.
        """
        self._is_flushing = False
        self._start_waiting()
        self._crew.ensure()
        if self._line and len(self._outbox) < FLUSH_AT:
            if self._late is None:
                self._late = self._loop.call_later(LATE_SECONDS, self._flush_late)
        else:
            self._outbox.flush()
        if self._is_draining:
            self._check_finished()

    def _flush_late(self) -> None:
        self._late = None
        self._outbox.flush()

    def _on_rest(self) -> None:
        """A thread gave its slot back: called in that thread."""
        if self._line or self._is_draining:
            self._loop.call_soon_threadsafe(self._flush)

    # -- the end --

    def _on_overdue(self, attempt: Attempt) -> None:
        """Replace the slot of an attempt that does not end; called in the watch's thread."""
        log.warning(
            "job %s (task %s) runs on past its hard limit and cannot be ended here; it keeps "
            "its lease, another takes its slot. Run such tasks with runs_in='process'",
            _uuid(attempt.lease.job),
            attempt.lease.task,
        )
        replaced = sum(each.is_replaced for each in list(self._running.attempts.values()))
        if replaced < self._slots.total:
            attempt.is_replaced = True
            self._slots.give()
            self._channel.send(Overdue(attempt.place))
            self._loop.call_soon_threadsafe(self._flush)
        elif self._end_process is not None:
            self._channel.send(Failing("every slot is held by an attempt that does not end"))

    def _on_stuck(self, culprit: Attempt) -> None:
        """The loop is blocked for good: settle what can be said and end the process."""
        if self._end_process is None:
            return
        log.error(
            "task %s blocks the event loop past its hard limit; this executor is replaced",
            culprit.lease.task,
        )
        self._outbox.flush()
        self._channel.send(Will(self._last_will()))
        self._end_process()

    def _check_finished(self) -> None:
        left = list(self._running.attempts.values())
        can_end = self._end_process is not None
        if any(not (can_end and attempt.is_overdue) for attempt in left):
            return
        if self._line or self._crew.line or self._has_finished:
            return
        self._has_finished = True
        self._outbox.flush()
        self._watch.close()
        if left and self._end_process is not None:
            self._channel.send(Will(self._last_will()))
            self._end_process()
        self._finished()

    def _last_will(self) -> list[Settlement]:
        """Say what becomes of running attempts once this process is gone."""
        return [
            Settlement(
                attempt.lease.job,
                attempt.lease.token,
                overran(attempt.lease) if attempt.is_overdue else Released(),
            )
            for attempt in list(self._running.attempts.values())
        ]


def unstarted(why: Stop) -> Outcome:
    """Return the outcome of a job that was asked to stop before it started."""
    return Cancelled() if why is Stop.CANCELLED else RELEASED


def _uuid(job: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=job)


def resident_kib() -> int:
    """Return this process's resident memory, or 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: of uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
