"""Heads: where the first in line of each queue was found, so that a look goes on from there.

Before it lie the dead rows of all that were claimed, and under a snapshot held elsewhere
nobody may clear those away: each look from the beginning would walk over them. So one that
takes long is made no more often than it can be afforded, and what comes in before the
floor is told of a moment later.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from backlane.engine.postgres.lease.floor import CHEAP_US, DUTY


class Heads:
    """What one process remembers. Two threads may look at once; any floor will do."""

    def __init__(self) -> None:
        self._found: dict[int, list[int]] = {}  # queue, lane, rank, place, seq; by queue
        self._look_at = 0.0

    def floors(self) -> list[int]:
        """Return where to go on; nothing when it is time to look from the beginning."""
        if time.monotonic() >= self._look_at:
            return []
        return [number for head in list(self._found.values()) for number in head[:5]]

    def keep(self, heads: Iterable[list[int] | None], floors: list[int], seconds: float) -> None:
        """These were found behind the floors, in so many seconds."""
        self._found.update({head[0]: head for head in heads if head is not None})
        if not floors and seconds * 1e6 > CHEAP_US:
            self._look_at = time.monotonic() + seconds * DUTY
