"""Latest: the newest result of a task, as settle copied it."""

from __future__ import annotations

from backlane.engine.recalling import Latest
from backlane.engine.redis.script import Script
from backlane.engine.redis.transaction import RedisTx

LATEST = Script("latest", "model")


async def latest(tx: RedisTx, task: str) -> Latest | None:
    """See `Recalling.latest`."""
    _, kept = await tx.call(LATEST, task)
    return None if kept is None else Latest(*kept)
