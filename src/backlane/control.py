"""Control of a queue at run time: look at it, pause it, tune it."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine, Measured, Tune
from backlane.errors import BadOption, UnknownQueue, nearest
from backlane.model.event import Observers, QueueChanged
from backlane.model.pressure.meter import Meter
from backlane.model.queue import (
    QueueRecord,
    checked_group_share,
    checked_max_wait,
    checked_name,
    checked_number,
)
from backlane.model.retry import Duration
from backlane.place import Place


class Measurement(Protocol):
    """A measure that is due: run `plan`, then `end` with its answer, or None if it failed."""

    @property
    def plan(self) -> Plan[Measured]: ...

    def end(self, measured: Measured | None) -> None: ...


class Measurer(Protocol):
    """What knows the speed of queues, and when to measure them again."""

    def due(self, engine: Engine, queue: str) -> Measurement | None: ...

    def meter(self, engine: Engine, queue: str) -> Meter | None: ...


class QueueHandle:
    """A queue as the store has it: `app.queue(name)`. It keeps nothing that it read.

    What is set here goes before what the code declares, in all processes, and lasts
    until it is set anew or reset.

    .. versionadded:: 0.1
    """

    __slots__ = ("_gauge", "_observers", "_place", "name")

    def __init__(self, name: str, place: Place, gauge: Measurer, observers: Observers) -> None:
        self.name = checked_name(name, "queue")
        self._place = place
        self._gauge = gauge
        self._observers = observers

    def __repr__(self) -> str:
        return f"<QueueHandle {self.name}>"

    def record(self) -> QueueRecord:
        """Read its depth, its bounds in force and its counters.

        Raises:
            UnknownQueue: nothing was ever enqueued or sent there.
        """
        engine = self._place.engine
        return self._mine(engine.run(engine.list_queues()))

    async def arecord(self) -> QueueRecord:
        """Like `record`."""
        engine = self._place.engine
        return self._mine(await engine.arun(engine.list_queues()))

    def pause(self) -> QueueRecord:
        """Give its jobs to no worker until it is resumed; running ones go on.

        Enqueues are stored all the same, up to the bound. See `record` for errors.
        """
        return self._tuned(self._run(Tune(paused=True)), "paused")

    async def apause(self) -> QueueRecord:
        """Like `pause`."""
        return self._tuned(await self._arun(Tune(paused=True)), "paused")

    def resume(self) -> QueueRecord:
        """Give its jobs to workers again; see `record` for errors."""
        return self._tuned(self._run(Tune(paused=False)), "resumed")

    async def aresume(self) -> QueueRecord:
        """Like `resume`."""
        return self._tuned(await self._arun(Tune(paused=False)), "resumed")

    def tune(
        self,
        *,
        max_jobs: int | None = None,
        max_bytes: int | None = None,
        max_wait: Duration | None = None,
        group_share: float | None = None,
        reset: bool = False,
    ) -> QueueRecord:
        """Set its bounds at run time; `reset` first forgets what was set before.

        A bound below the present depth drops nothing: it refuses until there is room.
        `max_wait=float("inf")` lifts the bound on the wait that the code declares.

        Raises:
            BadOption: a value cannot bound anything; says which would.
            UnknownQueue: nothing was ever enqueued or sent there.
        """
        change = _bounds(max_jobs, max_bytes, max_wait, group_share, reset=reset)
        return self._tuned(self._run(change), "tuned")

    async def atune(
        self,
        *,
        max_jobs: int | None = None,
        max_bytes: int | None = None,
        max_wait: Duration | None = None,
        group_share: float | None = None,
        reset: bool = False,
    ) -> QueueRecord:
        """Like `tune`."""
        change = _bounds(max_jobs, max_bytes, max_wait, group_share, reset=reset)
        return self._tuned(await self._arun(change), "tuned")

    # -- how busy it is --

    def pressure(self) -> float | None:
        """Return how full it is, 0 to 1: the fullest of its bounds, at most a second ago.

        None for a queue that the store does not hold yet.
        """
        return _pressure(self._measured())

    async def apressure(self) -> float | None:
        """Like `pressure`."""
        return _pressure(await self._ameasured())

    def expected_wait(self, priority: int = 5) -> timedelta | None:
        """Return how long a job enqueued now would wait until a worker takes it.

        None while nothing is known of its speed, and while it is paused.
        """
        return _expected(self._measured(), priority)

    async def aexpected_wait(self, priority: int = 5) -> timedelta | None:
        """Like `expected_wait`."""
        return _expected(await self._ameasured(), priority)

    def _measured(self) -> Meter | None:
        engine = self._place.engine
        due = self._gauge.due(engine, self.name)
        if due is not None:
            measured = None
            try:
                measured = engine.run(due.plan)
            finally:
                due.end(measured)
        return self._gauge.meter(engine, self.name)

    async def _ameasured(self) -> Meter | None:
        engine = self._place.engine
        due = self._gauge.due(engine, self.name)
        if due is not None:
            measured = None
            try:
                measured = await engine.arun(due.plan)
            finally:
                due.end(measured)
        return self._gauge.meter(engine, self.name)

    def _run(self, change: Tune) -> QueueRecord | None:
        return self._place.engine.run(self._plan(change))

    async def _arun(self, change: Tune) -> QueueRecord | None:
        return await self._place.engine.arun(self._plan(change))

    def _plan(self, change: Tune) -> Plan[QueueRecord | None]:
        return self._place.engine.tune(self.name, change)

    def _tuned(self, record: QueueRecord | None, change: str) -> QueueRecord:
        if record is None:
            raise UnknownQueue(_never_used(self.name, []))
        if self._observers:
            self._observers.tell(QueueChanged(self.name, change))
        return record

    def _mine(self, records: list[QueueRecord]) -> QueueRecord:
        for record in records:
            if record.name == self.name:
                return record
        raise UnknownQueue(_never_used(self.name, [record.name for record in records]))


def _never_used(name: str, known: list[str]) -> str:
    return (
        f"the store holds no queue {name!r}{nearest(name, known)}: it is made by the first job "
        "or message, or by the first worker that serves it"
    )


def tuned_wait_ms(max_wait: Duration) -> int:
    """Return a bound on the wait as a `Tune` has it: 0 lifts it.

    Raises:
        BadOption: it is no duration, or 0.
    """
    return 0 if max_wait == float("inf") else checked_max_wait(max_wait)


def _bounds(
    max_jobs: int | None,
    max_bytes: int | None,
    max_wait: Duration | None,
    group_share: float | None,
    *,
    reset: bool,
) -> Tune:
    for option, value in (("max_jobs", max_jobs), ("max_bytes", max_bytes)):
        if value is not None:
            checked_number(value, option)
    return Tune(
        max_jobs=max_jobs,
        max_bytes=max_bytes,
        max_wait_ms=None if max_wait is None else tuned_wait_ms(max_wait),
        group_share=None if group_share is None else checked_group_share(group_share),
        reset=reset,
    )


def _pressure(meter: Meter | None) -> float | None:
    sample = None if meter is None else meter.sample
    return None if meter is None or sample is None else meter.pressure(sample.bounds)


def _expected(meter: Meter | None, priority: int) -> timedelta | None:
    if type(priority) is not int or not 0 <= priority <= 9:
        raise BadOption(f"priority is {priority!r}; use a whole number from 0 to 9 (9 goes first)")
    expected_ms = None if meter is None else meter.expected_ms(priority)
    return None if expected_ms is None else timedelta(milliseconds=expected_ms)
