"""Ringing: which queues a plan wants rung, by their numbers."""

from __future__ import annotations

from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx, integers

QUEUE_NAMES: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane_queue
    """
)
LIMITED: Sql[tuple[str]] = Sql(
    """
    select name
    from carray(?) as given
    cross join backlane_queue as line on line.id = given.value
    where exists (select 1 from backlane_limit as bound where bound.name = 'queue:' || line.name)
    """
)


async def ring_queues(tx: SqliteTx, queues: set[int]) -> None:
    """Note that these queues may have something to claim."""
    names = dict(await tx.rows(QUEUE_NAMES))
    tx.rings.queues |= {names[queue] for queue in queues if queue in names}


async def ring_limited(tx: SqliteTx, queues: set[int]) -> None:
    """Note that these queues may have something to claim, if they have a limit of their own."""
    tx.rings.queues |= {name for (name,) in await tx.rows(LIMITED, integers(list(queues)))}
