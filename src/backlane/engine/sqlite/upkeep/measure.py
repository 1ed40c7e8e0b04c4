"""Measure: what the speed of a queue is known by. Reserve: its virtual clock.

The clock counts wall microseconds. It is never moved further ahead than `CLOCK_AHEAD_MS`:
one that is, belongs to a time that was set back since, and holds no promise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.protocol import Measured
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.clock import Clock
from backlane.model.queue import Bounds, Kind, LineSample, QueueSample, in_line

CLOCK_AHEAD_MS = 600_000
LIVE_MS = 30_000  # a worker whose last beat is older is not counted on: it beats every 5 s

_Row = tuple[Any, ...]

# The head of each line is one step into the key of backlane_ready for each lane.
MEASURED: Sql[_Row] = Sql(
    """
    select id, name, kind, paused, coalesce(tuned_jobs, declared_jobs),
        coalesce(tuned_bytes, declared_bytes), coalesce(tuned_wait_ms, declared_wait_ms),
        coalesce(tuned_share, declared_share), clock_us,
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
    where name in (select value from carray(?))
    order by name
    """
)
# Served by the key of backlane_counter: at most ten rows a queue.
COUNTED: Sql[_Row] = Sql(
    """
    select queue, priority, ready, running, appended + retried, started, scheduled, bytes,
        ended, ran_ms, foretold, foretold_ms, waited_ms
    from backlane_counter
    where queue in (select value from carray(?))
    order by queue, priority
    """
)
DOWN: Sql[tuple[int]] = Sql(
    """
    select id
    from backlane_resource
    where state <> 'closed'
    """
)
# What waits for a resource that is down. It counts rows, 50,000 in some 4 ms: by rank, as
# the key has them (by priority it was four times that).
WITHHELD: Sql[tuple[int, int, int]] = Sql(
    """
    select queue, 9 - rank, count(*)
    from backlane_ready
    where queue = ?
    and lane = ?
    group by queue, rank
    """
)
SERVING: Sql[tuple[str, int, str, int]] = Sql(
    """
    select queues, slots, most, beat_ms
    from backlane_worker
    """
)
SECRET: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane_meta
    where name = 'secret'
    """
)
CLOCK: Sql[tuple[int]] = Sql(
    """
    select clock_us
    from backlane_queue
    where name = ?
    """
)
SET_CLOCK: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set clock_us = ?
    where name = ?
    """
)


async def measure(tx: SqliteTx, clock: Clock, queues: Sequence[str]) -> Measured:
    """Return samples of those of these queues that exist, by name."""
    secret = (await tx.rows(SECRET))[0][0]
    rows = await tx.rows(MEASURED, array(list(queues))) if queues else []
    if not rows:
        return Measured([], secret)
    counted: dict[int, list[_Row]] = {row[0]: [] for row in rows}
    for row in await tx.rows(COUNTED, integers(list(counted))):
        counted[row[0]].append(row[1:])
    down = [number for (number,) in await tx.rows(DOWN)]
    if down:
        lanes = [2 * number + kind for number in down for kind in (0, 1)]
        rows_of = [(queue, lane) for queue in counted for lane in lanes]
        withheld = {queue: Counter[int]() for queue in counted}
        for queue, level, number in await tx.each(WITHHELD, rows_of):
            withheld[queue][level] += number
        counted = {queue: _less(lines, withheld[queue]) for queue, lines in counted.items()}
    slots = await _slots(tx, clock, {row[1] for row in rows})
    samples = [_sample(row, counted[row[0]], slots, clock.wall_ms()) for row in rows]
    return Measured(samples, secret)


async def reserve(
    tx: SqliteTx, clock: Clock, queue: str, after_ms: int, spacing_us: int, number: int
) -> int:
    """Move the queue's virtual clock on; return when the first slot begins, from now."""
    after_ms = max(0, after_ms)
    rows = await tx.rows(CLOCK, queue)
    if not rows:
        return after_ms
    now = clock.wall_ms()
    begins = max(ahead_us(rows[0][0], now), after_ms * 1000)
    ahead = min(begins + number * spacing_us, CLOCK_AHEAD_MS * 1000)
    await tx.rows(SET_CLOCK, now * 1000 + ahead, queue)
    return begins // 1000


def ahead_us(clock_us: int, now_ms: int) -> int:
    """How far a virtual clock is ahead of now; 0 if it is not believed."""
    ahead = clock_us - now_ms * 1000
    return ahead if 0 < ahead <= CLOCK_AHEAD_MS * 1000 else 0


def _less(lines: Sequence[_Row], withheld: Mapping[int, int]) -> list[_Row]:
    ready = in_line({line[0]: line[1] for line in lines}, withheld)
    return [(line[0], ready[line[0]], *line[2:]) for line in lines]


async def _slots(tx: SqliteTx, clock: Clock, queues: set[str]) -> dict[str, int]:
    """The slots of live workers for each queue that an announced worker serves."""
    latest = clock.boot_ms() - LIVE_MS
    found: dict[str, int] = {}
    for names, slots, most, beat_ms in await tx.rows(SERVING):
        limits: Mapping[str, int] = json.loads(most)
        for name in queues.intersection(json.loads(names)):
            share = min(slots, limits.get(name, slots)) if beat_ms >= latest else 0
            found[name] = found.get(name, 0) + share
    return found


def _sample(row: _Row, counted: Sequence[_Row], slots: Mapping[str, int], now: int) -> QueueSample:
    _, name, kind, paused, *bounds, clock_us = row[:9]
    head = row[9]
    scheduled, held, ended, ran_ms, foretold, foretold_ms, waited_ms = (
        sum(column) for column in list(zip(*counted, strict=True))[5:] or [()] * 7
    )
    lines = tuple(LineSample(*line[:5]) for line in counted if any(line[1:5]))
    # A worker that left is forgotten, and what it did is not: then nobody is there now.
    was_served = kind == Kind.TASKS and any(line.started for line in lines)
    return QueueSample(
        name=name,
        bounds=Bounds(bounds[0], bounds[1], bounds[2] or None, bounds[3]),
        is_paused=bool(paused),
        lines=lines,
        scheduled=scheduled,
        bytes=held,
        ended=ended,
        ran_ms=ran_ms,
        foretold=foretold,
        foretold_ms=foretold_ms,
        waited_ms=waited_ms,
        oldest_ready_ms=None if head is None else max(0, now - head),
        slots=slots.get(name, 0 if was_served else None),
        reserved_ms=ahead_us(clock_us, now) // 1000,
    )
