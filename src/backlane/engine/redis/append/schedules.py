"""Schedules: what is kept of them, and the ticks that apply them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from backlane.engine.protocol import Admission
from backlane.engine.redis.append.append import append_tick
from backlane.engine.redis.record.sheet import raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
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
from backlane.model.job import Refusal

LIST = Script("list_schedules", "model", "schedules")
ALTER = Script("alter_schedule", "model", "schedules")

RESTORE = Script("restore_schedules", "model", "schedules")

FIELDS = 9  # of a schedule, as scripts tell it


async def list_schedules(tx: RedisTx, *, due: bool) -> Timetable:
    """See `Verbs.list_schedules`."""
    wall, later, told = await tx.call(LIST, due)
    return Timetable(wall, read_schedules(told), None if later is None else int(float(later)))


async def alter_schedule(
    tx: RedisTx, name: str, change: Put | Pause | Resume | Remove
) -> ScheduleRecord | None:
    """See `Verbs.alter_schedule`."""
    _, told = await tx.call(ALTER, name, *_said(change))
    return next(iter(read_schedules(told)), None)


def _said(change: Put | Pause | Resume | Remove) -> tuple[Any, ...]:
    match change:
        case Put(spec=spec, task=task, is_declared=is_declared):
            return "put", raw(spec), task, is_declared
        case Pause():
            return ("pause",)
        case Resume():
            return ("resume",)
        case Remove():
            return ("remove",)
        case _:
            assert_never(change)


async def tick(tx: RedisTx, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:
    """See `Verbs.tick`. Each is a script call of its own."""
    told = []
    for one in ticks:
        answer = await append_tick(tx, one, admission)
        refusal = answer if isinstance(answer, Refusal) else None
        told.append(Ticked(one.name, answer is True, refusal))
    return told


def read_schedules(told: Sequence[Any]) -> list[ScheduleRecord]:
    """Return the schedules that a script told of."""
    found = []
    for at in range(0, len(told), FIELDS):
        name, spec, task, is_declared, paused, revision, last_ms, next_ms, job = told[
            at : at + FIELDS
        ]
        found.append(
            ScheduleRecord(
                name=name.decode(),
                spec=spec,
                task=task.decode(),
                is_declared=bool(is_declared),
                paused=bool(paused),
                revision=revision,
                last_ms=last_ms,
                next_ms=next_ms,
                last_job=job,
            )
        )
    return found


async def restore(tx: RedisTx, given: Sequence[ScheduleRecord]) -> None:
    """Take in the schedules of another store: they go on from where they were."""
    if given:
        await tx.call(RESTORE, [_packed(one) for one in given])


def _packed(one: ScheduleRecord) -> tuple[Any, ...]:
    return (
        one.name,
        raw(one.spec),
        one.task,
        one.is_declared,
        one.paused,
        one.revision,
        one.last_ms,
        False if one.next_ms is None else one.next_ms,
        False if one.last_job is None else raw(one.last_job),
    )
