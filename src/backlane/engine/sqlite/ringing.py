"""Ringing: which queues a plan wants rung, by their numbers."""

from __future__ import annotations

from backlane.engine.plan import Sql
from backlane.engine.sqlite.transaction import SqliteTx

QUEUE_NAMES: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane_queue
    """
)


async def ring_queues(tx: SqliteTx, queues: set[int]) -> None:
    """Note that these queues may have something to claim."""
    names = dict(await tx.rows(QUEUE_NAMES))
    tx.rings.queues |= {names[queue] for queue in queues if queue in names}
