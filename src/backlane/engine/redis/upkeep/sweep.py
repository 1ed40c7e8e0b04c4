"""Sweep: mends what lapsed, ends what expired, ages what waits, prunes what is old."""

from __future__ import annotations

from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.retention import Retention, Swept

SWEEP = Script("sweep", "model", "moves", "bells", "changes", "audit", "schedules")


async def sweep(tx: RedisTx, limit: int, retention: Retention) -> Swept:
    """Do up to about `limit` rows of it."""
    answer = await tx.call(
        SWEEP,
        limit,
        retention.done_ms,
        retention.done_jobs,
        retention.failed_ms,
        retention.failed_jobs,
        retention.least_ms,
    )
    _, lapsed, buried, expired, aged, pruned, is_more = answer
    return Swept(lapsed, buried, expired, aged, pruned, bool(is_more))
