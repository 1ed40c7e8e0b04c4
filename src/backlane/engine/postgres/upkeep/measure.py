"""Measure: what the speed of a queue is known by. Reserve: its virtual clock.

The clock counts wall microseconds. It is never moved further ahead than `CLOCK_AHEAD_MS`:
one that is, belongs to a time that was set back since, and holds no promise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.postgres.lease.head import Heads
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Measured
from backlane.model.queue import Bounds, Kind, LineSample, QueueSample, in_line

CLOCK_AHEAD_MS = 600_000
LIVE_MS = 30_000  # a worker whose last beat is older is not counted on: it beats every 5 s

_Row = tuple[Any, ...]

# One row for each priority of a queue (null where it has none). Of `tally` all is read,
# which a sweep keeps short.
MEASURED: Sql[_Row] = Sql(
    """
    with clock as (
        select coalesce($2::bigint, backlane.now_ms()) as wall_ms,
            coalesce($3::bigint, backlane.now_ms()) as boot_ms
    ), serving as (
        select served.name,
            sum(
                case
                    when beat_ms >= boot_ms - $4::bigint
                    then least(slots, coalesce((most ->> served.name)::int, slots))
                    else 0
                end
            )::bigint as slots
        from clock
        cross join backlane.worker
        cross join lateral (select distinct unnest(queues) as name) as served
        group by served.name
    )
    select queue.id, queue.name, kind, paused, coalesce(tuned_jobs, declared_jobs),
        coalesce(tuned_bytes, declared_bytes), coalesce(tuned_wait_ms, declared_wait_ms),
        coalesce(tuned_share, declared_share),
        coalesce(virtual_clock.clock_us - wall_ms * 1000, 0),
        case when head is not null then greatest(0, wall_ms - head[6]) end,
        serving.slots,
        exists (select from backlane.resource where state <> 'closed'),
        counted.priority, counted.ready, counted.running, counted.appended + counted.retried,
        counted.started, counted.scheduled, counted.bytes, counted.ended, counted.ran_ms,
        counted.foretold, counted.foretold_ms, counted.waited_ms,
        head,
        (select value from backlane.meta where name = 'secret')
    from clock
    cross join backlane.queue
    cross join lateral (
        select backlane.first_in_line(queue.id, $5::bigint[]) as head
        offset 0
    ) as line
    left join backlane.virtual_clock on virtual_clock.queue = queue.id
    left join serving on serving.name = queue.name
    left join lateral (
        select *
        from backlane.counted
        where counted.queue = queue.id
    ) as counted on true
    where queue.name = any ($1::text[])
    order by queue.name collate "C", counted.priority
    """
)
# What waits for a resource that is down. It counts rows, by rank as the key has them.
WITHHELD: Sql[tuple[int, int, int]] = Sql(
    """
    select ready.queue, (9 - ready.rank)::int, count(*)
    from backlane.resource
    join backlane.ready on ready.lane in (2 * resource.id, 2 * resource.id + 1)
    where resource.state <> 'closed'
    and ready.queue = any ($1::int[])
    group by ready.queue, ready.rank
    """
)
SECRET: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane.meta
    where name = 'secret'
    """
)
# Locked first, so that who comes next begins where this one ends. It need not survive a
# crash of the server, so nobody waits for the disk (unless the transaction is a caller's).
RESERVE: Sql[tuple[int]] = Sql(
    """
    with line as materialized (
        select id, coalesce($2::bigint, backlane.now_ms()) * 1000 as now_us,
            case when $7::boolean then set_config('synchronous_commit', 'off', true) end
        from backlane.queue
        where name = $1::text
    ), held as materialized (
        select queue, clock_us
        from backlane.virtual_clock
        where queue = (select id from line)
        for update
    ), slot as materialized (
        select queue, now_us, clock_us,
            greatest(
                $3::bigint * 1000,
                case when clock_us - now_us <= $6::bigint then clock_us - now_us else 0 end,
                0
            ) as begins_us
        from line
        join held on held.queue = line.id
    ), moved as (
        update backlane.virtual_clock
        set clock_us = now_us + least(begins_us + $4::bigint::numeric * $5::bigint, $6)
        from slot
        where virtual_clock.queue = slot.queue
    )
    select begins_us / 1000
    from slot
    """
)
# The clock of a queue that had none.
WIND: Sql[tuple[int]] = Sql(
    """
    insert into backlane.virtual_clock (queue, clock_us)
    select id, 0
    from backlane.queue
    where name = $1::text
    on conflict (queue) do update
    set clock_us = virtual_clock.clock_us
    returning queue
    """
)


