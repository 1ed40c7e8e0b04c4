"""Clocks: where every duration and time in backlane comes from.

Two readings, both integer milliseconds: `wall_ms` (UTC; due times, history) may be
set back and forth by people; `boot_ms` (leases, waits) counts from the machine's
start, goes on while it sleeps, and never jumps. Tests use `FakeClock`, on which
time passes only by `advance`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

# CLOCK_BOOTTIME counts suspended time too; macOS spells it differently.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What reads time and lets it pass."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC."""

    def boot_ms(self) -> int:
        """Return milliseconds since some fixed moment of this boot."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine for `seconds` of this clock."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(_BOOT) // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that stands still until it is advanced.

    `advance` moves both readings; `jump` moves the wall clock alone, as a person
    or a time server would. Sleepers wake in the order of their due times.
    """

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._wall_ms = int(start.timestamp() * 1000)
        self._boot_ms = 1_000_000
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_ms(self) -> int:
        return self._wall_ms

    def boot_ms(self) -> int:
        return self._boot_ms

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._boot_ms + int(seconds * 1000)
        heapq.heappush(self._sleepers, (due, next(self._order), woken))
        await woken

    def advance(self, **duration: float) -> None:
        """Let time pass: `advance(hours=3)`, with the keywords of `timedelta`."""
        target = self._boot_ms + timedelta(**duration) // timedelta(milliseconds=1)
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._move_to(due)
            _wake(woken)
        self._move_to(target)

    def jump(self, **duration: float) -> None:
        """Set the wall clock forward (or back, if negative); no time passes."""
        self._wall_ms += timedelta(**duration) // timedelta(milliseconds=1)

    def next_wake_ms(self) -> int | None:
        """Return when the first sleeper is due, in boot milliseconds."""
        while self._sleepers and self._sleepers[0][2].done():  # it was cancelled
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _move_to(self, boot_ms: int) -> None:
        passed = max(0, boot_ms - self._boot_ms)
        self._boot_ms += passed
        self._wall_ms += passed


def _wake(woken: asyncio.Future[None]) -> None:
    """Wake a sleeper, which may sleep in another thread's loop, or in one that has ended."""
    loop = woken.get_loop()
    if woken.done() or loop.is_closed():
        return
    if asyncio._get_running_loop() is loop:
        woken.set_result(None)
    else:
        loop.call_soon_threadsafe(lambda: None if woken.done() else woken.set_result(None))
