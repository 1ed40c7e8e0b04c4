"""Schedules: the timetable that a store keeps, and ticks that count only if nobody was first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from msgspec.structs import replace
from psycopg.errors import SerializationFailure

from backlane.engine.plan import Sql
from backlane.engine.postgres.append.append import append_all
from backlane.engine.postgres.append.credit import Purse
from backlane.engine.postgres.record.moves import many
from backlane.engine.postgres.store.text import loaded, stored
from backlane.engine.postgres.store.transaction import PostgresTx
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
from backlane.model.job import Job, Refusal

LISTED = 10_000
LISTED_DUE = 1_000
UNDECLARED_MS = 900_000  # after so long a schedule that no code declares goes

Row = tuple[Any, ...]

# The store's now and when the next one is due, then a row for each that is asked for.
LIST: Sql[Row] = Sql(
    """
    with state as materialized (
        select coalesce($1::bigint, backlane.now_ms()) as now_ms
    )
    select now_ms,
        (
            select next_ms
            from backlane.schedule
            where not paused
            and coalesce(next_ms, -1) > now_ms
            order by coalesce(next_ms, -1)
            limit 1
        ),
        listed.*
    from state
    left join lateral (
        (
            select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
            from backlane.schedule
            where not $2::boolean
            order by name
            limit $3::int
        )
        union all
        (
            select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
            from backlane.schedule
            where $2
            and not paused
            and coalesce(next_ms, -1) <= now_ms
            order by coalesce(next_ms, -1), name
            limit $3
        )
    ) as listed on true
    """
)
# Held until the end: who alters or ticks it at the same time waits.
HOLD: Sql[Row] = Sql(
    """
    select name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job
    from backlane.schedule
    where name = any ($1::text[])
    order by name
    for update
    """
)
MAKE: Sql[tuple[int]] = Sql(
    """
    insert into backlane.schedule (name, spec, task, is_declared, revision, last_ms, declared_ms)
    select $1::text, $2::bytea, $3::text, $4::boolean, now_ms, now_ms,
        coalesce($6::bigint, backlane.now_ms())
    from (select coalesce($5::bigint, backlane.now_ms()) as now_ms) as state
    on conflict (name) do nothing
    returning last_ms
    """
)
SET: Sql[tuple[()]] = Sql(
    """
    update backlane.schedule
    set spec = given.spec,
        task = given.task,
        is_declared = given.is_declared,
        paused = given.paused,
        revision = given.revision,
        last_ms = given.last_ms,
        next_ms = given.next_ms,
        last_job = given.last_job
    from unnest($1::text[], $2::bytea[], $3::text[], $4::boolean[], $5::boolean[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bytea[]) as given (name, spec, task, is_declared, paused,
        revision, last_ms, next_ms, last_job)
    where schedule.name = given.name
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane.schedule (name, spec, task, is_declared, paused, revision, last_ms,
        next_ms, last_job, declared_ms)
    select given.*, coalesce($10::bigint, backlane.now_ms())
    from unnest($1::text[], $2::bytea[], $3::text[], $4::boolean[], $5::boolean[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bytea[]) as given
    order by 1
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
DECLARED: Sql[tuple[()]] = Sql(
    """
    update backlane.schedule
    set declared_ms = coalesce($2::bigint, backlane.now_ms())
    where name = $1::text
    """
)
REMOVE: Sql[tuple[()]] = Sql(
    """
    delete from backlane.schedule
    where name = any ($1::text[])
    """
)
FORGET_UNDECLARED: Sql[tuple[()]] = Sql(
    """
    delete from backlane.schedule
    where name in (
        select name
        from backlane.schedule
        where is_declared
        and declared_ms <= coalesce($1::bigint, backlane.now_ms()) - $2::bigint
        and exists (select 1 from backlane.worker)
        for update skip locked
    )
    """
)
NOW: Sql[tuple[int]] = Sql("select coalesce($1::bigint, backlane.now_ms())")


async def list_schedules(tx: PostgresTx, *, due: bool) -> Timetable:
    """Return the schedules by name; or those that are due, the earliest first."""
    rows = await tx.rows(LIST, tx.wall_ms, due, LISTED_DUE if due else LISTED)
    records = [_record(row[2:]) for row in rows if row[2] is not None]
    return Timetable(rows[0][0], records, rows[0][1])


async def schedules_of_all(tx: PostgresTx) -> list[ScheduleRecord]:
    """Return all there are, by name."""
    are_due = False
    rows = await tx.rows(LIST, tx.wall_ms, are_due, 2_147_483_647)
    return [_record(row[2:]) for row in rows if row[2] is not None]


async def keep_all(tx: PostgresTx, records: Sequence[ScheduleRecord]) -> None:
    """Take in the schedules of another store, as they are."""
    if records:
        columns = zip(*map(_row, records), strict=True)
        await tx.rows(KEEP, *(list(column) for column in columns), tx.boot_ms)


async def alter_schedule(
    tx: PostgresTx, name: str, change: Put | Pause | Resume | Remove
) -> ScheduleRecord | None:
    """Change a schedule; return it as it is now."""
    if isinstance(change, Put):
        return await _put(tx, name, change)
    record = (await _held(tx, [name])).get(name)
    if record is None:
        return None
    changed = record
    match change:
        case Pause():
            changed = replace(record, paused=True)
        case Resume():
            if record.paused:
                now = (await tx.rows(NOW, tx.wall_ms))[0][0]
                changed = replace(record, paused=False, last_ms=now, next_ms=None)
        case Remove():
            await tx.rows(REMOVE, [stored(name)])
            return None
        case _:
            assert_never(change)
    return await _store(tx, record, changed)


async def _put(tx: PostgresTx, name: str, put: Put) -> ScheduleRecord:
    said = (put.spec, stored(put.task), put.is_declared)
    made = await tx.rows(MAKE, stored(name), *said, tx.wall_ms, tx.boot_ms)
    record = (await _held(tx, [name])).get(name)
    if record is None:
        raise SerializationFailure("the schedule was removed meanwhile")
    if made:
        return record
    if put.is_declared:
        await tx.rows(DECLARED, stored(name), tx.boot_ms)
        if not record.is_declared:
            return record
    changed = replace(record, is_declared=put.is_declared)
    if (record.spec, record.task) != (put.spec, put.task):
        now = (await tx.rows(NOW, tx.wall_ms))[0][0]
        changed = replace(changed, spec=put.spec, task=put.task, last_ms=now, next_ms=None)
    return await _store(tx, record, changed)


async def _held(tx: PostgresTx, names: Sequence[str]) -> dict[str, ScheduleRecord]:
    rows = await tx.rows(HOLD, [stored(name) for name in names])
    return {record.name: record for record in map(_record, rows)}


async def _store(tx: PostgresTx, before: ScheduleRecord, then: ScheduleRecord) -> ScheduleRecord:
    if then == before:
        return before
    then = replace(then, revision=before.revision + 1)
    await many(tx, SET, [_row(then)])
    return then


async def tick(
    tx: PostgresTx, purse: Purse, ticks: Sequence[Tick], admission: Admission
) -> list[Ticked]:
    """Apply schedules, each on its own; a second tick of one name comes after the first."""
    known = await _held(tx, sorted({one.name for one in ticks}))
    answers: list[Ticked | None] = [None] * len(ticks)
    left = list(enumerate(ticks))
    while left:
        first: dict[str, int] = {}
        ours = [it for it in left if first.setdefault(it[1].name, it[0]) == it[0]]
        ticked = await _tick(tx, purse, known, [one for _, one in ours], admission)
        for (at, _), answer in zip(ours, ticked, strict=True):
            answers[at] = answer
        left = [it for it in left if first[it[1].name] != it[0]]
    return [one for one in answers if one is not None]


async def _tick(
    tx: PostgresTx,
    purse: Purse,
    known: dict[str, ScheduleRecord],
    ticks: Sequence[Tick],
    admission: Admission,
) -> list[Ticked]:
    """Apply schedules of different names; `known` is kept up to date."""
    current = [
        one for one in ticks if one.name in known and known[one.name].revision == one.revision
    ]
    batches: list[tuple[Sequence[Job], Admission]] = [(one.jobs, admission) for one in current]
    found = await append_all(tx, purse, batches, are_ticks=True) if batches else []
    refused: dict[str, Refusal] = {}
    over, changed = [], []
    for one, answer in zip(current, found, strict=True):
        if isinstance(answer, Refusal):
            refused[one.name] = answer
            continue
        before = known.pop(one.name)
        if one.next_ms is None:
            over.append(stored(one.name))
            continue
        then = replace(
            before, revision=before.revision + 1, last_ms=one.last_ms, next_ms=one.next_ms
        )
        if answer:
            then = replace(then, last_job=answer[-1].first or answer[-1].job)
        known[one.name] = then
        changed.append(then)
    await many(tx, SET, [_row(one) for one in changed])
    if over:
        await tx.rows(REMOVE, over)
    counted = {one.name for one in current} - refused.keys()
    return [Ticked(one.name, one.name in counted, refused.get(one.name)) for one in ticks]


async def forget_undeclared(tx: PostgresTx) -> None:
    """Forget the schedules that code declared and does not declare any more."""
    await tx.rows(FORGET_UNDECLARED, tx.boot_ms, UNDECLARED_MS)


def _record(row: Row) -> ScheduleRecord:
    name, spec, task, is_declared, paused, revision, last_ms, next_ms, last_job = row
    return ScheduleRecord(
        name=loaded(name),
        spec=spec,
        task=loaded(task),
        is_declared=is_declared,
        paused=paused,
        revision=revision,
        last_ms=last_ms,
        next_ms=next_ms,
        last_job=last_job,
    )


def _row(one: ScheduleRecord) -> Row:
    return (
        *(stored(one.name), one.spec, stored(one.task), one.is_declared, one.paused),
        *(one.revision, one.last_ms, one.next_ms, one.last_job),
    )
