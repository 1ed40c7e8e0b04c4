"""In line: what becomes of jobs that would be ready: ready, or blocked at a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backlane.engine.sqlite.held import Held
from backlane.engine.sqlite.transaction import SqliteTx


class Placed(NamedTuple):
    """Where a job is put: in front of a gate, or (None) into ready."""

    held: Held
    gate: int | None = None
    is_turn: bool = False


async def stand_in_line(tx: SqliteTx, now: int, jobs: Sequence[Held]) -> list[Placed]:
    """Find where each of these jobs is put, in this order, and count it there."""
    return [Placed(held) for held in jobs]
