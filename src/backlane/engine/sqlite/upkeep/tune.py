"""Tune: a queue's settings. List: what is known of the queues, from counters alone."""

from __future__ import annotations

from typing import Any

from backlane.engine.counted import queue_record
from backlane.engine.plan import Sql
from backlane.engine.protocol import Declare, Tune
from backlane.engine.sqlite.append import enter
from backlane.engine.sqlite.append.append import make_line
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock
from backlane.model.queue import QueueRecord

_Row = tuple[Any, ...]

# The head of each line is one step into the key of backlane_ready for each lane.
QUEUES: Sql[_Row] = Sql(
    """
    select name, kind, paused, declared_jobs, declared_bytes, declared_wait_ms, declared_share,
        tuned_jobs, tuned_bytes, tuned_wait_ms, tuned_share, coalesce(sum(scheduled), 0),
        coalesce(sum(ready), 0), coalesce(sum(running), 0), coalesce(sum(bytes), 0),
        coalesce(sum(appended), 0), coalesce(sum(succeeded), 0), coalesce(sum(failed), 0),
        coalesce(sum(cancelled), 0), coalesce(sum(expired), 0), coalesce(sum(retried), 0),
        coalesce(sum(started), 0), coalesce(sum(ended), 0), coalesce(sum(ran_ms), 0),
        coalesce(sum(blocked), 0), is_fair,
        (
            select coalesce(due_ms, place)
            from backlane_job
            where seq = (
                select cast(substr(min((
                    select printf('%d %016d %016d', rank, place, seq)
                    from backlane_ready as ready
                    where ready.queue = line.id
                    and ready.lane = open.lane
                    order by rank, place, seq
                    limit 1
                )), 20) as integer)
                from backlane_lane as open
            )
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
        declared_bytes = ?,
        declared_wait_ms = ?,
        declared_share = ?,
        is_fair = ?
    where name = ?
    and kind = ?
    """
)
RESET: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set tuned_jobs = null,
        tuned_bytes = null,
        tuned_wait_ms = null,
        tuned_share = null
    where name = ?
    """
)
TUNE: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set tuned_jobs = coalesce(?, tuned_jobs),
        tuned_bytes = coalesce(?, tuned_bytes),
        tuned_wait_ms = coalesce(?, tuned_wait_ms),
        tuned_share = coalesce(?, tuned_share),
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
            await enter.set_fair(tx, {queue: change.is_fair})
            return None
        # Of another kind it is left alone: the answer says which it is.
        await tx.rows(
            DECLARE,
            bounds.max_jobs,
            bounds.max_bytes,
            bounds.max_wait_ms,
            bounds.group_share,
            int(change.is_fair),
            queue,
            change.kind.value,
        )
        return before
    if before is None:
        return None
    if change.reset:
        await tx.rows(RESET, queue)
    tuned = (change.max_jobs or None, change.max_bytes or None)
    paused = None if change.paused is None else int(change.paused)
    await tx.rows(TUNE, *tuned, change.max_wait_ms, change.group_share or None, paused, queue)
    tx.rings.queues.add(queue)
    return await _find(tx, clock, queue)


async def _find(tx: SqliteTx, clock: Clock, queue: str) -> QueueRecord | None:
    rows = await tx.rows(QUEUES, queue)
    return _record(rows[0], clock.wall_ms()) if rows else None


def _record(row: _Row, now: int) -> QueueRecord:
    blocked, is_fair, first_ms = row[24:]
    oldest = None if first_ms is None else max(0, now - first_ms)
    return queue_record(row, blocked=blocked, is_fair=bool(is_fair), oldest_ready_ms=oldest)
