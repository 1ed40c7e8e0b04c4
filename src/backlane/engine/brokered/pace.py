"""Pace: how much to have at the broker, and how much in one's hands. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

PER_SLOT = 4
AHEAD_SECONDS = 1.0  # of work at the broker: what an urgent job stands behind

STOCK_SECONDS = 0.2  # of work in hand: many round trips to a broker, and soon given back
ASKED_SECONDS = 2.0  # how long a claim that found nothing is taken to want it still

_SPAN_SECONDS = 0.25  # one that is measured
_LONGEST_SECONDS = 5.0  # after which the past counts for nothing


class Speed:
    """Jobs a second of a queue, as this process claims them."""

    __slots__ = ("_count", "_rate", "_since")

    def __init__(self) -> None:
        self._rate = 0.0
        self._count = 0
        self._since = 0.0

    def add(self, number: int, now: float) -> None:
        """So many more were claimed."""
        self._count += number
        self._settle(now)

    def rate(self, now: float) -> float:
        self._settle(now)
        return self._rate

    def _settle(self, now: float) -> None:
        passed = now - self._since
        if passed < _SPAN_SECONDS:
            return
        if passed > _LONGEST_SECONDS:
            self._rate = 0.0 if not self._since else self._count / passed
        else:
            self._rate += 0.5 * (self._count / passed - self._rate)
        self._since, self._count = now, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Numbers of jobs; tests have others."""

    # With less, a worker that speeds up runs dry before the relay has looked.
    window_least: int = 100
    stock_most: int = 1_200  # four of a worker's largest claims
    beyond: int = 16  # looked at beyond what a claim wants: the ledger takes the first in line
    claim_most: int = 1_500  # looked at in one claim

    def window(self, slots: int, rate: float) -> int:
        """Return how many jobs of a queue may be at the broker."""
        return max(self.window_least, PER_SLOT * slots, int(rate * AHEAD_SECONDS))

    def stock(self, asked: int, rate: float) -> int:
        """Return how many to have in hand, for claims of `asked` jobs."""
        return min(self.stock_most, asked + int(rate * STOCK_SECONDS))
