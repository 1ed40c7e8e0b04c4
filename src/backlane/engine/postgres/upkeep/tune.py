"""Tune: a queue's settings. List: what is known of the queues, from counters alone."""

from __future__ import annotations

import time
from typing import Any, LiteralString

from backlane.engine.counted import queue_record
from backlane.engine.plan import Sql
from backlane.engine.postgres.append.reading import TAKE_BACK
from backlane.engine.postgres.lease.head import Heads
from backlane.engine.postgres.store.lock import LOCK
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Declare, Tune
from backlane.model.queue import QueueRecord

_Row = tuple[Any, ...]

# Queues are few; `counted` is read once for all of them.
_QUEUES: LiteralString = """
    select queue.name, kind, paused, declared_jobs, declared_bytes, declared_wait_ms,
        declared_share, tuned_jobs, tuned_bytes, tuned_wait_ms, tuned_share,
        coalesce(sum(scheduled), 0)::bigint, coalesce(sum(ready), 0)::bigint,
        coalesce(sum(running), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
        coalesce(sum(appended), 0)::bigint, coalesce(sum(succeeded), 0)::bigint,
        coalesce(sum(failed), 0)::bigint, coalesce(sum(cancelled), 0)::bigint,
        coalesce(sum(expired), 0)::bigint, coalesce(sum(retried), 0)::bigint,
        coalesce(sum(started), 0)::bigint, coalesce(sum(ended), 0)::bigint,
        coalesce(sum(ran_ms), 0)::bigint,
        backlane.first_in_line(queue.id, $2::bigint[]),
        coalesce($1::bigint, backlane.now_ms()), coalesce(sum(blocked), 0)::bigint, is_fair
    from backlane.queue
    """
_GROUPED: LiteralString = """
    group by queue.id
    order by queue.name collate "C"
    """
ALL: Sql[_Row] = Sql(_QUEUES + "left join backlane.counted on counted.queue = queue.id" + _GROUPED)
# Served by the key of `counter`; of `tally` all is read, which a sweep keeps short.
ONE: Sql[_Row] = Sql(
    _QUEUES
    + """
    left join backlane.counted on counted.queue = queue.id
    where queue.name = $3::text
    """
    + _GROUPED
)
ADD: Sql[tuple[int]] = Sql(
    """
    insert into backlane.queue (name, kind, declared_jobs, declared_bytes, declared_wait_ms,
        declared_share, is_fair)
    values ($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::float8, $7::boolean)
    on conflict (name) do nothing
    returning id
    """
)
# Of another kind it is left alone: the answer says which it is. One that says nothing new,
# as every start of a worker does, writes nothing.
DECLARE: Sql[tuple[()]] = Sql(
    """
    update backlane.queue
    set declared_jobs = $3::bigint,
        declared_bytes = $4::bigint,
        declared_wait_ms = $5::bigint,
        declared_share = $6::float8,
        is_fair = $7::boolean
    where name = $1::text
    and kind = $2::text
    and (declared_jobs, declared_bytes, declared_wait_ms, declared_share, is_fair)
        is distinct from ($3, $4, $5, $6, $7)
    """
)
TUNE: Sql[tuple[int]] = Sql(
    """
    update backlane.queue
    set tuned_jobs = coalesce($2::bigint, case when not $7::boolean then tuned_jobs end),
        tuned_bytes = coalesce($3::bigint, case when not $7 then tuned_bytes end),
        tuned_wait_ms = coalesce($4::bigint, case when not $7 then tuned_wait_ms end),
        tuned_share = coalesce($5::float8, case when not $7 then tuned_share end),
        paused = coalesce($6::boolean, paused)
    where name = $1::text
    returning id
    """
)


async def list_queues(tx: PostgresTx, heads: Heads) -> list[QueueRecord]:
    """Return all queues by name."""
    floors, began = heads.floors() if tx.wall_ms is None else [], time.monotonic()
    rows = await tx.rows(ALL, tx.wall_ms, floors)
    heads.keep([row[24] for row in rows], floors, time.monotonic() - began)
    return [_record(row) for row in rows]


async def tune(tx: PostgresTx, queue: str, change: Declare | Tune) -> QueueRecord | None:
    """Set bounds or the pause of a queue; `Declare` answers what was before."""
    if isinstance(change, Declare):
        return await _declare(tx, queue, change)
    # What processes were granted by the old bounds is taken back, and none is granted in
    # the meantime.
    await tx.rows(LOCK, [queue])
    tuned = (change.max_jobs or None, change.max_bytes or None)
    share = change.group_share or None
    found = await tx.rows(
        TUNE, queue, *tuned, change.max_wait_ms, share, change.paused, change.reset
    )
    if not found:
        return None
    await tx.rows(TAKE_BACK, [found[0][0]], None)
    tx.rings.queues.add(queue)
    return await _find(tx, queue)


async def _add(tx: PostgresTx, queue: str, kind: str, change: Declare) -> bool:
    """Insert a queue; False when another has done so meanwhile."""
    return bool(await tx.rows(ADD, queue, kind, *_said(change)))


def _said(change: Declare) -> tuple[Any, ...]:
    bounds = change.bounds
    said = (bounds.max_jobs, bounds.max_bytes, bounds.max_wait_ms, bounds.group_share)
    return (*said, change.is_fair)


async def _declare(tx: PostgresTx, queue: str, change: Declare) -> QueueRecord | None:
    kind = str(change.kind)
    before = await _find(tx, queue)
    if before is None:
        if await _add(tx, queue, kind, change):
            return None
        before = await _find(tx, queue)
    await tx.rows(DECLARE, queue, kind, *_said(change))
    return before


async def _find(tx: PostgresTx, queue: str) -> QueueRecord | None:
    rows = await tx.rows(ONE, tx.wall_ms, [], queue)
    return _record(rows[0]) if rows else None


def _record(row: _Row) -> QueueRecord:
    head, wall_ms, blocked, is_fair = row[24:]
    oldest = None if head is None else max(0, wall_ms - head[5])
    return queue_record(row, blocked=blocked, is_fair=is_fair, oldest_ready_ms=oldest)
