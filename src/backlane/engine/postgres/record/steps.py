"""Steps: what a job of several steps did already. Results: of jobs, and the newest of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.record.record import STATES
from backlane.engine.postgres.store.text import loaded, stored
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.recalling import Latest, Resulted
from backlane.model.job import Step

# Served by step_name.
OF_JOB: Sql[tuple[str, bytes]] = Sql(
    """
    select name, result
    from backlane.step
    where seq = (select seq from backlane.job where id = $1::bytea)
    order by number
    """
)
OF_JOBS: Sql[tuple[int, str, bytes]] = Sql(
    """
    select seq, name, result
    from backlane.step
    where seq = any ($1::bigint[])
    order by number
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane.step (seq, name, result)
    select seq, name, result
    from unnest($1::bigint[], $2::text[], $3::bytea[])
        with ordinality as given (seq, name, result, at)
    order by at
    """
)
# Served by job_id, and a key of what ended.
RESULTS: Sql[tuple[bytes, int | None, bytes | None]] = Sql(
    """
    select job.id, ended.state, ended.result
    from unnest($1::bytea[]) as given (id)
    cross join lateral (
        select seq, id
        from backlane.job
        where job.id = given.id
        offset 0
    ) as job
    left join lateral (
        select state, result
        from backlane.ended
        where ended.seq = job.seq
        limit 1
    ) as ended on true
    """
)
LATEST: Sql[tuple[bytes, int, bytes]] = Sql(
    """
    select job, ended_ms, result
    from backlane.latest
    where task = $1::text
    """
)
ALL_LATEST: Sql[tuple[str, bytes, int, bytes]] = Sql(
    """
    select task, job, ended_ms, result
    from backlane.latest
    order by task
    """
)
KEEP_LATEST: Sql[tuple[()]] = Sql(
    """
    insert into backlane.latest (task, job, ended_ms, result)
    select *
    from unnest($1::text[], $2::bytea[], $3::bigint[], $4::bytea[])
    order by 1
    on conflict (task) do update
    set job = excluded.job,
        ended_ms = excluded.ended_ms,
        result = excluded.result
    where excluded.job > latest.job
    """
)


async def recall(tx: PostgresTx, job: bytes) -> list[Step]:
    """Return the steps of a job in the order of their first note."""
    return [Step(loaded(name), result) for name, result in await tx.rows(OF_JOB, job)]


async def recall_all(tx: PostgresTx, seqs: Sequence[int]) -> dict[int, tuple[Step, ...]]:
    """Return the steps of those of these jobs that have some."""
    steps: dict[int, tuple[Step, ...]] = {}
    for seq, name, result in await tx.rows(OF_JOBS, seqs):
        steps[seq] = (*steps.get(seq, ()), Step(loaded(name), result))
    return steps


async def results(tx: PostgresTx, jobs: Sequence[bytes]) -> list[Resulted]:
    """Return what those of these jobs that are stored resulted in."""
    rows = await tx.rows(RESULTS, list(dict.fromkeys(jobs))) if jobs else []
    return [
        Resulted(job, None if code is None else STATES[code], result) for job, code, result in rows
    ]


async def latest(tx: PostgresTx, task: str) -> Latest | None:
    """Return the newest result of a task whose policy keeps it."""
    rows = await tx.rows(LATEST, stored(task))
    return Latest(*rows[0]) if rows else None


async def latest_of_all(tx: PostgresTx) -> dict[str, Latest]:
    """Return the newest results by task."""
    rows = await tx.rows(ALL_LATEST)
    return {loaded(task): Latest(job, ended_ms, result) for task, job, ended_ms, result in rows}


async def keep_latest(tx: PostgresTx, results: Mapping[str, Latest]) -> None:
    """Keep results of another store, where there are no newer ones."""
    found = results.values()
    await tx.rows(
        KEEP_LATEST,
        [stored(task) for task in results],
        [one.job for one in found],
        [one.ended_ms for one in found],
        [one.result for one in found],
    )
