"""Pacing: how many jobs to hold, and when a turn is worth its transaction.

Pure arithmetic over what was seen: the rate of finished jobs, their mean run time, the
length of a turn. An idle or slow worker never waits and never holds more than it runs.
"""

from __future__ import annotations

CLAIM_MOST = 300  # jobs a turn: about 5 ms of the store's writer, so that others get theirs
SETTLE_MOST = 500
LINGER_SECONDS = 0.005
# Below this rate a batch would not grow to two dozen within the linger: not worth waiting.
LINGER_FROM_RATE = 4_000.0
SHORT_SECONDS = 0.1  # jobs that take longer are never claimed ahead of their slot
AHEAD_SECONDS = 0.02  # of work held ahead: several turns, and far below a tenth of a lease
AHEAD_MOST = 1_000

_WINDOW_SECONDS = 0.02


class Pacing:
    """What a dispatcher has learned of its jobs and its store.

    Args:
        lease_ms: no more is held ahead than runs in a tenth of it.
    """

    def __init__(self, lease_ms: int) -> None:
        self.rate = 0.0  # jobs a second, smoothed over some 50 ms
        self.run_seconds = 0.0  # mean run time of a job
        self.turn_seconds = 0.002
        self._tenth = lease_ms / 10_000
        self._since = 0.0
        self._count = 0

    def ended(self, number: int, ran_ms: int, now: float) -> None:
        """Learn of `number` jobs that ended, having run `ran_ms` in all."""
        mean = ran_ms / number / 1000
        self.run_seconds += min(1.0, number / 50) * (mean - self.run_seconds)
        self._count += number
        self._settle_window(now)

    def turned(self, seconds: float) -> None:
        """Learn how long a turn took."""
        self.turn_seconds += 0.2 * (seconds - self.turn_seconds)

    def ahead(self, now: float) -> int:
        """Return how many jobs to hold beyond the slots, over all executors."""
        if self.run_seconds > SHORT_SECONDS:
            return 0
        self._settle_window(now)
        seconds = min(max(AHEAD_SECONDS, 3 * self.turn_seconds), self._tenth)
        return min(AHEAD_MOST, int(self.rate * seconds))

    def due(self, waiting: int, unfinished: int, first: float) -> float:
        """Return when `waiting` outcomes, the first of them of time `first`, are to be settled.

        `unfinished` jobs are still with the executors: when those run dry, or will not
        fill the batch, waiting only costs.
        """
        if self.rate < LINGER_FROM_RATE:
            return first
        target = min(CLAIM_MOST * 5 // 6, self.rate * LINGER_SECONDS)
        if waiting >= target or unfinished <= target:
            return first
        return first + LINGER_SECONDS

    def _settle_window(self, now: float) -> None:
        passed = now - self._since
        if passed < _WINDOW_SECONDS:
            return
        # One window of a new rate moves half-way; after a pause the past counts for nothing.
        share = min(1.0, 0.5 * passed / _WINDOW_SECONDS)
        self.rate += share * (self._count / passed - self.rate)
        self._since, self._count = now, 0
