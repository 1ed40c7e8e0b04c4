"""Sweep: mend what lapsed, end what expired, age what waits, prune what is old."""

from __future__ import annotations

from backlane.engine.postgres.transaction import PostgresTx
from backlane.engine.protocol import Retention, Swept


async def sweep(tx: PostgresTx, limit: int, retention: Retention) -> Swept:
    """Do one bounded round; `more` says that it stopped at its limit."""
    return Swept()
