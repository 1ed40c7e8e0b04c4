"""Forget: what is kept of jobs beside the tables of their states."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.transaction import PostgresTx

# Also of jobs that ended, and before their window is over.
FORGET_KEYS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.unique_key
    using backlane.job
    where job.seq = any ($1::bigint[])
    and job.key_name is not null
    and unique_key.digest = backlane.digest(job.key_scope, job.key_name)
    and unique_key.seq = job.seq
    """
)
FORGET_PROGRESS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.progress
    where seq = any ($1::bigint[])
    """
)
FORGET_ERRORS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.attempt_error
    where seq = any ($1::bigint[])
    """
)
FORGET_STEPS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.step
    where seq = any ($1::bigint[])
    """
)
FORGET_TAGS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.tag
    where seq = any ($1::bigint[])
    """
)
FORGET_JOBS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.job
    where seq = any ($1::bigint[])
    """
)


async def forget(tx: PostgresTx, seqs: Sequence[int]) -> None:
    """Delete what is kept of jobs beside the table of their state."""
    for statement in (
        *(FORGET_KEYS, FORGET_JOBS, FORGET_ERRORS, FORGET_PROGRESS, FORGET_STEPS),
        FORGET_TAGS,
    ):
        await tx.rows(statement, seqs)
