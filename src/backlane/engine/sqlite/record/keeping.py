"""Keeping: jobs whose policy says for how long their record stays once they have ended.

They are none of those that retention counts: how many of them a queue's history holds is
counted beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx, integers

KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane_keep (seq, keep_ms)
    values (?, ?)
    """
)
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane_keep
    where seq = ?
    """
)
ENDED: Sql[tuple[int, int, int]] = Sql(
    """
    select queue, state = 2, count(*)
    from carray(?) as given
    cross join backlane_keep as keep on keep.seq = given.value
    cross join backlane_finished as finished on finished.seq = keep.seq
    group by queue, state = 2
    """
)
COUNT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_keep_count (queue, is_failed, jobs)
    values (?, ?, ?)
    on conflict do update
    set jobs = jobs + excluded.jobs
    """
)
COUNTS: Sql[tuple[int, int, int]] = Sql(
    """
    select queue, is_failed, jobs
    from backlane_keep_count
    """
)


async def count(tx: SqliteTx, seqs: Sequence[int], by: int) -> None:
    """Count those of these finished jobs that came to the history, or leave it (by -1)."""
    rows = await tx.rows(ENDED, integers(seqs))
    if rows:
        await tx.each(COUNT, [(queue, failed, by * jobs) for queue, failed, jobs in rows])


async def counts(tx: SqliteTx) -> dict[tuple[int, bool], int]:
    """Return how many of them the history holds, by queue and whether they failed."""
    return {(queue, bool(failed)): jobs for queue, failed, jobs in await tx.rows(COUNTS)}
