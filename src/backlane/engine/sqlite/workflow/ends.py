"""Ends: what else is done once jobs have ended, and for those who waited for them."""

from __future__ import annotations

from backlane.engine.sqlite.record import keeping, steps
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.engine.sqlite.workflow import edges


async def follow(tx: SqliteTx, now_ms: int, moves: Moves) -> None:
    """See to all that has ended in these moves, and to what ends by it.

    One after the other, not one within the other: a chain may be of any length.
    """
    while moves.ended:
        ended, moves.ended = moves.ended, []
        special, moves.special = moves.special, []
        if special:
            await edges.drop(tx, special)
            await keeping.count(tx, special, 1)
            await steps.copy_latest(tx, special)
        await edges.follow(tx, now_ms, moves, ended)
