"""Sweep: mend what lapsed, end what expired, age what waits, prune what is old.

Pruning goes round the history with a cursor and looks at 10,000 rows a call, so that a
history of millions costs a sweep no more than one of thousands.
"""

from __future__ import annotations

from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.retention import Retention, Swept
from backlane.engine.sqlite.append import keys, schedules
from backlane.engine.sqlite.append.idempotency import forget_repeats
from backlane.engine.sqlite.lease.claim import bring_back
from backlane.engine.sqlite.limits import fair, limits
from backlane.engine.sqlite.limits.resource import LANES
from backlane.engine.sqlite.record import keeping
from backlane.engine.sqlite.record.exits import UNFINISH, take_out
from backlane.engine.sqlite.record.moves import FINAL_STATES, Moves
from backlane.engine.sqlite.record.record import RUNNING, standings
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.engine.sqlite.upkeep.amend import FORGET_DEADLINE, forget
from backlane.engine.sqlite.upkeep.workers import forget_silent
from backlane.engine.sqlite.workflow import edges, ends
from backlane.model.clock import Clock
from backlane.model.ids import id_ms
from backlane.model.job import State

LEVEL_MS = 300_000  # of waiting are one level of priority
LOOKED_AT = 10_000  # rows of history a call reads at most

Past = tuple[int, int, int, int, int | None]  # seq, state, queue, ended_ms, keep_ms

OVERDUE: Sql[tuple[int, int]] = Sql(
    """
    select deadline_ms, seq
    from backlane_deadline
    where deadline_ms <= ?
    order by deadline_ms, seq
    limit ?
    """
)
# Of a queue that is, or was, a fair one the places say nothing of how long one waited.
WAITING: Sql[tuple[int, int, bool]] = Sql(
    """
    select queue, priority, virtual_ms is not null
    from backlane_counter
    join backlane_queue on backlane_queue.id = queue
    where ready > 0
    """
)
# One range of the key of backlane_ready; with one priority in a queue all of it is aged.
AGED: Sql[tuple[int, int, int, int, int, int]] = Sql(
    """
    select queue, lane, rank, place, seq, priority
    from backlane_ready
    where queue = ?
    and lane = ?
    and rank = ?
    and place <= ?
    and priority = ?
    limit ?
    """
)
AGE: Sql[tuple[()]] = Sql(
    """
    update backlane_ready
    set rank = ?
    where queue = ?
    and lane = ?
    and rank = ?
    and place = ?
    and seq = ?
    """
)
KEPT: Sql[tuple[int, int, int]] = Sql(
    """
    select queue, sum(kept_done), sum(kept_failed)
    from backlane_counter
    group by queue
    """
)
CURSOR: Sql[tuple[int]] = Sql(
    """
    select value
    from backlane_meta
    where name = 'pruned_seq'
    """
)
SET_CURSOR: Sql[tuple[()]] = Sql(
    """
    update backlane_meta
    set value = ?
    where name = 'pruned_seq'
    """
)
RAISE_FORGOTTEN: Sql[tuple[()]] = Sql(
    """
    update backlane_meta
    set value = max(value, ?)
    where name = 'forgotten_ms'
    """
)
HISTORY: Sql[Past] = Sql(
    """
    select finished.seq, state, queue, ended_ms, keep_ms
    from backlane_finished as finished
    left join backlane_keep as keep on keep.seq = finished.seq
    where finished.seq > ?
    order by finished.seq
    limit ?
    """
)
OF_JOB: Sql[tuple[bytes, int]] = Sql(
    """
    select id, priority
    from backlane_job
    where seq = ?
    """
)


async def sweep(tx: SqliteTx, clock: Clock, limit: int, retention: Retention) -> Swept:
    """Do one bounded round; `more` says that it stopped at its limit."""
    moves = Moves(clock)
    lapsed, buried = await bring_back(tx, clock, (), limit, moves)
    expired = await _expire(tx, clock, limit - lapsed, moves)
    left = limit - lapsed - expired
    await moves.store_rows(tx)
    await ends.follow(tx, clock.wall_ms(), moves)
    await moves.store_counts(tx)
    aged = await _age(tx, clock.wall_ms(), left)
    pruned = await Pruning(tx, clock.wall_ms(), retention).prune(left - aged)
    left -= aged + pruned
    left -= await forget_repeats(tx, clock.wall_ms(), left)
    left -= await keys.forget_windows(tx, clock.wall_ms(), left)
    left -= await limits.forget_full(tx, clock, left)
    left -= await fair.forget(tx, left)
    await schedules.forget_undeclared(tx, clock)
    await forget_silent(tx, clock)
    return Swept(
        lapsed=lapsed,
        buried=[held.id for held in buried],
        expired=expired,
        aged=aged,
        pruned=pruned,
        more=left <= 0,
    )


