"""Schedules: what applies when, as the timetable left it; and the jobs that a tick appends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from msgspec.structs import replace

from backlane.engine.plan import Sql
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
from backlane.engine.sqlite.append.append import append_all
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.job import Receipt, Refusal

LISTED = 10_000
DUE_LISTED = 1_000
SILENT_MS = 900_000  # without being declared while some worker is alive: the schedule goes

LIVE_MS = 60_000  # a worker whose last beat is older is not counted on

_Row = tuple[Any, ...]

SCHEDULES: Sql[_Row] = Sql(
    """
    select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
    from backlane_schedule
    order by name
    limit ?
    """
)
# Served by backlane_schedule_next, twice.
DUE: Sql[_Row] = Sql(
    """
    select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
    from backlane_schedule
    where paused = 0
    and next_ms is null
    union all
    select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
    from backlane_schedule
    where paused = 0
    and next_ms <= ?
    order by next_ms, name
    limit ?
    """
)
NEXT: Sql[tuple[int | None]] = Sql(
    """
    select min(next_ms)
    from backlane_schedule
    where paused = 0
    and next_ms > ?
    """
)
ONE: Sql[_Row] = Sql(
    """
    select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
    from backlane_schedule
    where name = ?
    """
)
REVISIONS: Sql[tuple[str, int]] = Sql(
    """
    select name, revision
    from backlane_schedule
    where name in (select value from carray(?))
    """
)
PUT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_schedule (name, spec, task, is_declared, paused, revision, last_ms,
        next_ms, last_job, declared_ms)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (name) do update
    set spec = excluded.spec,
        task = excluded.task,
        is_declared = excluded.is_declared,
        paused = excluded.paused,
        revision = excluded.revision,
        last_ms = excluded.last_ms,
        next_ms = excluded.next_ms,
        last_job = excluded.last_job,
        declared_ms = excluded.declared_ms
    """
)
DECLARED_NOW: Sql[tuple[()]] = Sql(
    """
    update backlane_schedule
    set declared_ms = ?
    where name = ?
    """
)
REMOVE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_schedule
    where name = ?
    """
)
MOVE_ON: Sql[tuple[()]] = Sql(
    """
    update backlane_schedule
    set revision = revision + 1,
        last_ms = ?,
        next_ms = ?,
        last_job = coalesce(?, last_job)
    where name = ?
    """
)
# These two scan the schedules, which are few.
BEGIN_SILENCE: Sql[tuple[()]] = Sql(
    """
    update backlane_schedule
    set declared_ms = ?
    where is_declared
    and declared_ms is null
    """
)
BEGIN_ANEW: Sql[tuple[()]] = Sql(
    """
    update backlane_schedule
    set declared_ms = ?1
    where is_declared
    and not exists (select 1 from backlane_worker where beat_ms > ?1 - ?2)
    """
)
FORGET_SILENT: Sql[tuple[()]] = Sql(
    """
    delete from backlane_schedule
    where is_declared
    and declared_ms <= ?
    and exists (select 1 from backlane_worker where beat_ms > ?)
    """
)


async def list_schedules(tx: SqliteTx, clock: Clock, *, due: bool) -> Timetable:
    """Return schedules by name, or those that are to be looked at now."""
    now = clock.wall_ms()
    if due:
        rows = await tx.rows(DUE, now, DUE_LISTED)
    else:
        rows = await tx.rows(SCHEDULES, LISTED)
    next_ms = (await tx.rows(NEXT, now))[0][0]
    return Timetable(now, [_record(row) for row in rows], next_ms)


async def all_schedules(tx: SqliteTx) -> list[ScheduleRecord]:
    """Return the schedules as another store is to have them."""
    return [_record(row) for row in await tx.rows(SCHEDULES, LISTED)]


async def alter(
    tx: SqliteTx, clock: Clock, name: str, change: Put | Pause | Resume | Remove
) -> ScheduleRecord | None:
    """Return the schedule as it is now; None: there is none of that name (any more)."""
    rows = await tx.rows(ONE, name)
    known = _record(rows[0]) if rows else None
    if isinstance(change, Put):
        return await _put(tx, clock, name, change, known)
    if known is None:
        return None
    match change:
        case Pause():
            altered = replace(known, paused=True)
        case Resume():
            now = clock.wall_ms()
            altered = replace(known, paused=False, last_ms=now, next_ms=None)
        case Remove():
            await tx.rows(REMOVE, name)
            return None
        case _:
            assert_never(change)
    if altered.paused == known.paused:
        return known
    return await _store(tx, clock, replace(altered, revision=known.revision + 1))


async def _put(
    tx: SqliteTx, clock: Clock, name: str, put: Put, known: ScheduleRecord | None
) -> ScheduleRecord:
    now = clock.wall_ms()
    if known is None:
        new = ScheduleRecord(
            name=name,
            spec=put.spec,
            task=put.task,
            is_declared=put.is_declared,
            revision=now,  # one that is made again is another
            last_ms=now,
        )
        return await _store(tx, clock, new)
    if put.is_declared and not known.is_declared:
        return known  # what a person put stays until it is removed
    altered = replace(known, is_declared=put.is_declared)
    if (put.spec, put.task) != (known.spec, known.task):
        altered = replace(altered, spec=put.spec, task=put.task, last_ms=now, next_ms=None)
    if altered != known:
        return await _store(tx, clock, replace(altered, revision=known.revision + 1))
    if put.is_declared:
        await tx.rows(DECLARED_NOW, clock.boot_ms(), name)
    return known


async def _store(tx: SqliteTx, clock: Clock, record: ScheduleRecord) -> ScheduleRecord:
    await keep(tx, [record], clock.boot_ms() if record.is_declared else None)
    return record


async def keep(tx: SqliteTx, records: Sequence[ScheduleRecord], declared_ms: int | None) -> None:
    """Write schedules as they are."""
    await tx.each(PUT, [(*_columns(record), declared_ms) for record in records])


async def tick(
    tx: SqliteTx, clock: Clock, ticks: Sequence[Tick], admission: Admission
) -> list[Ticked]:
    """Apply schedules, each if its revision is still the one given and its jobs are taken."""
    if not ticks:
        return []
    ticked = [Ticked(one.name, is_applied=False) for one in ticks]
    left = [*enumerate(ticks)]
    while left:  # once more only where one was refused whose schedule comes again
        revisions = dict(await tx.rows(REVISIONS, array([one.name for _, one in left])))
        current: dict[str, int] = {}
        for at, one in left:
            if revisions.get(one.name) == one.revision:
                current.setdefault(one.name, at)
        left = [(at, one) for at, one in left if at > current.get(one.name, len(ticks))]
        batches = [(ticks[at].jobs, admission) for at in current.values()]
        answers = await append_all(tx, clock, batches, are_ticks=True)
        for at, answer in zip(current.values(), answers, strict=True):
            if isinstance(answer, Refusal):
                ticked[at] = replace(ticked[at], refusal=answer)
                continue
            await _move_on(tx, ticks[at], answer)
            ticked[at] = replace(ticked[at], is_applied=True)
    return ticked


async def _move_on(tx: SqliteTx, one: Tick, receipts: Sequence[Receipt]) -> None:
    if one.next_ms is None:
        await tx.rows(REMOVE, one.name)
        return
    newest = (receipts[-1].first or receipts[-1].job) if receipts else None
    await tx.rows(MOVE_ON, one.last_ms, one.next_ms, newest, one.name)


async def begin_silence(tx: SqliteTx, clock: Clock) -> None:
    """Count anew for how long schedules are not declared, if no worker was alive to do so."""
    await tx.rows(BEGIN_ANEW, clock.boot_ms(), LIVE_MS)


async def forget_undeclared(tx: SqliteTx, clock: Clock) -> None:
    """Forget what code declared, and has not for a quarter of an hour though it runs."""
    now = clock.boot_ms()
    await tx.rows(BEGIN_SILENCE, now)
    await tx.rows(FORGET_SILENT, now - SILENT_MS, now - LIVE_MS)


def _record(row: _Row) -> ScheduleRecord:
    name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job = row
    return ScheduleRecord(
        name=name,
        spec=spec,
        task=task,
        is_declared=bool(is_declared),
        paused=bool(paused),
        revision=revision,
        last_ms=last_ms,
        next_ms=next_ms,
        last_job=last_job,
    )


def _columns(record: ScheduleRecord) -> _Row:
    return (
        record.name,
        record.spec,
        record.task,
        int(record.is_declared),
        int(record.paused),
        record.revision,
        record.last_ms,
        record.next_ms,
        record.last_job,
    )
