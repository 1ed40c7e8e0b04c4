"""Idempotency: which request a key of a caller stood for, whatever became of its job."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.admission import Repeat, Repeats
from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.job import Idempotency

KNOWN: Sql[tuple[str, str, bytes, bytes, int]] = Sql(
    """
    select scope, name, id, print, until_ms
    from backlane_idempotency
    where scope = ?
    and name = ?
    and until_ms > ?
    """
)
# One whose time is over, and that no sweep has met yet, gives way.
KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane_idempotency (scope, name, id, print, until_ms)
    values (?, ?, ?, ?, ?)
    on conflict do update
    set id = excluded.id,
        print = excluded.print,
        until_ms = excluded.until_ms
    """
)
# Served by backlane_idempotency_until.
PAST: Sql[tuple[str, str]] = Sql(
    """
    select scope, name
    from backlane_idempotency
    where until_ms <= ?
    order by until_ms
    limit ?
    """
)
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane_idempotency
    where scope = ?
    and name = ?
    """
)


async def read_repeats(tx: SqliteTx, asked: Sequence[Idempotency], now_ms: int) -> Repeats:
    """Return what is known of these keys."""
    rows = await tx.each(KNOWN, [(one.scope, one.name, now_ms) for one in asked])
    return {(row[0], row[1]): Repeat(*row[2:]) for row in rows}


async def keep_repeats(tx: SqliteTx, repeats: Repeats) -> None:
    """Remember what these keys stand for."""
    await tx.each(KEEP, [(*name, *one) for name, one in repeats.items()])


async def forget_repeats(tx: SqliteTx, now_ms: int, limit: int) -> int:
    """Forget keys whose time is over, the oldest first; return how many."""
    past = await tx.rows(PAST, now_ms, max(0, limit))
    if past:
        await tx.each(FORGET, past)
    return len(past)
