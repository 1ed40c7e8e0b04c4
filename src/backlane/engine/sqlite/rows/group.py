"""Groups: how many jobs not finished each has in a queue, for its share of the places.

Counted in the transaction that changes the jobs; a group that has none has no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx, integers

HELD: Sql[tuple[int, str, int]] = Sql(
    """
    select queue, name, jobs
    from backlane_group
    where queue = ?
    and name = ?
    """
)
JOIN: Sql[tuple[()]] = Sql(
    """
    insert into backlane_group (queue, name, jobs)
    values (?, ?, ?)
    on conflict do update
    set jobs = jobs + excluded.jobs
    """
)
# The names stay within SQL: one that is damaged must not stop the jobs beside it. What is
# scanned is as long as the list of groups of these jobs.
LEAVE: Sql[tuple[()]] = Sql(
    """
    update backlane_group as held
    set jobs = held.jobs - gone.jobs
    from (
        select queue, group_name, count(*) as jobs
        from carray(?) as given
        cross join backlane_job as job on job.seq = given.value
        where group_name is not null
        group by queue, group_name
    ) as gone
    where held.queue = gone.queue
    and held.name = gone.group_name
    """
)
DROP: Sql[tuple[()]] = Sql(
    """
    delete from backlane_group
    where (queue, name) in (
        select queue, group_name
        from carray(?) as given
        cross join backlane_job as job on job.seq = given.value
        where group_name is not null
    )
    and jobs <= 0
    """
)
# These two count the groups of a queue anew: they run when a name was found damaged.
FORGET_ALL: Sql[tuple[()]] = Sql(
    """
    delete from backlane_group
    where queue = ?
    """
)
RECOUNT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_group (queue, name, jobs)
    select job.queue, group_name, count(*)
    from (
        select seq from backlane_ready where queue = ?1
        union all
        select seq from backlane_scheduled where queue = ?1
        union all
        select seq from backlane_blocked where queue = ?1
        union all
        select seq from backlane_lease where queue = ?1
    ) as held
    cross join backlane_job as job on job.seq = held.seq
    where group_name is not null
    group by job.queue, group_name
    """
)


async def join(tx: SqliteTx, groups: Mapping[tuple[int, str], int]) -> None:
    """Count jobs that came, by queue and group."""
    await tx.each(JOIN, [(queue, name, jobs) for (queue, name), jobs in groups.items()])


async def leave(tx: SqliteTx, seqs: Sequence[int]) -> None:
    """Count these jobs as gone, those of them that have a group."""
    gone = integers(seqs)
    await tx.rows(LEAVE, gone)
    await tx.rows(DROP, gone)


async def recount(tx: SqliteTx, queue: int) -> None:
    """Count the groups of a queue by its jobs."""
    await tx.rows(FORGET_ALL, queue)
    await tx.rows(RECOUNT, queue)
