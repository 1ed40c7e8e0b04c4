"""Claim: bring what is due or lapsed into ready, then give leases from its head.

A claim reads one row to know whether anything is due, lapsed or to be cancelled;
only then it looks. The lapse of leases is found by a lower bound of the earliest one
(`lapse_ms`), so that a turn costs the same with two leases held or two thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.protocol import Claimed, Wanted
from backlane.engine.sqlite.append import decode_policy
from backlane.engine.sqlite.moves import Held, Moves
from backlane.engine.sqlite.record import records_of
from backlane.engine.sqlite.settle import HeldRow, lapse, ring_queues
from backlane.engine.sqlite.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.job import JobRecord, Lane, Lease, State
from backlane.model.outcome import Reason

MOVES = 1_000  # rows a claim brings into ready at most, so that a claim stays short
LANES = tuple(Lane)

STATUS: Sql[tuple[int | None, int | None, int]] = Sql(
    """
    select (
            select value
            from backlane_meta
            where name = 'lapse_ms'
            and exists (select 1 from backlane_lease)
        ),
        (select due_ms from backlane_scheduled order by due_ms limit 1),
        exists (select 1 from backlane_lease where owner = ? and cancelling = 1)
    """
)
FLAGGED: Sql[tuple[bytes]] = Sql(
    """
    select id
    from backlane_lease
    where owner = ?
    and cancelling = 1
    """
)
# Scans the leases, and runs only when the lower bound says that one may have lapsed.
LAPSED: Sql[HeldRow] = Sql(
    """
    select id, token, seq, queue, priority, attempt, revision, size, started_ms, owner,
        is_plain, cancelling, lane, place, crashes, parked_ms
    from backlane_lease
    where until_ms <= ?
    order by until_ms, seq
    limit ?
    """
)
DEPARTED: Sql[HeldRow] = Sql(
    """
    select id, token, seq, queue, priority, attempt, revision, size, started_ms, owner,
        is_plain, cancelling, lane, place, crashes, parked_ms
    from backlane_lease
    where owner in (select value from carray(?))
    order by until_ms, seq
    limit ?
    """
)
EARLIEST: Sql[tuple[int | None]] = Sql(
    """
    select min(until_ms)
    from backlane_lease
    """
)
SET_EARLIEST: Sql[tuple[()]] = Sql(
    """
    update backlane_meta
    set value = ?
    where name = 'lapse_ms'
    """
)
LOWER_EARLIEST: Sql[tuple[()]] = Sql(
    """
    update backlane_meta
    set value = ?1
    where name = 'lapse_ms'
    and (value is null or value > ?1)
    """
)
DUE: Sql[tuple[int, int, int]] = Sql(
    """
    select queue, priority, count(*)
    from (
        select queue, priority
        from backlane_scheduled
        where due_ms <= ?
        order by due_ms, seq
        limit ?
    )
    group by queue, priority
    """
)
PROMOTE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size)
    select queue, lane, 9 - priority, due_ms, seq, priority, attempt, token, revision + 1,
        crashes, parked_ms, size
    from backlane_scheduled
    where due_ms <= ?
    order by due_ms, seq
    limit ?
    """
)
UNSCHEDULE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_scheduled
    where (due_ms, seq) <= (
        select due_ms, seq
        from backlane_scheduled
        order by due_ms, seq
        limit 1
        offset ?
    )
    """
)
OPEN: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane_queue
    where name in (select value from carray(?))
    and kind = ?
    and paused = 0
    """
)

TakenRow = tuple[Any, ...]

