"""Rates: how often something happens, from counts over intervals of any length.

The weight of an interval dt is 1 - exp(-dt / tau), so that ten samples in a second tell
no more than one. Divided by the sum of the weights the first seconds are a plain mean
and not a slow climb from nothing. Source: A. Eckner, "Algorithms for Unevenly Spaced
Time Series: Moving Averages and Other Rolling Operators", 2012.
"""

from __future__ import annotations

import math


class Rate:
    """A moving average of events per second, over about `tau` seconds."""

    __slots__ = ("_sum", "_weight", "tau")

    def __init__(self, tau: float) -> None:
        self.tau = tau
        self._sum = 0.0
        self._weight = 0.0

    @property
    def per_second(self) -> float | None:
        """None until something was folded; then between the least and the most folded."""
        return self._sum / self._weight if self._weight else None

    def fold(self, events: float, seconds: float, stretch: float = 1.0) -> None:
        """Count `events` in the next `seconds`; `stretch` lengthens the memory."""
        if seconds <= 0:
            return
        # expm1, as 1 - exp() of a short interval would be rounded away.
        share = -math.expm1(-seconds / (self.tau * stretch))
        self._sum += share * (events / seconds - self._sum)
        self._weight += share * (1.0 - self._weight)
