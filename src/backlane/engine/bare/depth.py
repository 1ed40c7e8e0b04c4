"""Depths: about how many messages wait in each queue, as this process can tell.

The broker's own count, at most a second old where that matters, and what was published
since. It bounds a queue softly: what all processes send within that second comes on top,
and what the broker's count is behind (at Amazon SQS up to a minute). Where the broker has a
bound of its own, that one is exact and this only spares the way to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from backlane.engine.transport import Transport
from backlane.errors import EngineUnavailable

FRESH_SECONDS = 1.0
# Who is about to be refused is counted anew, but not every one of many.
RECENT_SECONDS = 0.02


class _Count:
    __slots__ = ("asked_at", "asking", "ready", "sent_at", "since")

    def __init__(self) -> None:
        self.ready, self.since = 0, 0  # as the broker said; published after it was asked
        self.asked_at = self.sent_at = float("-inf")
        self.asking: asyncio.Task[None] | None = None


class Depths:
    """Counts the messages of one transport's queues."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._counts: dict[str, _Count] = {}

    async def estimate(self, name: str, added: int, bound: int) -> int:
        """Return about how many wait; exact to a moment where `added` more would pass `bound`."""
        count = self._counts.setdefault(name, _Count())
        age = time.monotonic() - count.asked_at
        if count.ready + count.since + added > bound:
            # What was sent while the broker was asked may be counted twice.
            while count.asked_at <= count.sent_at or age > RECENT_SECONDS:
                age = 0.0
                await self._asked(name, count)
        elif age > FRESH_SECONDS:
            self._asked(name, count)
        return count.ready + count.since

    def sent(self, name: str, number: int) -> None:
        """So many were published, or may have been."""
        count = self._counts.setdefault(name, _Count())
        count.since += number
        count.sent_at = time.monotonic()

    def known(self, name: str) -> int:
        count = self._counts.get(name)
        return 0 if count is None else count.ready + count.since

    def _asked(self, name: str, count: _Count) -> asyncio.Task[None]:
        if count.asking is None or count.asking.done():
            count.asking = asyncio.ensure_future(self._ask(name, count))
        return count.asking

    async def _ask(self, name: str, count: _Count) -> None:
        count.asked_at = time.monotonic()
        before = count.since
        # Whoever publishes hears of it; here the last count goes on.
        with contextlib.suppress(EngineUnavailable):
            standing = await self._transport.standing(name)
            count.ready, count.since = standing.ready, count.since - before
