"""Amend: what people do to jobs, up to 1,000 of them a call.

What is looked at in one step is judged and changed in it, by one script. A call may be
several: each is all or nothing, and sending a call again finds done what was done.
"""

from __future__ import annotations

import uuid
from typing import Any, assert_never

from backlane.engine.redis.record.find import READ, STEP, begins, packed_selection
from backlane.engine.redis.record.sheet import STATES
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.seal import read_seal
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.selection import (
    Amended,
    Cancel,
    Change,
    Delete,
    Move,
    Redrive,
    Reprioritise,
    Selection,
    Skipped,
)
from backlane.model.queue import DEFAULT_BOUNDS

AMENDED = 1_000  # jobs an amend changes at most

AMEND = Script("amend", "model", "moves", "bells", "changes", "making", "select")

NEW_BOUNDS = [str(DEFAULT_BOUNDS.max_jobs), str(DEFAULT_BOUNDS.max_bytes), False, False]


async def amend(tx: RedisTx, selection: Selection, change: Change, cursor: bytes | None) -> Amended:
    """Change some of the selected jobs."""
    before = begins(cursor)
    packed = packed_selection(selection)
    name, value = _packed(change)
    changed: list[bytes] = []
    flagged: list[bytes] = []
    skipped: list[Skipped] = []
    read = 0
    while True:
        left = AMENDED - len(changed) - len(flagged) - len(skipped)
        most = min(STEP, READ - read)
        answer = await tx.call(AMEND, packed, left, before, most, name, value, NEW_BOUNDS)
        _, next_before, looked, some_changed, some_flagged, some_skipped = answer
        changed += some_changed
        flagged += some_flagged
        skipped += _told(some_skipped, change)
        read += looked
        if next_before is None:
            return Amended(changed, flagged, skipped)
        if len(changed) + len(flagged) + len(skipped) >= AMENDED or read >= READ:
            return Amended(changed, flagged, skipped, next_before.to_bytes(8))
        before = next_before


def _packed(change: Change) -> tuple[str, Any]:
    match change:
        case Cancel():
            return "cancel", False
        case Redrive():
            return "redrive", False
        case Reprioritise(priority=priority):
            return "reprioritise", priority
        case Delete():
            return "delete", False
        case Move(queue=queue):
            return "move", queue
        case _:
            assert_never(change)


def _told(skipped: list[Any], change: Change) -> list[Skipped]:
    queue = change.queue if isinstance(change, Move) else ""
    return [
        Skipped(job, _why(state, why.decode(), what, queue))
        for job, state, why, what in zip(*(skipped[at::4] for at in range(4)), strict=True)
    ]


def _why(state: int, why: str, what: bytes, queue: str) -> str:
    """Say in words why a job was left as it is."""
    match why:
        case "sealed":
            return read_seal(what).why_not
        case "already":
            return f"it is {STATES[state]} already"
        case "is":
            return f"it is {STATES[state]}"
        case "running":
            return "it is running; cancel it first"
        case "stuck":
            other, ended = uuid.UUID(bytes=what[:16]), STATES[int(what[16:])]
            return f"job {other}, which it waits for, ended as {ended}"
        case "key":
            return f"its key is held by job {what.hex()}"
        case "full":
            return f"queue {what.decode()!r} is full"
        case "share":
            group, _, name = what.decode().partition("\0")
            return f"group {group!r} fills its share of queue {name!r}"
        case "there":
            return "it is there already"
        case _:
            return f"queue {queue!r} holds {what.decode()}"
