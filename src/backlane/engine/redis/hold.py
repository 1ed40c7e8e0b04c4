"""Extend and note: what is done about a lease while its job runs."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.protocol import Extended
from backlane.engine.redis.script import Script
from backlane.engine.redis.sheet import encode, raw
from backlane.engine.redis.transaction import RedisTx
from backlane.model.job import Note

EXTEND = Script("extend", "model", "moves")
NOTE = Script("note", "model", "moves", "bells")


async def extend(tx: RedisTx, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
    """See `Verbs.extend`."""
    if not leases:
        return Extended()
    _, lost, cancelled = await tx.call(EXTEND, by_ms, [(raw(job), token) for job, token in leases])
    return Extended(lost, cancelled)


async def note(tx: RedisTx, notes: Sequence[Note]) -> list[bytes]:
    """See `Verbs.note`."""
    if not notes:
        return []
    _, lost = await tx.call(
        NOTE, [(raw(it.job), it.token, raw(encode(it.progress))) for it in notes]
    )
    found: list[bytes] = lost
    return found
