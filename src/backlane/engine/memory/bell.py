"""Bells of one process: a ring is kept until it is heard, so that none is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable

from backlane.model.clock import Clock

BeforeWait = Callable[[float], None]  # called in whoever is about to wait so many seconds

# 10 ms: how soon a waiting thread sees that a fake clock was advanced.
_PULSE_SECONDS = 0.01


class MemoryBell:
    """One subscription to some names: queues, or jobs."""

    def __init__(self, names: Iterable[object], belfry: Belfry) -> None:
        self.names = frozenset(names)
        self._belfry = belfry
        self._clock = belfry.clock
        self._has_rung = False
        self._change = threading.Condition()
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def ring(self) -> None:
        with self._change:
            self._has_rung = True
            self._change.notify_all()
            for loop, awake in self._sleepers:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(awake.set)

    def heard(self, seconds: float) -> bool:
        until = self._clock.boot_ms() + seconds * 1000
        if self._take():
            return True
        if seconds <= 0:
            return False
        self._belfry.before_wait(seconds)
        # A fake clock may stand still for good, so the wait ends by real time at the latest.
        end = time.monotonic() + seconds
        with self._change:
            while not self._has_rung:
                left = min(end - time.monotonic(), (until - self._clock.boot_ms()) / 1000)
                if left <= 0:
                    return False
                self._change.wait(min(left, _PULSE_SECONDS))
            self._has_rung = False
            return True

    async def aheard(self, seconds: float) -> bool:
        if self._take():
            return True
        if seconds <= 0:
            return False
        until = self._clock.boot_ms() + seconds * 1000
        self._belfry.before_wait(seconds)
        left = (until - self._clock.boot_ms()) / 1000
        if left <= 0:
            return self._take()
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._change:
            self._sleepers.append(sleeper)
            if self._has_rung:
                sleeper[1].set()
        waits = {
            asyncio.ensure_future(sleeper[1].wait()),
            asyncio.ensure_future(self._clock.sleep(left)),
        }
        try:
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with self._change:
                self._sleepers.remove(sleeper)
        return self._take()

    def close(self) -> None:
        self._belfry.take_down(self)

    def _take(self) -> bool:
        with self._change:
            has_rung, self._has_rung = self._has_rung, False
            return has_rung


class Belfry:
    """All bells of one kind.

    `before_wait` is called before a wait begins: where nothing else runs that could
    ring, a test kit lets time pass there, or says that nothing will come.
    """

    def __init__(self, clock: Clock, before_wait: BeforeWait | None = None) -> None:
        self.clock = clock
        self.before_wait: BeforeWait = before_wait or _begin
        self._bells: list[MemoryBell] = []
        self._lock = threading.Lock()

    def hang(self, names: Iterable[object]) -> MemoryBell:
        bell = MemoryBell(names, self)
        with self._lock:
            self._bells.append(bell)
        return bell

    def ring(self, names: set[object]) -> None:
        with self._lock:
            bells = [bell for bell in self._bells if not names.isdisjoint(bell.names)]
        for bell in bells:
            bell.ring()

    def take_down(self, bell: MemoryBell) -> None:
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)


def _begin(_seconds: float) -> None:
    """Wait as long as it takes."""
