"""Timetables: the verbs of schedules in few words, for tests that read as sentences."""

from __future__ import annotations

from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Admission, Presence
from backlane.engine.scheduling import (
    Pause,
    Put,
    Remove,
    Resume,
    ScheduleRecord,
    Tick,
    Ticked,
    Timetable,
)
from backlane.model.job import Job
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

ANN = Presence(owner="ann", host="h", pid=1, queues=("mail",), slots=10, running=0)


def put(
    desk: Desk, name: str = "nightly", spec: bytes = b"0 3", *, task: str = "send", by: str = "hand"
) -> ScheduleRecord:
    """Put a schedule by hand (at run time), or by code."""
    change = Put(spec=spec, task=task, is_declared=by == "code")
    record = alter(desk, name, change)
    assert record is not None
    return record


def alter(desk: Desk, name: str, change: Put | Pause | Resume | Remove) -> ScheduleRecord | None:
    return desk.run(desk.engine.alter_schedule(name, change))


def listed(desk: Desk, *, due: bool = False) -> Timetable:
    return desk.run(desk.engine.list_schedules(due=due))


def names(desk: Desk, *, due: bool = False) -> list[str]:
    return [record.name for record in listed(desk, due=due).schedules]


def record(desk: Desk, name: str = "nightly") -> ScheduleRecord:
    (found,) = [it for it in listed(desk).schedules if it.name == name]
    return found


def ticking(desk: Desk, seen: ScheduleRecord, *jobs: Job, seconds: float | None = 60) -> Tick:
    """A tick of a schedule as it was read: applied up to now, next after so many seconds."""
    now = desk.clock.wall_ms()
    return Tick(
        name=seen.name,
        revision=seen.revision,
        last_ms=now,
        next_ms=None if seconds is None else now + int(seconds * 1000),
        jobs=jobs,
    )


def tick(
    desk: Desk, *ticks: Tick, bounds: Bounds | None = None, pace: Pace | None = None
) -> list[Ticked]:
    declared = {"mail": bounds} if bounds else {}
    paces = {"mail": pace} if pace else {}
    return desk.run(desk.engine.tick(ticks, Admission(declared, paces=paces)))
