"""Claim: bring what is due or lapsed into ready, then give leases from its head.

A claim reads one row to know whether anything is due, lapsed or to be cancelled;
only then it looks. The lapse of leases is found by a lower bound of the earliest one
(`lapse_ms`), so that a turn costs the same with two leases held or two thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.protocol import Claimed, Wanted
from backlane.engine.sqlite.bells.ringing import ring_queues
from backlane.engine.sqlite.lease.settle import HeldRow, lapse
from backlane.engine.sqlite.lease.take import Taking
from backlane.engine.sqlite.lease.wake import Waking
from backlane.engine.sqlite.limits import limits, resource
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.record.record import records_of
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.job import JobRecord

OPEN_GATES, OWN_LIMITS = 2, 4  # in the status: what there is of them at all

MOVES = 1_000  # rows a claim brings into ready at most, so that a claim stays short

STATUS: Sql[tuple[int | None, int | None, int, int, int, int, int, int | None]] = Sql(
    """
    select (
            select value
            from backlane_meta
            where name = 'lapse_ms'
            and exists (select 1 from backlane_lease)
        ),
        (select due_ms from backlane_scheduled order by due_ms limit 1),
        exists (select 1 from backlane_lease where owner = ? and cancelling = 1),
        exists (select 1 from backlane_resource),
        exists (select 1 from backlane_resource where state <> 'closed'),
        exists (select 1 from backlane_meta where name = 'seal'),
        case
            when exists (select 1 from backlane_gate) or exists (select 1 from backlane_limit)
            then 1
                + 2 * exists (select 1 from backlane_gate_queue where open_ms is not null)
                + 4 * exists (
                    select 1
                    from backlane_limit
                    where name > 'queue:'
                    and name < 'queue;'
                )
            else 0
        end,
        (select until_ms from backlane_acquired order by until_ms limit 1)
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
DUE: Sql[tuple[int, int, int, int]] = Sql(
    """
    select due.queue, priority, is_plain and not is_fair, count(*)
    from (
        select queue, priority, is_plain
        from backlane_scheduled
        where due_ms <= ?
        order by due_ms, seq
        limit ?
    ) as due
    cross join backlane_queue as line on line.id = due.queue
    group by due.queue, priority, is_plain and not is_fair
    """
)
DUE_JOBS: Sql[HeldRow] = Sql(
    """
    select job.id, token, due.seq, due.queue, due.priority, attempt, revision + 1, due.size,
        started_ms, owner, is_plain and not is_fair, 0, due.lane, due.due_ms, crashes, parked_ms
    from (
        select *
        from backlane_scheduled
        where due_ms <= ?
        order by due_ms, seq
        limit ?
    ) as due
    cross join backlane_job as job on job.seq = due.seq
    cross join backlane_queue as line on line.id = due.queue
    order by due.due_ms, due.seq
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


class Begun(NamedTuple):
    """What a claim found, and did, before it takes jobs."""

    status: tuple[int | None, int | None, int, int, int, int, int, int | None]
    is_moved: bool  # jobs came into ready
    buried: list[JobRecord]
    waking: Waking | None  # None: no job is under a limit

    @property
    def has_resources(self) -> bool:
        return bool(self.status[3])

    @property
    def is_sealed(self) -> bool:
        return bool(self.status[5])


async def begin(
    tx: SqliteTx, clock: Clock, owner: str, departed: Sequence[str], moves: Moves
) -> Begun:
    """Bring into ready what is due or has lapsed; who waits for limits is to be woken yet."""
    status = (await tx.rows(STATUS, owner))[0]
    earliest, due, _, _, _, is_sealed, limited, place = status
    has_lapsed = earliest is not None and earliest <= clock.boot_ms()
    buried: list[JobRecord] = []
    is_moved = has_lapsed or bool(departed) or (due is not None and due <= clock.wall_ms())
    if is_moved:
        buried = await _bring_in(tx, clock, departed, moves)
    if place is not None and place <= clock.boot_ms():
        await limits.free_lapsed(tx, clock)
        is_moved = True
    waking = None
    if (limited or is_moved) and not is_sealed:
        has_open, has_own = bool(limited & OPEN_GATES), bool(limited & OWN_LIMITS)
        waking = Waking(tx, clock, moves, has_open=has_open or is_moved, has_own=has_own)
    return Begun(status, is_moved, buried, waking)


async def claim(tx: SqliteTx, clock: Clock, wanted: Wanted, moves: Moves) -> Claimed:
    """Give leases; the counters are still to be stored by the caller."""
    begun = await begin(tx, clock, wanted.owner, wanted.departed, moves)
    earliest, _, is_flagged, *_ = begun.status
    waking = begun.waking
    if waking is not None:
        await waking.wake(wanted)
    rooms = resource.Rooms(clock.wall_ms(), has_any=begun.has_resources)
    taking = Taking(tx, clock, wanted, moves, rooms, waking)
    leases = [] if begun.is_sealed else await taking.take()
    turned = await rooms.store(tx)
    if leases:
        until = clock.boot_ms() + wanted.lease_ms
        if begun.is_moved or earliest is None or until < earliest:
            await tx.rows(LOWER_EARLIEST, until)
    cancelled = [job for (job,) in await tx.rows(FLAGGED, wanted.owner)] if is_flagged else []
    if waking is not None:
        await waking.store()
        if waking.ready > len(leases):
            tx.rings.queues |= set(wanted.queues)  # there is work for others too
    due_ms = await next_due_ms(tx, clock, wanted.owner, begun, len(leases))
    return Claimed(leases, cancelled, due_ms, begun.buried, turned)


async def next_due_ms(
    tx: SqliteTx, clock: Clock, owner: str, begun: Begun, leased: int
) -> int | None:
    """Return when there may be more to take."""
    is_same = not begun.is_moved and not leased
    status = begun.status if is_same else (await tx.rows(STATUS, owner))[0]
    earliest, due, _, _, is_held_back, *_ = status
    next_trial_ms = await resource.next_trial_ms(tx, clock) if is_held_back else None
    next_token_ms = await begun.waking.next_token_ms() if begun.waking else None
    return _next_due_ms(clock, earliest, due, (next_trial_ms, next_token_ms))


def _next_due_ms(
    clock: Clock, earliest: int | None, due: int | None, others: Sequence[int | None]
) -> int | None:
    waits = [wait_ms for wait_ms in others if wait_ms is not None]
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
    number = sum(count for *_, count in due)
    if not number:
        return
    are_plain = all(is_plain for _, _, is_plain, _ in due)
    for queue, priority, _, count in due:
        counts = moves.at(queue, priority)
        counts.scheduled -= count
        counts.ready += count if are_plain else 0
    if are_plain:
        await tx.rows(PROMOTE, wall_ms, number)
    else:
        for row in await tx.rows(DUE_JOBS, wall_ms, number):
            moves.stand_in_line(Held._make(row))
    await tx.rows(UNSCHEDULE, number - 1)
    await moves.store_rows(tx)
    await ring_queues(tx, {queue for queue, *_ in due})
