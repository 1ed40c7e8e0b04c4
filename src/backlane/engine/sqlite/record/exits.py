"""Exits: jobs that wait or ended, taken out of the table of their state.

Whoever takes one out puts it somewhere else, or forgets it; its counters go with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits import letting
from backlane.engine.sqlite.record import keeping
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.record.record import BLOCKED, READY, SCHEDULED, Standing
from backlane.engine.sqlite.rows.rows import UNBLOCK
from backlane.engine.sqlite.store.transaction import SqliteTx

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
UNSCHEDULE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_scheduled
    where due_ms = ?
    and seq = ?
    """
)
UNFINISH: Sql[tuple[()]] = Sql(
    """
    delete from backlane_finished
    where seq = ?
    """
)


async def take_out(tx: SqliteTx, moves: Moves, jobs: Sequence[Standing]) -> None:
    """Take jobs that do not run out of where they are."""
    ready, scheduled, blocked, finished = [], [], [], []
    for one in jobs:
        counts = moves.at(one.queue, one.priority)
        if one.code == READY:
            counts.ready -= 1
            ready.append((one.queue, one.lane, one.rank, one.place, one.seq))
            if one.extra is not None:
                moves.leave(one.seq, one.queue, letting.READY)
        elif one.code == SCHEDULED:
            counts.scheduled -= 1
            scheduled.append((one.place, one.seq))
        elif one.code == BLOCKED:
            counts.blocked -= 1
            blocked.append((one.seq,))
            if one.gate is not None:
                moves.leave(one.seq, one.queue, letting.BLOCKED, one.gate)
        else:
            counts.keep(one.state, -1)
            finished.append((one.seq,))
    if finished:
        await keeping.count(tx, [seq for (seq,) in finished], -1)
    for statement, rows in (
        (UNREADY, ready),
        (UNSCHEDULE, scheduled),
        (UNBLOCK, blocked),
        (UNFINISH, finished),
    ):
        if rows:
            await tx.each(statement, rows)
