"""Windows: where the lines begin of which jobs are offered, as one process remembers it.

As with floors: jobs that were taken are dead rows, and so are the marks of those that were
offered. Under a snapshot held elsewhere nobody may clear them away, and every offer would
walk over all of them. A line is looked at from its beginning once a second, and as long
as it is short or that is quickly done: so what came back to an old place is found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from backlane.engine.offering import Offer
from backlane.engine.postgres.lease.floor import CHEAP_US, DUTY, LOOK_SECONDS, LOWEST
from backlane.model.job import Lane

WIDTH = 4  # numbers of each beginning: lane, rank, place, seq


class Begin(NamedTuple):
    """Where to look for the lines and the marks of some offers."""

    marks_since_ms: list[int]  # of each offer
    offers: list[int]  # from here on: of each beginning; which offer it is of, from 1
    lanes: list[int]
    ranks: list[int]
    places: list[int]
    seqs: list[int]

    @classmethod
    def all(cls, number: int) -> Begin:
        """Look from the very beginning, for so many offers."""
        return cls([LOWEST] * number, [], [], [], [], [])


class _Line(NamedTuple):
    since_ms: int  # no mark before stands
    is_long: bool
    begins: Sequence[int]


class Windows:
    """What one process remembers. Two threads may offer at once; any beginning will do."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, Lane], _Line] = {}
        self._look_at = 0.0
        self._look_us = 0

    def begin(self, offers: Sequence[Offer]) -> Begin:
        """Return where to go on."""
        found = Begin.all(len(offers))
        if time.monotonic() >= self._look_at:
            self._lines.clear()
        for nth, one in enumerate(offers, 1):
            line = self._lines.get((one.queue, one.lane))
            if line is None:
                continue
            found.marks_since_ms[nth - 1] = line.since_ms
            if line.is_long or self._look_us > CHEAP_US:
                for at in range(0, len(line.begins), WIDTH):
                    lane, rank, place, seq = line.begins[at : at + WIDTH]
                    found.offers.append(nth)
                    found.lanes.append(lane)
                    found.ranks.append(rank)
                    found.places.append(place)
                    found.seqs.append(seq - 1)
        return found

    def keep(self, offer: Offer, since_ms: int, *, is_long: bool, begins: Sequence[int]) -> None:
        """Remember where the marks and the line of an offer began."""
        self._lines[offer.queue, offer.lane] = _Line(since_ms, is_long, begins)

    def looked(self, begin: Begin, microseconds: int) -> None:
        """It took so long to look from there."""
        if not begin.offers:
            now, rest = time.monotonic(), microseconds * DUTY / 1e6
            self._look_us, self._look_at = microseconds, now + max(LOOK_SECONDS, rest)

    def forget(self) -> None:
        """Begin anew: something went back to its place, or these are another store's."""
        self._lines.clear()
