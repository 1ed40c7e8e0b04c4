"""Waiting for a store: a bell makes it soon, reading again makes it sure."""

from __future__ import annotations

import asyncio

from backlane.engine.hearing import Bell
from backlane.model.clock import Clock
from backlane.model.retry import Duration, milliseconds

# How long to trust a silent bell. The first reads come soon, for a store whose bells do
# not reach this process; a second later the truth is read once a second.
FIRST_POLL_MS = 50
LAST_POLL_MS = 1_000


class Wait:
    """How long is left, and how long to trust a silent bell meanwhile."""

    __slots__ = ("_clock", "_left_ms", "_poll_ms", "given")

    def __init__(self, clock: Clock, given: Duration | None, option: str = "timeout") -> None:
        self.given = given
        self._clock = clock
        self._left_ms = None if given is None else milliseconds(given, option)
        self._poll_ms = FIRST_POLL_MS

    @property
    def is_over(self) -> bool:
        return self._left_ms is not None and self._left_ms <= 0

    def restart(self) -> None:
        """Listen closely again: something has just changed."""
        self._poll_ms = FIRST_POLL_MS

    def heard(self, bell: Bell, due_ms: int | None = None) -> None:
        """Wait for a ring; not past `due_ms`, when something is known to happen unheard."""
        slice_ms, started = self._slice(due_ms), self._clock.boot_ms()
        self._pass(slice_ms, started, rang=bell.heard(slice_ms / 1000))

    async def aheard(self, bell: Bell, due_ms: int | None = None) -> None:
        """Like `heard`."""
        slice_ms, started = self._slice(due_ms), self._clock.boot_ms()
        self._pass(slice_ms, started, rang=await bell.aheard(slice_ms / 1000))

    def _slice(self, due_ms: int | None) -> int:
        ends = (self._poll_ms, self._left_ms, due_ms)
        return max(1, min(end for end in ends if end is not None))

    def _pass(self, slice_ms: int, started: int, *, rang: bool) -> None:
        if not rang:
            self._poll_ms = min(LAST_POLL_MS, self._poll_ms * 2)
        if self._left_ms is not None:
            # A silent bell has used its slice up, also where a test's clock stands still.
            passed = self._clock.boot_ms() - started
            self._left_ms -= passed if rang else max(slice_ms, passed)


def in_a_loop() -> bool:
    """Say whether an event loop runs in this thread, so that waiting here would block it."""
    return asyncio._get_running_loop() is not None
