"""Held: a job on its way, taken out of the table of its state."""

from __future__ import annotations

from typing import NamedTuple


class Held(NamedTuple):
    """A row of backlane_lease, in the order of `settle.HELD`."""

    id: bytes
    token: int
    seq: int
    queue: int
    priority: int
    attempt: int
    revision: int
    size: int
    started_ms: int | None
    owner: str | None
    is_plain: int
    cancelling: int
    lane: int
    place: int
    crashes: int
    parked_ms: int | None
