"""Tune: a queue's settings. List: what is known of the queues, from counters alone."""

from __future__ import annotations

from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.protocol import Declare, Tune
from backlane.engine.sqlite.append import make_line
from backlane.engine.sqlite.transaction import SqliteTx
from backlane.model.clock import Clock
from backlane.model.queue import Bounds, Depth, Kind, QueueRecord

_Row = tuple[Any, ...]

# The head of each line is one step into the key of backlane_ready for each lane.
QUEUES: Sql[_Row] = Sql(
    """
    select name, kind, paused, declared_jobs, declared_bytes, tuned_jobs, tuned_bytes,
        coalesce(sum(scheduled), 0), coalesce(sum(ready), 0), coalesce(sum(running), 0),
        coalesce(sum(bytes), 0), coalesce(sum(appended), 0), coalesce(sum(succeeded), 0),
        coalesce(sum(failed), 0), coalesce(sum(cancelled), 0), coalesce(sum(expired), 0),
        coalesce(sum(retried), 0),
        (
            select rank * 1000000000000000 + place
            from backlane_ready
            where queue = line.id
            and lane = 0
            order by rank, place
            limit 1
        ),
        (
            select rank * 1000000000000000 + place
            from backlane_ready
            where queue = line.id
            and lane = 1
            order by rank, place
            limit 1
        )
    from backlane_queue as line
    left join backlane_counter as counter on counter.queue = line.id
    where ?1 is null
    or name = ?1
    group by line.id
    order by name
    """
)
KIND: Sql[tuple[str]] = Sql(
    """
    select kind
    from backlane_queue
    where name = ?
    """
)
DECLARE: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set declared_jobs = ?,
        declared_bytes = ?
    where name = ?
    and kind = ?
    """
)
RESET: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set tuned_jobs = null,
        tuned_bytes = null
    where name = ?
    """
)
TUNE: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set tuned_jobs = coalesce(?, tuned_jobs),
        tuned_bytes = coalesce(?, tuned_bytes),
        paused = coalesce(?, paused)
    where name = ?
    """
)


async def list_queues(tx: SqliteTx, clock: Clock) -> list[QueueRecord]:
    """Return all queues by name."""
    now = clock.wall_ms()
    return [_record(row, now) for row in await tx.rows(QUEUES, None)]


async def tune(
    tx: SqliteTx, clock: Clock, queue: str, change: Declare | Tune
) -> QueueRecord | None:
    """Set bounds or the pause of a queue; `Declare` answers what was before."""
    before = await _find(tx, clock, queue)
    if isinstance(change, Declare):
        bounds = change.bounds
        if before is None:
            await make_line(tx, queue, change.kind.value, bounds)
        else:  # of another kind it is left alone: the answer says which it is
            kind = change.kind.value
            await tx.rows(DECLARE, bounds.max_jobs, bounds.max_bytes, queue, kind)
        return before
    if before is None:
        return None
    if change.reset:
        await tx.rows(RESET, queue)
    paused = None if change.paused is None else int(change.paused)
    await tx.rows(TUNE, change.max_jobs or None, change.max_bytes or None, paused, queue)
    tx.rings.queues.add(queue)
    return await _find(tx, clock, queue)


async def _find(tx: SqliteTx, clock: Clock, queue: str) -> QueueRecord | None:
    rows = await tx.rows(QUEUES, queue)
    return _record(rows[0], clock.wall_ms()) if rows else None


def _record(row: _Row, now: int) -> QueueRecord:
    name, kind, paused, jobs, size, tuned_jobs, tuned_bytes = row[:7]
    scheduled, ready, running, held = row[7:11]
    heads = [head for head in row[17:] if head is not None]
    return QueueRecord(
        name=name,
        kind=Kind(kind),
        paused=bool(paused),
        bounds=Bounds(tuned_jobs or jobs, tuned_bytes or size),
        declared=Bounds(jobs, size),
        tuned_max_jobs=tuned_jobs,
        tuned_max_bytes=tuned_bytes,
        depth=Depth(scheduled, ready, running, 0, held),
        oldest_ready_ms=max(0, now - min(heads) % 10**15) if heads else None,
        appended=row[11],
        succeeded=row[12],
        failed=row[13],
        cancelled=row[14],
        expired=row[15],
        retried=row[16],
    )
