"""Extend, note and recall: what is done about a job while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.protocol import Extended
from backlane.engine.redis.record.sheet import encode, raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.model.job import Note, Step

EXTEND = Script("extend", "model", "moves")
NOTE = Script("note", "model", "moves", "bells")
RECALL = Script("recall", "model")


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
    _, lost = await tx.call(NOTE, [_packed(it) for it in notes])
    found: list[bytes] = lost
    return found


def _packed(note: Note) -> tuple[Any, ...]:
    progress = False if note.progress is None else raw(encode(note.progress))
    return raw(note.job), note.token, progress, packed_steps(note.steps) or False


async def recall(tx: RedisTx, job: bytes) -> list[Step]:
    """See `Recalling.recall`."""
    _, told = await tx.call(RECALL, raw(job))
    return read_steps(told)


def read_steps(told: Sequence[bytes]) -> list[Step]:
    """Return the steps that a script told of."""
    return [Step(told[at].decode(), told[at + 1]) for at in range(0, len(told), 2)]


def packed_steps(steps: Sequence[Step]) -> list[Any]:
    """Return steps as scripts take them."""
    return [raw(it) for step in steps for it in (step.name.encode(), step.result)]
