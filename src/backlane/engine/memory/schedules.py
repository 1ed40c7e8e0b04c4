"""Schedules: the timetable that a store keeps, and ticks that count only if nobody was first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from msgspec.structs import replace

from backlane.engine.memory.admission import append
from backlane.engine.memory.scheduled import Scheduled
from backlane.engine.memory.store import Store
from backlane.engine.protocol import Admission
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

LISTED = 10_000
LISTED_DUE = 1_000
UNDECLARED_MS = 900_000  # after so long a schedule that no code declares goes
LIVE_MS = 60_000  # a worker whose last beat is older is not counted on


def list_schedules(store: Store, *, due: bool) -> Timetable:
    """The schedules by name; or those that are due, the earliest first."""
    now = store.clock.wall_ms()
    records = [one.record for one in store.schedules.values()]
    active = [it for it in records if not it.paused]
    waits = [it.next_ms for it in active if it.next_ms is not None and it.next_ms > now]
    if due:
        found = [it for it in active if it.next_ms is None or it.next_ms <= now]
        found = sorted(found, key=_next)[:LISTED_DUE]
    else:
        found = sorted(records, key=lambda it: it.name)[:LISTED]
    return Timetable(now, found, min(waits, default=None))


def _next(record: ScheduleRecord) -> tuple[int, str]:
    """What is to be looked at first."""
    return (-1 if record.next_ms is None else record.next_ms, record.name)


def alter_schedule(
    store: Store, name: str, change: Put | Pause | Resume | Remove
) -> ScheduleRecord | None:
    """Change a schedule; return it as it is now."""
    known = store.schedules.get(name)
    if isinstance(change, Put):
        return _put(store, name, change, known)
    if known is None:
        return None
    record = known.record
    match change:
        case Pause():
            if not record.paused:
                known.record = _changed(record, paused=True)
        case Resume():
            if record.paused:
                now = store.clock.wall_ms()
                known.record = _changed(record, paused=False, last_ms=now, next_ms=None)
        case Remove():
            del store.schedules[name]
            return None
        case _:
            assert_never(change)
    return known.record


def _put(store: Store, name: str, put: Put, known: Scheduled | None) -> ScheduleRecord:
    now, boot = store.clock.wall_ms(), store.clock.boot_ms()
    if known is None:
        known = store.schedules[name] = Scheduled(
            ScheduleRecord(
                name=name,
                spec=put.spec,
                task=put.task,
                is_declared=put.is_declared,
                revision=now,
                last_ms=now,
            ),
            boot,
        )
        return known.record
    if put.is_declared:
        known.declared_ms = boot
        if not known.record.is_declared:
            return known.record
    record = known.record
    if (record.spec, record.task) != (put.spec, put.task):
        record = replace(record, spec=put.spec, task=put.task, last_ms=now, next_ms=None)
    record = replace(record, is_declared=put.is_declared)
    if record != known.record:
        known.record = _changed(record)
    return known.record


def tick(store: Store, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:
    """Apply schedules, each on its own."""
    return [_tick(store, one, admission) for one in ticks]


def _tick(store: Store, tick: Tick, admission: Admission) -> Ticked:
    known = store.schedules.get(tick.name)
    if known is None or known.record.revision != tick.revision:
        return Ticked(tick.name, is_applied=False)
    receipts = append(store, tick.jobs, admission, ticking=True)
    if isinstance(receipts, Refusal):
        return Ticked(tick.name, is_applied=False, refusal=receipts)
    if tick.next_ms is None:
        del store.schedules[tick.name]
        return Ticked(tick.name, is_applied=True)
    last_job = known.record.last_job
    if receipts:
        last_job = receipts[-1].first or receipts[-1].job
    known.record = _changed(
        known.record, last_ms=tick.last_ms, next_ms=tick.next_ms, last_job=last_job
    )
    return Ticked(tick.name, is_applied=True)


def _changed(record: ScheduleRecord, **fields: object) -> ScheduleRecord:
    return replace(record, revision=record.revision + 1, **fields)


def begin_silence(store: Store) -> None:
    """Count anew for how long schedules are not declared, if no worker was alive to do so."""
    now = store.clock.boot_ms()
    if any(beat_ms > now - LIVE_MS for _, _, beat_ms in store.workers.values()):
        return
    for one in store.schedules.values():
        one.declared_ms = now


def forget_undeclared(store: Store) -> None:
    """Forget the schedules that code declared and does not declare any more."""
    latest = store.clock.boot_ms() - UNDECLARED_MS
    for name, one in list(store.schedules.items()):
        if one.record.is_declared and one.declared_ms <= latest:
            del store.schedules[name]
