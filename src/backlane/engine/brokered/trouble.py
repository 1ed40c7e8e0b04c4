"""Trouble: whether publishing works, and when to try again."""

from __future__ import annotations

import logging
import random

log = logging.getLogger("backlane.broker")

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 2.0  # so that work goes on soon after a broker is back


class Trouble:
    """What stands between the relay and the other side. Times are of `time.monotonic`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.since: float | None = None
        self.resume_at = 0.0
        self.reason = ""
        self._failures = 0
        self._is_told = False

    def __bool__(self) -> bool:
        return self.since is not None

    def has_lasted(self, seconds: float, now: float) -> bool:
        return self.since is not None and now - self.since >= seconds

    def begin(self, error: BaseException, now: float) -> None:
        """It failed (again)."""
        if self.since is None:
            self.since = now
        self._failures += 1
        self.reason = str(error) or repr(error)
        longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self._failures, 10))
        self.resume_at = now + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        # A first failure is mostly a restart, over before anybody could read of it.
        if self._failures > 2 and not self._is_told:
            self._is_told = True
            log.warning(
                "%s takes nothing (%s); jobs are kept, and it is tried again",
                self.name,
                self.reason,
            )

    def end(self) -> None:
        """It works."""
        if self.since is None:
            return
        self.since, self._failures, self.resume_at = None, 0, 0.0
        if self._is_told:
            self._is_told = False
            log.warning("%s takes messages again", self.name)