async def _expire(tx: SqliteTx, clock: Clock, limit: int, moves: Moves) -> int:
    """End waiting jobs past their deadline."""
    now = clock.wall_ms()
    overdue = await tx.rows(OVERDUE, now, max(0, limit))
    # Those that run may come back; then their claim looks at the deadline again.
    found = await standings(tx, [seq for _, seq in overdue])
    waiting = [one for one in found if one.code != RUNNING and not one.state.is_final]
    await take_out(tx, moves, waiting)
    for one in waiting:
        moves.finish(one.held(), State.EXPIRED, now)
        tx.rings.jobs.append(one.id)
    await tx.each(FORGET_DEADLINE, overdue)
    return len(waiting)


async def _age(tx: SqliteTx, now: int, limit: int) -> int:
    """Raise what has waited long, a level for every five minutes."""
    moved: list[tuple[Any, ...]] = []
    waiting = await tx.rows(WAITING)
    for queue, priority, _ in (row for row in waiting if not row[2]):
        for _, lane in await tx.rows(LANES, queue):
            for rank in range(1, 10 - priority):
                levels = 9 - priority - rank  # gained so far
                before = now - LEVEL_MS * (levels + 1)
                left = limit - len(moved)
                if left > 0:
                    moved += await tx.rows(AGED, queue, lane, rank, before, priority, left)
    ranks = [_aged(row[5], row[3], now) for row in moved]
    for queue in sorted({row[0] for row in waiting if row[2]}):
        for _, lane in await tx.rows(LANES, queue):
            for rank in range(1, 10):
                left = max(0, limit - len(moved))
                for *row, due_ms in await tx.rows(fair.AGED, queue, lane, rank, left, now):
                    moved.append(tuple(row))
                    ranks.append(_aged(row[5], due_ms, now))
    if moved:
        await tx.each(AGE, [(rank, *row[:5]) for rank, row in zip(ranks, moved, strict=True)])
    return len(moved)


def _aged(priority: int, since_ms: int, now: int) -> int:
    return max(0, 9 - priority - (now - since_ms) // LEVEL_MS)


class Pruning:
    """One step of the way round the history."""

    def __init__(self, tx: SqliteTx, now: int, retention: Retention) -> None:
        self._tx = tx
        self._now = now
        self._retention = retention
        self._excess: dict[tuple[int, bool], int] = {}

    async def prune(self, limit: int) -> int:
        """Forget jobs past their age or beyond the number kept; return how many."""
        if limit <= 0:
            return 0
        own = await keeping.counts(self._tx)
        for queue, done, failed in await self._tx.rows(KEPT):
            done, failed = done - own.get((queue, False), 0), failed - own.get((queue, True), 0)
            self._excess[queue, False] = done - self._retention.done_jobs
            self._excess[queue, True] = failed - self._retention.failed_jobs
        start: int = (await self._tx.rows(CURSOR))[0][0]
        rows = await self._tx.rows(HISTORY, start, LOOKED_AT)
        is_at_end = len(rows) < LOOKED_AT
        if is_at_end and start > 0:  # go on from the beginning
            again = await self._tx.rows(HISTORY, 0, LOOKED_AT - len(rows))
            rows += [row for row in again if row[0] <= start]
        old: list[Past] = []
        cursor = start
        for row in rows:
            if len(old) >= limit:
                break
            cursor = row[0]
            if self._is_old(row):
                old.append(row)
        else:
            cursor = 0 if is_at_end else cursor
        if cursor != start:
            await self._tx.rows(SET_CURSOR, cursor)
        needed = await edges.needed(self._tx, [row[0] for row in old])
        old = [row for row in old if row[0] not in needed]
        await self._forget(old)
        return len(old)

    def _is_old(self, row: Past) -> bool:
        _, state, queue, ended_ms, keep_ms = row
        is_failed = FINAL_STATES[state] is State.FAILED
        age = self._now - ended_ms
        if keep_ms is not None:
            return keep_ms >= 0 and age >= max(keep_ms, self._retention.least_ms)
        if age < self._retention.least_ms:
            return False
        most = self._retention.failed_ms if is_failed else self._retention.done_ms
        is_old = age >= most or self._excess.get((queue, is_failed), 0) > 0
        if is_old and (queue, is_failed) in self._excess:
            self._excess[queue, is_failed] -= 1
        return is_old

    async def _forget(self, old: list[Past]) -> None:
        if not old:
            return
        moves = Moves()
        newest = -1
        for seq, state, queue, ended_ms, _ in old:
            for job, priority in await self._tx.rows(OF_JOB, seq):
                moves.at(queue, priority).keep(FINAL_STATES[state], -1)
                # An id is older than its job's end, unless its maker's clock was ahead:
                # then its own time would make everybody's ids stale.
                newest = max(newest, min(id_ms(job), ended_ms))
                self._tx.rings.jobs.append(job)
        await self._tx.rows(RAISE_FORGOTTEN, newest)
        seqs = [row[0] for row in old]
        await keeping.count(self._tx, seqs, -1)
        await self._tx.each(UNFINISH, [(seq,) for seq in seqs])
        await self._tx.each(keys.PRUNED, [(seq,) for seq in seqs])
        await forget(self._tx, seqs)
        await moves.store(self._tx)