# The head of a line: one ascending range of the key of backlane_ready.
HEAD: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        rank, ready.place, ready.seq, revision, ready.size, key_name
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    order by rank, ready.place, ready.seq
    limit ?
    """
)
GIVE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, parked_ms, until_ms)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)
    """
)
BEHEAD: Sql[tuple[()]] = Sql(
    """
    delete from backlane_ready
    where queue = ?
    and lane = ?
    and (rank, place, seq) <= (?, ?, ?)
    """
)
ORDER: Sql[tuple[int, int, int]] = Sql(
    """
    select rank, place, seq
    from backlane_ready
    where queue = ?
    and lane = ?
    order by rank, place, seq
    limit ?
    """
)
# Rank is not known of a job: ten probes of the key of backlane_ready find it.
PICK: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        rank, ready.place, ready.seq, revision, ready.size, key_name, queue.id, queue.name
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    cross join backlane_queue as queue on queue.id = job.queue
    cross join backlane_ready as ready
    on ready.queue = job.queue
    and ready.lane = job.lane
    and rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    and ready.place = job.place
    and ready.seq = job.seq
    where kind = ?
    and paused = 0
    order by rank, ready.place, ready.seq
    """
)
UNREADY: Sql[tuple[()]] = Sql(
    """
    delete from backlane_ready
    where queue = ?
    and lane = ?
    and rank = ?
    and place = ?
    and seq = ?
    """
)


class Source(NamedTuple):
    """Where leases come from: one lane of one queue."""

    queue: int
    name: str
    lane: int


async def claim(tx: SqliteTx, clock: Clock, wanted: Wanted, moves: Moves) -> Claimed:
    """Give leases; the counters are still to be stored by the caller."""
    earliest, due, is_flagged = (await tx.rows(STATUS, wanted.owner))[0]
    has_lapsed = earliest is not None and earliest <= clock.boot_ms()
    buried: list[JobRecord] = []
    is_moved = has_lapsed or bool(wanted.departed) or (due is not None and due <= clock.wall_ms())
    if is_moved:
        buried = await _bring_in(tx, clock, wanted.departed, moves)
    leases = await Taking(tx, clock, wanted, moves).take()
    if leases:
        until = clock.boot_ms() + wanted.lease_ms
        if is_moved or earliest is None or until < earliest:
            await tx.rows(LOWER_EARLIEST, until)
    cancelled = [job for (job,) in await tx.rows(FLAGGED, wanted.owner)] if is_flagged else []
    if is_moved or leases:
        earliest, due, _ = (await tx.rows(STATUS, wanted.owner))[0]
    return Claimed(leases, cancelled, _next_due_ms(clock, earliest, due), buried)


def _next_due_ms(clock: Clock, earliest: int | None, due: int | None) -> int | None:
    waits = []
    if earliest is not None:
        waits.append(earliest - clock.boot_ms())
    if due is not None:
        waits.append(due - clock.wall_ms())
    return max(0, min(waits)) if waits else None


async def _bring_in(
    tx: SqliteTx, clock: Clock, departed: Sequence[str], moves: Moves
) -> list[JobRecord]:
    """Move what lapsed and what is due into ready; return what had to be buried."""
    lapsed, buried = await bring_back(tx, clock, departed, MOVES, moves)
    await _promote(tx, clock.wall_ms(), MOVES - lapsed, moves)
    return await records_of(tx, [held.id for held in buried])


async def bring_back(
    tx: SqliteTx, clock: Clock, departed: Sequence[str], limit: int, moves: Moves
) -> tuple[int, list[Held]]:
    """End lapsed leases and those of departed owners; return how many, and what was buried."""
    rows = {row[0]: row for row in await tx.rows(LAPSED, clock.boot_ms(), limit)}
    if departed and len(rows) < limit:
        gone = await tx.rows(DEPARTED, array(list(departed)), limit - len(rows))
        rows |= {row[0]: row for row in gone}
    buried: list[Held] = []
    if rows:
        buried = await lapse(tx, clock, [Held._make(row) for row in rows.values()], moves)
    await tx.rows(SET_EARLIEST, (await tx.rows(EARLIEST))[0][0])
    return len(rows), buried


async def _promote(tx: SqliteTx, wall_ms: int, limit: int, moves: Moves) -> None:
    """Move due jobs into ready."""
    due = await tx.rows(DUE, wall_ms, limit)
    number = sum(count for _, _, count in due)
    if not number:
        return
    for queue, priority, count in due:
        counts = moves.at(queue, priority)
        counts.scheduled -= count
        counts.ready += count
    await tx.rows(PROMOTE, wall_ms, number)
    await tx.rows(UNSCHEDULE, number - 1)
    await ring_queues(tx, {queue for queue, _, _ in due})


class Taking:
    """The taking of leases for one claim."""

    __slots__ = ("_boot", "_leases", "_moves", "_rows", "_tx", "_wall", "_wanted")

    def __init__(self, tx: SqliteTx, clock: Clock, wanted: Wanted, moves: Moves) -> None:
        self._tx = tx
        self._wanted = wanted
        self._moves = moves
        self._wall = clock.wall_ms()
        self._boot = clock.boot_ms()
        self._leases: list[Lease] = []
        self._rows: list[tuple[Any, ...]] = []

    async def take(self) -> list[Lease]:
        """Take up to the wanted number; expired and undecodable jobs end on the way."""
        if self._wanted.number > 0:
            if self._wanted.ids:
                await self._take_ids()
            elif self._wanted.queues:
                await self._take_heads()
        if self._rows:
            await self._tx.each(GIVE, self._rows)
        await self._moves.store_rows(self._tx)
        return self._leases

    async def _take_heads(self) -> None:
        wanted = self._wanted
        opened = await self._tx.rows(OPEN, array(wanted.queues), wanted.kind)
        lanes = (0, 1) if wanted.lane is None else (wanted.lane,)
        sources = [Source(queue, name, lane) for queue, name in opened for lane in lanes]
        while sources and (missing := wanted.number - len(self._leases)) > 0:
            shares = await self._shares(sources, missing)
            if not shares:
                return
            taken = []
            for source, share in shares:
                taken += [(row, source) for row in await self._take_head(source, share)]
            if not taken:
                return  # rows whose job is gone: `diagnose` tells of them
            if len(shares) > 1:
                taken.sort(key=lambda one: one[0][14:17])
            for row, source in taken:
                self._take_row(row, source.queue, source.name)

    async def _shares(self, sources: Sequence[Source], number: int) -> list[tuple[Source, int]]:
        """How many to take of each source, so that together they are the first in line."""
        if len(sources) == 1:
            heads = await self._tx.rows(ORDER, sources[0].queue, sources[0].lane, 1)
            return [(sources[0], number)] if heads else []
        orders = []
        for source in sources:
            rows = await self._tx.rows(ORDER, source.queue, source.lane, number)
            orders += [(order, source) for order in rows]
        shares: dict[Source, int] = {}
        for _, source in sorted(orders)[:number]:
            shares[source] = shares.get(source, 0) + 1
        return list(shares.items())

    async def _take_head(self, source: Source, number: int) -> list[TakenRow]:
        """Take the first rows of one source out of it."""
        rows = await self._tx.rows(HEAD, source.queue, source.lane, number)
        if rows:
            await self._tx.rows(BEHEAD, source.queue, source.lane, *rows[-1][14:17])
        return rows

    async def _take_ids(self) -> None:
        wanted = self._wanted
        rows = await self._tx.rows(PICK, array(wanted.ids), wanted.kind)
        gone = []
        for row in rows:
            if len(self._leases) >= wanted.number:
                break
            if wanted.lane is None or wanted.lane == row[7]:
                queue, name = row[20:]
                gone.append((queue, row[7], row[14], row[15], row[16]))
                self._take_row(row[:20], queue, name)
        await self._tx.each(UNREADY, gone)

    def _take_row(self, row: TakenRow, queue: int, name: str) -> None:
        """Give a lease of one row, or end its job when it cannot run any more."""
        (
            job, token, attempt, task, body, headers, priority, lane, policy, group, enqueued_ms,
            deadline_ms, parked_ms, crashes, _, place, seq, revision, size, key,
        ) = row  # fmt: skip
        counts = self._moves.at(queue, priority)
        counts.ready -= 1
        is_plain = key is None and deadline_ms is None
        if deadline_ms is not None and deadline_ms <= self._wall:
            self._end(row, queue, State.EXPIRED, None)
            return
        try:
            lease = Lease(
                job,
                token,
                attempt,
                name,
                task,
                body,
                headers,
                priority,
                LANES[lane],
                decode_policy(policy),
                group,
                enqueued_ms,
                deadline_ms,
                None if parked_ms is None else max(0, self._wall - parked_ms),
                crashes,
            )
        except (msgspec.MsgspecError, IndexError, TypeError):
            self._end(row, queue, State.FAILED, Reason.UNDECODABLE)
            return
        counts.running += 1
        self._leases.append(lease)
        self._rows.append(
            (
                job,
                token,
                seq,
                queue,
                priority,
                attempt,
                revision + 1,
                size,
                self._wall,
                self._wanted.owner,
                is_plain,
                lane,
                place,
                crashes,
                parked_ms,
                self._boot + self._wanted.lease_ms,
            )
        )

    def _end(self, row: TakenRow, queue: int, state: State, reason: Reason | None) -> None:
        """The job ends unrun."""
        held = Held(
            id=row[0],
            token=row[1] - 1,
            seq=row[16],
            queue=queue,
            priority=row[6],
            attempt=row[2],
            revision=row[17] + 1,
            size=row[18],
            started_ms=None,
            owner=None,
            is_plain=0,
            cancelling=0,
            lane=row[7],
            place=row[15],
            crashes=row[13],
            parked_ms=row[12],
        )
        self._moves.finish(held, state, self._wall, reason=reason)
        self._tx.rings.jobs.append(row[0])
