"""Floors: where a process goes on claiming, so that what was claimed is not walked over.

Rows that were taken are dead, and under a snapshot held elsewhere nobody may clear them
away: a claim from the beginning would walk over all of them. What came in before a floor
(a late commit, a job that went back to its place) is found by a look from the beginning,
four times a second, and whenever a claim would give less than was wanted: unless such a look
takes long, for then it is made no more often than it can be afforded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

LOWEST = -(2**63)
RANKS = 10
LOOK_SECONDS = 0.25  # what a dead worker had is before all else, and others do not know of it
ANEW_SECONDS = 1.0
DUTY = 20  # a look that takes long is made less often: a twentieth of the time at most

Line = tuple[int, int]  # queue, lane
CHEAP_US = 2_000  # a look that takes no longer is made whenever it is of use


class Start(NamedTuple):
    """Where a claim begins: ten places and seqs for each queue and lane."""

    queues: list[int]
    lanes: list[int]
    places: list[int]
    seqs: list[int]
    since_ms: int = LOWEST  # what was due or lapsed before has been brought in
    may_look: bool = True


FROM_BEGINNING = Start([], [], [], [])


class Floors:
    """What one process remembers. Two threads may claim at once; any floor will do."""

    def __init__(self) -> None:
        self._places: dict[Line, list[int]] = {}
        self._seqs: dict[Line, list[int]] = {}
        self._queues: dict[str, int] = {}  # numbers by name, as claims told them
        self._look_at = 0.0
        self._look_us = 0
        self._affords_at = 0.0  # another one, where it is of use
        self._since_ms = LOWEST
        self._since_at = 0.0  # all is brought in anew, whenever it was due

    def start(self, names: Iterable[str]) -> Start:
        """Return where to go on; the beginning when it is time to look from there."""
        if not self._places or time.monotonic() >= self._look_at:
            return FROM_BEGINNING
        wanted = {self._queues.get(name) for name in names}
        lines = [line for line in self._places if line[0] in wanted]
        places: list[int] = []
        seqs: list[int] = []
        for line in lines:
            places += self._places[line]
            seqs += self._seqs[line]
        queues, lanes = [queue for queue, _ in lines], [lane for _, lane in lines]
        may_look = self._look_us <= CHEAP_US or time.monotonic() >= self._affords_at
        return Start(queues, lanes, places, seqs, self._since_ms, may_look)

    def since(self) -> int:
        """Return since when what was due, or lapsed, is to be brought in."""
        if time.monotonic() < self._since_at:
            return self._since_ms
        self._since_at = time.monotonic() + ANEW_SECONDS
        return LOWEST

    def keep_since(self, until_ms: int) -> None:
        """All that was due, or had lapsed, until then has been brought in."""
        self._since_ms = until_ms

    def keep_queues(self, numbers: Iterable[int], names: Iterable[str]) -> None:
        """Remember the numbers of queues."""
        self._queues.update(zip(names, numbers, strict=True))

    def keep(self, line: Line, rank: int, place: int, seq: int) -> None:
        """Go on behind this job, which was the last one taken of its rank."""
        places = self._places.get(line)
        if places is None:
            self._places[line] = [LOWEST] * RANKS
            self._seqs[line] = [LOWEST] * RANKS
        self._places[line][rank] = place
        self._seqs[line][rank] = seq

    def looked(self, microseconds: int) -> None:
        """A look from the beginning took so long."""
        self._look_us = microseconds
        now, rest = time.monotonic(), microseconds * DUTY / 1e6
        self._affords_at, self._look_at = now + rest, now + max(LOOK_SECONDS, rest)

    def forget(self) -> None:
        """Begin anew: something went back to its place, or these are another store's."""
        self._places.clear()
        self._seqs.clear()
