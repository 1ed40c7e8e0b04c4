"""The seal of a store that is being moved: one row of backlane_meta.

An append and a claim learn of it in a statement that they run anyhow.
"""

from __future__ import annotations

import msgspec

from backlane.engine.moving import Seal
from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock

SEALED: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane_meta
    where name = 'seal'
    """
)
SET: Sql[tuple[()]] = Sql(
    """
    insert into backlane_meta (name, value)
    values ('seal', ?)
    on conflict do update
    set value = excluded.value
    """
)
OPEN: Sql[tuple[()]] = Sql(
    """
    delete from backlane_meta
    where name = 'seal'
    """
)
QUEUES: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane_queue
    """
)


async def seal(tx: SqliteTx, clock: Clock, given: Seal | None) -> Seal | None:
    """Seal or open the store; return how it was before."""
    before = await sealed(tx)
    if given is None:
        await tx.rows(OPEN)
    else:
        since_ms = before.since_ms if before else clock.wall_ms()
        kept = msgspec.structs.replace(given, since_ms=since_ms)
        await tx.rows(SET, msgspec.msgpack.encode(kept))
    tx.rings.queues |= {name for (name,) in await tx.rows(QUEUES)}
    return before


async def sealed(tx: SqliteTx) -> Seal | None:
    """Return how the store is sealed."""
    rows = await tx.rows(SEALED)
    return decoded(rows[0][0]) if rows else None


def decoded(stored: bytes) -> Seal:
    """Return a seal from its stored form."""
    return msgspec.msgpack.decode(stored, type=Seal)
