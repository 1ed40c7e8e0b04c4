"""Steps: what a job of several steps did already. Results: of jobs, and the newest of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.recalling import Latest, Resulted
from backlane.engine.sqlite.record.moves import FINAL_STATES, storable
from backlane.engine.sqlite.rows.policy import decode_policy
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.job import Step

# A step that is told again keeps its number. Served by backlane_step_of.
KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane_step (seq, name, result)
    values (?, ?, ?)
    on conflict (seq, name) do update
    set result = excluded.result
    """
)
OF_JOB: Sql[tuple[str, bytes]] = Sql(
    """
    select name, result
    from backlane_step
    where seq = (select seq from backlane_job where id = ?)
    order by number
    """
)
OF_JOBS: Sql[tuple[int, str, bytes]] = Sql(
    """
    select seq, name, result
    from carray(?) as given
    cross join backlane_step as step on step.seq = given.value
    order by number
    """
)
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane_step
    where seq = ?
    """
)
# Served by backlane_job_id; a job that has not ended has a null for its state.
RESULTS: Sql[tuple[bytes, int | None, bytes | None]] = Sql(
    """
    select id, state, result
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    left join backlane_finished as finished on finished.seq = job.seq
    """
)
LATEST: Sql[tuple[bytes, int, bytes]] = Sql(
    """
    select job, ended_ms, result
    from backlane_latest
    where task = ?
    """
)
ALL_LATEST: Sql[tuple[str, bytes, int, bytes]] = Sql(
    """
    select task, job, ended_ms, result
    from backlane_latest
    order by task
    """
)
POLICIES: Sql[tuple[int, bytes]] = Sql(
    """
    select job.seq, policy
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    where extra is not null
    and policy is not null
    """
)
COPY_LATEST: Sql[tuple[()]] = Sql(
    """
    insert into backlane_latest (task, job, ended_ms, result)
    select task, id, ended_ms, result
    from backlane_job as job
    cross join backlane_finished as finished on finished.seq = job.seq
    where job.seq = ?
    and state = 1
    and task is not null
    and result is not null
    on conflict (task) do update
    set job = excluded.job,
        ended_ms = excluded.ended_ms,
        result = excluded.result
    where excluded.job > backlane_latest.job
    """
)
KEEP_LATEST: Sql[tuple[()]] = Sql(
    """
    insert into backlane_latest (task, job, ended_ms, result)
    values (?, ?, ?, ?)
    on conflict (task) do update
    set job = excluded.job,
        ended_ms = excluded.ended_ms,
        result = excluded.result
    where excluded.job > backlane_latest.job
    """
)


async def keep(tx: SqliteTx, seq: int, steps: Sequence[Step]) -> None:
    """Keep steps of a job; one of a name that is there replaces it."""
    await tx.each(KEEP, [(seq, storable(step.name), step.result) for step in steps])


async def recall(tx: SqliteTx, job: bytes) -> list[Step]:
    """Return the steps of a job in the order of their first note."""
    return [Step(name, result) for name, result in await tx.rows(OF_JOB, job)]


async def recall_all(tx: SqliteTx, seqs: Sequence[int]) -> dict[int, tuple[Step, ...]]:
    """Return the steps of those of these jobs that have some."""
    steps: dict[int, tuple[Step, ...]] = {}
    for seq, name, result in await tx.rows(OF_JOBS, integers(seqs)):
        steps[seq] = (*steps.get(seq, ()), Step(name, result))
    return steps


async def results(tx: SqliteTx, jobs: Sequence[bytes]) -> list[Resulted]:
    """Return what those of these jobs that are stored resulted in."""
    if not jobs:
        return []
    rows = await tx.rows(RESULTS, array(list(dict.fromkeys(jobs))))
    return [Resulted(job, FINAL_STATES.get(code or 0), result) for job, code, result in rows]


async def latest(tx: SqliteTx, task: str) -> Latest | None:
    """Return the newest result of a task whose policy keeps it."""
    rows = await tx.rows(LATEST, task)
    return Latest(*rows[0]) if rows else None


async def all_latest(tx: SqliteTx) -> dict[str, Latest]:
    """Return the newest results by task."""
    return {row[0]: Latest(*row[1:]) for row in await tx.rows(ALL_LATEST)}


async def keep_latest(tx: SqliteTx, results: Mapping[str, Latest]) -> None:
    """Keep the newest results that another store had, where they are newer."""
    rows = [(task, one.job, one.ended_ms, one.result) for task, one in results.items()]
    await tx.each(KEEP_LATEST, rows)


async def copy_latest(tx: SqliteTx, seqs: Sequence[int]) -> None:
    """Copy the results of those of these ended jobs that succeeded and whose policy says so."""
    found = await tx.rows(POLICIES, integers(seqs))
    keeping = [(seq,) for seq, policy in found if _keeps_latest(policy)]
    if keeping:
        await tx.each(COPY_LATEST, keeping)


def _keeps_latest(policy: bytes) -> bool:
    try:
        return decode_policy(policy).keeps_latest
    except msgspec.MsgspecError:  # a damaged row must not stop the rows beside it
        return False
