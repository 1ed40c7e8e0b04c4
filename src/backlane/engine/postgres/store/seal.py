"""The seal of a store that is being moved: a row of `meta`.

A dump must miss no job, though numbers are taken before the commit, so a seal waits until
nobody is in the middle of putting one in or taking one out: it takes what appends were
granted (which waits for who spends it), the locks of their queues, and the tables where
jobs come and go. Who comes later looks at the seal after that, and sees it.
"""

from __future__ import annotations

import msgspec

from backlane.engine.moving import Seal
from backlane.engine.plan import Sql
from backlane.engine.postgres.store.lock import LOCK
from backlane.engine.postgres.store.transaction import PostgresTx

SEALED: Sql[tuple[bytes | None, int]] = Sql(
    """
    select value, coalesce($1::bigint, backlane.now_ms())
    from backlane.meta
    where name = 'seal'
    """
)
# A caller's transaction may be open for long, or about to append once more and wait for us:
# everybody else would wait behind us for it. Who seals comes again.
NOT_FOR_LONG: Sql[tuple[str]] = Sql("select set_config('lock_timeout', '300ms', true)")
QUEUES: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane.queue
    """
)
TAKE_BACK_ALL: Sql[tuple[()]] = Sql(
    """
    delete from backlane.credit
    """
)
LOCK_OUT: Sql[tuple[()]] = Sql(
    """
    lock table backlane.job, backlane.ready in share row exclusive mode
    """
)
# Who changes jobs holds this until the end, so that no seal comes in between.
LOCK_IN: Sql[tuple[()]] = Sql(
    """
    lock table backlane.job, backlane.ready in row exclusive mode
    """
)
SET: Sql[tuple[()]] = Sql(
    """
    update backlane.meta
    set value = $1::bytea
    where name = 'seal'
    """
)


async def seal(tx: PostgresTx, given: Seal | None) -> Seal | None:
    """Seal or open the store; return how it was before."""
    await tx.rows(NOT_FOR_LONG)
    queues = [name for (name,) in await tx.rows(QUEUES)]
    if given is not None:
        await tx.rows(LOCK, queues)
        await tx.rows(TAKE_BACK_ALL)
    await tx.rows(LOCK_OUT)
    stored, now = (await tx.rows(SEALED, tx.wall_ms))[0]
    before = decoded(stored) if stored else None
    if given is not None:
        given = msgspec.structs.replace(given, since_ms=before.since_ms if before else now)
    await tx.rows(SET, msgspec.json.encode(given) if given else None)
    tx.rings.queues |= set(queues)
    return before


async def sealed(tx: PostgresTx) -> Seal | None:
    """Return how the store is sealed."""
    stored = (await tx.rows(SEALED, None))[0][0]
    return decoded(stored) if stored else None


async def sealed_for_changes(tx: PostgresTx) -> tuple[Seal | None, int]:
    """Like `sealed`, and so it stays until the end of this transaction; and the time."""
    await tx.rows(LOCK_IN)
    stored, now = (await tx.rows(SEALED, tx.wall_ms))[0]
    return decoded(stored) if stored else None, now


def decoded(stored: bytes) -> Seal:
    """Return a seal from its stored form."""
    return msgspec.json.decode(stored, type=Seal)
