"""Trouble: whether publishing works, and when to try again."""

from __future__ import annotations

import logging
import random

log = logging.getLogger("backlane.broker")

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0  # so that work goes on soon after a broker is back


class Notice:
    """What is said of one other side: that it is in trouble, and that it is well; each once.

    Relay and pumps meet the same outage, each for itself.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._telling: set[Trouble] = set()

    def begin(self, trouble: Trouble) -> None:
        if not self._telling:
            log.warning(
                "%s is in trouble (%s); jobs are kept, and it is tried again",
                self.name,
                trouble.reason,
            )
        self._telling.add(trouble)

    def end(self, trouble: Trouble, *, is_well: bool = True) -> None:
        self._telling.discard(trouble)
        if is_well and not self._telling:
            log.warning("%s is well again", self.name)


class Trouble:
    """What stands between the relay and the other side. Times are of `time.monotonic`."""

    def __init__(self, notice: Notice) -> None:
        self.notice, self.name = notice, notice.name
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
            self.notice.begin(self)

    def end(self) -> None:
        """It works."""
        if self.since is None:
            return
        self.since, self._failures, self.resume_at = None, 0, 0.0
        if self._is_told:
            self._is_told = False
            self.notice.end(self)

    def leave(self) -> None:
        """Nobody tries any more: others say when it is well."""
        if self._is_told:
            self._is_told = False
            self.notice.end(self, is_well=False)
