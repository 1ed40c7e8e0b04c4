"""The pacer: what all calls of one client share, so that together they keep measure.

It holds the client's clock, its chance, its retry budget and its throttle (see
`backlane.model.backoff`), and locks them: a client may be used from many threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from backlane.model.backoff import RetryBudget, Throttle


class Pacer:
    """When the calls of one client may send.

    Args:
        now: seconds that only go forward.
        draw: a number from [0, 1), seeded anew in each process.
        wall: the moment now, for dates that a server tells.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.now = now
        self.draw = random.SystemRandom().random if draw is None else draw
        self.wall = wall
        self._budget = RetryBudget()
        self._throttle = Throttle()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count a call that begins."""
        with self._lock:
            self._budget.begin(self.now())

    def start(self, patience: float, *, is_retry: bool) -> int | None:
        """Return the number of a try that may be sent, or None to keep it back.

        A retry is never kept back here: it has a budget of its own. After `patience`
        seconds without an answer it counts as failed.
        """
        draw = 1.0 if is_retry else self.draw()
        with self._lock:
            return self._throttle.begin(self.now(), draw, patience)

    def end(self, number: int | None, *, is_accepted: bool) -> None:
        """Count whether the answer to a try shows that the gateway does its work."""
        if number is not None:
            with self._lock:
                self._throttle.end(number, self.now(), is_accepted=is_accepted)

    def retry_in(self, within: float) -> float | None:
        """Take leave for one retry; return the seconds until it holds, or None for never."""
        with self._lock:
            return self._budget.take(self.now(), within)