async def measure(tx: PostgresTx, heads: Heads, queues: Sequence[str]) -> Measured:
    """Return samples of those of these queues that exist, by name."""
    floors, began = heads.floors() if tx.wall_ms is None else [], time.monotonic()
    given = (list(queues), tx.wall_ms, tx.boot_ms, LIVE_MS, floors)
    rows = await tx.rows(MEASURED, *given) if queues else []
    if not rows:
        return Measured([], (await tx.rows(SECRET))[0][0])
    heads.keep([row[24] for row in rows], floors, time.monotonic() - began)
    found: dict[int, list[_Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    withheld: dict[int, Counter[int]] = {queue: Counter() for queue in found}
    if rows[0][11]:
        for queue, level, number in await tx.rows(WITHHELD, list(found)):
            withheld[queue][level] += number
    samples = [_sample(lines, withheld[queue]) for queue, lines in found.items()]
    return Measured(samples, rows[0][-1])


async def reserve(tx: PostgresTx, queue: str, after_ms: int, spacing_us: int, number: int) -> int:
    """Move the queue's virtual clock on; return when the first slot begins, from now."""
    after_ms = max(0, after_ms)
    ahead_us = CLOCK_AHEAD_MS * 1000
    slots = (spacing_us, number, ahead_us)
    given = (queue, tx.wall_ms, after_ms, *slots, not tx.is_joined)
    rows = await tx.rows(RESERVE, *given)
    if not rows and await tx.rows(WIND, queue):
        rows = await tx.rows(RESERVE, *given)
    return rows[0][0] if rows else after_ms


def _lines(rows: Sequence[_Row], withheld: Mapping[int, int]) -> list[LineSample]:
    """Return the priorities of a queue, less what waits for a resource that is down."""
    counted = [row[12:17] for row in rows if row[12] is not None]
    ready = {priority: number for priority, number, *_ in counted}
    left = in_line(ready, withheld) if withheld else ready
    lines = [LineSample(line[0], left[line[0]], *line[2:]) for line in counted]
    return [line for line in lines if line != LineSample(line.priority)]


def _sample(rows: Sequence[_Row], withheld: Mapping[int, int]) -> QueueSample:
    _, name, kind, paused, *bounds, ahead_us, oldest_ms, slots = rows[0][:11]
    scheduled, held, ended, ran_ms, foretold, foretold_ms, waited_ms = (
        sum(value or 0 for value in column)
        for column in zip(*(row[17:24] for row in rows), strict=True)
    )
    lines = _lines(rows, withheld)
    # A worker that left is forgotten, and what it did is not: then nobody is there now.
    was_served = kind == Kind.TASKS and any(line.started for line in lines)
    is_believed = 0 < ahead_us <= CLOCK_AHEAD_MS * 1000
    return QueueSample(
        name=name,
        bounds=Bounds(bounds[0], bounds[1], bounds[2] or None, bounds[3]),
        is_paused=paused,
        lines=tuple(lines),
        scheduled=scheduled,
        bytes=held,
        ended=ended,
        ran_ms=ran_ms,
        foretold=foretold,
        foretold_ms=foretold_ms,
        waited_ms=waited_ms,
        oldest_ready_ms=oldest_ms,
        slots=(0 if was_served else None) if slots is None else slots,
        reserved_ms=ahead_us // 1000 if is_believed else 0,
    )
