"""Taking: rows of jobs are locked where they are, before people change them.

Between the look at a job and the lock on its row a worker may have taken or settled it,
or a sweep have moved it: then the row is not where it was, and the job has to be looked
at again. Nothing is skipped because somebody else is at it: we wait for whoever is.
"""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.limits.limits import GIVE_UP, OPEN_GATES
from backlane.engine.postgres.record.moves import (
    FORGET_DEADLINES,
    FORGET_EDGES,
    FREE_KEYS,
    UNBLOCK,
    UNBURY,
    UNFINISH,
    UNREADY,
    UNSCHEDULE,
    Moves,
    Placed,
    many,
)
from backlane.engine.postgres.record.record import (
    BLOCKED,
    FAILED,
    READY,
    RUNNING,
    SCHEDULED,
    Standing,
)
from backlane.engine.postgres.store.text import loaded
from backlane.engine.postgres.store.transaction import PostgresTx

# Each is one step into a key for each job, in the order given.
HOLD_READY: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::int[], $2::int[], $3::smallint[], $4::bigint[], $5::bigint[], $6::int[])
        as given (queue, lane, rank, place, seq, revision)
    cross join lateral (
        select seq
        from backlane.ready
        where ready.queue = given.queue
        and ready.lane = given.lane
        and ready.rank = given.rank
        and ready.place = given.place
        and ready.seq = given.seq
        and ready.revision = given.revision
        for update
    ) as held
    """
)
HOLD_SCHEDULED: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::bigint[], $2::bigint[], $3::int[]) as given (due_ms, seq, revision)
    cross join lateral (
        select seq
        from backlane.scheduled
        where scheduled.due_ms = given.due_ms
        and scheduled.seq = given.seq
        and scheduled.revision = given.revision
        for update
    ) as held
    """
)
# In order of seq, as those go who follow edges.
HOLD_BLOCKED: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::bigint[], $2::int[], $3::int[]) as given (seq, revision, waits_for)
    cross join lateral (
        select seq
        from backlane.blocked
        where blocked.seq = given.seq
        and blocked.revision = given.revision
        and blocked.waits_for = given.waits_for
        for update
    ) as held
    """
)
HOLD_LEASED: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::bytea[], $2::bigint[]) as given (id, token)
    cross join lateral (
        select seq
        from backlane.lease
        where lease.id = given.id
        and lease.token = given.token
        for update
    ) as held
    """
)
HOLD_FAILED: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::bigint[]) as given (seq)
    cross join lateral (
        select seq
        from backlane.failed
        where failed.seq = given.seq
        for update
    ) as held
    """
)
HOLD_FINISHED: Sql[tuple[int]] = Sql(
    """
    select held.seq
    from unnest($1::bigint[]) as given (seq)
    cross join lateral (
        select seq
        from backlane.finished
        where finished.seq = given.seq
        for update
    ) as held
    """
)


async def hold(tx: PostgresTx, found: Sequence[Standing]) -> set[int]:
    """Lock the rows of these jobs; return the seq of those that are still where they were."""
    held: set[int] = set()
    ready = [
        (one.queue, one.lane, one.rank, one.place, one.seq, one.revision)
        for one in found
        if one.code == READY
    ]
    scheduled = [(one.place, one.seq, one.revision) for one in found if one.code == SCHEDULED]
    blocked = sorted((one.seq, one.revision, one.waits_for) for one in found if one.code == BLOCKED)
    leased = [(one.id, one.token) for one in found if one.code == RUNNING]
    failed = [(one.seq,) for one in found if one.code == FAILED]
    finished = [(one.seq,) for one in found if one.code and one.code < RUNNING]
    finished = [row for row in finished if row not in failed] if failed else finished
    for statement, rows in (
        (HOLD_READY, ready),
        (HOLD_SCHEDULED, scheduled),
        (HOLD_BLOCKED, blocked),
        (HOLD_LEASED, leased),
        (HOLD_FAILED, failed),
        (HOLD_FINISHED, finished),
    ):
        if rows:
            columns = (list(column) for column in zip(*rows, strict=True))
            held |= {seq for (seq,) in await tx.rows(statement, *columns)}
    return held


async def take_out(tx: PostgresTx, found: Sequence[Standing], moves: Moves) -> None:
    """Take jobs whose rows we hold out of the tables of their states; none of them runs."""
    ready, scheduled = [], []
    blocked: list[tuple[int]] = []
    failed: list[tuple[int]] = []
    finished: list[tuple[int]] = []
    for one in found:
        counts = moves.at(one.queue, one.priority)
        if one.code == READY:
            counts.ready -= 1
            ready.append((one.queue, one.lane, one.rank, one.place, one.seq))
        elif one.code == SCHEDULED:
            counts.scheduled -= 1
            scheduled.append((one.place, one.seq))
        elif one.code == BLOCKED:
            counts.blocked -= 1
            blocked.append((one.seq,))
        else:
            if one.keep_ms is None:
                counts.keep(one.state, -1)
            (failed if one.code == FAILED else finished).append((one.seq,))
    await many(tx, UNREADY, ready)
    gated = [one.seq for one in found if one.code == READY and one.extra is not None]
    if gated:
        await tx.rows(OPEN_GATES, gated)
    await many(tx, UNSCHEDULE, scheduled)
    await many(tx, UNBLOCK, blocked)
    await many(tx, UNBURY, failed)
    await many(tx, UNFINISH, finished)


async def let_go(tx: PostgresTx, found: Sequence[Standing], moves: Moves) -> None:
    """Free what jobs that waited held beside their places: keys, deadlines, groups, turns,
    and what they waited for."""
    for one in found:
        moves.at(one.queue, one.priority).bytes -= one.size
        moves.gather(one.queue, one.group, -1)
    keyed = [one for one in found if one.key_name is not None]
    await many(tx, FREE_KEYS, [(one.key_scope, one.key_name, one.seq) for one in keyed])
    await tx.rows(FORGET_EDGES, [one.seq for one in found])
    gated = [one.seq for one in found if one.extra is not None]
    if gated:
        tx.rings.queues |= {loaded(name) for (name,) in await tx.rows(GIVE_UP, gated)}
    ending = [one for one in found if one.deadline_ms is not None]
    await many(tx, FORGET_DEADLINES, [(one.deadline_ms, one.seq) for one in ending])


def wait_on(moves: Moves, one: Standing, then: Placed) -> None:
    """Let a job wait as it did, for what it did."""
    if one.code == BLOCKED:
        moves.block(then, waits_for=one.waits_for or 0, gate=one.gate, limit_no=one.limit_no)
    else:
        moves.wait(then, is_due=one.code == READY)


def placed(one: Standing) -> Placed:
    """Return the same job as one that waits where it did, one revision later."""
    return Placed(
        seq=one.seq,
        queue=one.queue,
        lane=one.lane,
        place=one.place,
        priority=one.priority,
        attempt=one.attempt,
        token=one.token,
        revision=one.revision + 1,
        crashes=one.crashes,
        parked_ms=one.parked_ms,
        size=one.size,
        started_ms=one.started_ms,
        owner=one.owner,
    )
