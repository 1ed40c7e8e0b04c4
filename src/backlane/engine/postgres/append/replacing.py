"""Replacing: jobs that never started take the arguments of those that met their key held."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.text import loaded
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Job

REPLACING = ("replace", "debounce")

HOLD: Sql[tuple[bytes, str, int]] = Sql(
    """
    select job_id, queue_name, job_size
    from backlane.hold_unstarted($1::bytea[])
    """
)
SUPPLANT: Sql[tuple[bytes, str]] = Sql(
    """
    select job_id, queue_name
    from backlane.supplant($1::bigint, $2::bigint, $3::bytea[], $4::bytea[], $5::bytea[],
        $6::bigint[], $7::bigint[], $8::boolean)
    """
)


async def unstarted(tx: PostgresTx, jobs: Collection[bytes]) -> dict[bytes, tuple[str, int]]:
    """Hold those of these jobs that can be replaced; return their queues and sizes."""
    rows = await tx.rows(HOLD, list(jobs))
    return {job: (loaded(queue), size) for job, queue, size in rows}


async def replace(tx: PostgresTx, newcomers: Mapping[bytes, Job], now_ms: int) -> set[bytes]:
    """Let holders of keys take the arguments of newcomers; return those that did."""
    given = newcomers.values()
    rows = await tx.rows(
        SUPPLANT,
        now_ms,
        tx.boot_ms,
        list(newcomers),
        [job.body for job in given],
        [job.headers for job in given],
        [job.delay_ms for job in given],
        [job.rule.most_ms if job.rule.conflict == "debounce" else None for job in given],
        not tx.is_joined,
    )
    replaced = {job for job, _ in rows}
    tx.rings.jobs += replaced
    tx.rings.queues |= {loaded(queue) for _, queue in rows}
    return replaced
