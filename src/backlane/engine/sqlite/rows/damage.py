"""Damage: rows of which a text cannot be read must not stop the rows behind them."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.sqlite.rows.group import recount
from backlane.engine.sqlite.rows.head import ORDER
from backlane.engine.sqlite.store.transaction import SqliteTx, array

WHERE: Sql[tuple[int, int]] = Sql(
    """
    select queue, seq
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    """
)
TEXTS: Sql[tuple[str | None, str | None, str | None, str | None]] = Sql(
    """
    select task, group_name, key_scope, key_name
    from backlane_job
    where seq = ?
    """
)
SPOIL: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set task = '(damaged)',
        group_name = null,
        key_scope = null,
        key_name = null,
        policy = x'00'
    where seq = ?
    """
)
# A scan, for the key is what cannot be read; it runs for a damaged row only.
FREE_KEY_OF: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where seq = ?
    """
)


async def spoil(tx: SqliteTx, queue: int, lane: int, number: int) -> None:
    """Make jobs whose text is damaged readable, and undecodable."""
    for _, _, seq in await tx.rows(ORDER, queue, lane, number):
        await _spoil(tx, queue, seq)


async def spoil_jobs(tx: SqliteTx, ids: Sequence[bytes]) -> None:
    """Like `spoil`, for very jobs."""
    for queue, seq in await tx.rows(WHERE, array(ids)):
        await _spoil(tx, queue, seq)


async def _spoil(tx: SqliteTx, queue: int, seq: int) -> None:
    try:
        await tx.rows(TEXTS, seq)
    except UnicodeDecodeError:
        await tx.rows(FREE_KEY_OF, seq)
        await tx.rows(SPOIL, seq)
        await recount(tx, queue)
