"""Bells of one process: a ring is kept until it is heard, so that none is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from backlane.model.clock import Clock

BeforeWait = Callable[[float], None]  # called in whoever is about to wait so many seconds

# 10 ms: how soon a waiting thread sees that a fake clock was advanced.
_PULSE_SECONDS = 0.01


class MemoryBell:
    """One subscription to some names: queues, or jobs. See `protocol.Watch`."""

    def __init__(self, belfry: Belfry) -> None:
        self.names: set[Any] = set()
        self._belfry = belfry
        self._clock = belfry.clock
        self._rang: set[Any] = set()
        self._change = threading.Condition()
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def ring(self, name: Any) -> None:
        with self._change:
            self._rang.add(name)
            self._change.notify_all()
            for loop, awake in self._sleepers:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(awake.set)

    def add(self, names: Iterable[Any]) -> None:
        """Hear these names too."""
        self._belfry.enter(self, names)

    def discard(self, names: Iterable[Any]) -> None:
        """Hear these names no longer."""
        self._belfry.leave(self, names)

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
            while not self._rang:
                left = min(end - time.monotonic(), (until - self._clock.boot_ms()) / 1000)
                if left <= 0:
                    return False
                self._change.wait(min(left, _PULSE_SECONDS))
            self._rang = set()
            return True

    async def aheard(self, seconds: float) -> bool:
        return bool(await self.arang(seconds))

    async def arang(self, seconds: float) -> set[Any]:
        """Wait for a ring and return whose it was."""
        if rang := self._take():
            return rang
        if seconds <= 0:
            return set()
        until = self._clock.boot_ms() + seconds * 1000
        self._belfry.before_wait(seconds)
        left = (until - self._clock.boot_ms()) / 1000
        if left <= 0:
            return self._take()
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._change:
            self._sleepers.append(sleeper)
            if self._rang:
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
        self.discard(tuple(self.names))

    def _take(self) -> set[Any]:
        with self._change:
            rang, self._rang = self._rang, set()
            return rang


class Belfry:
    """All bells of one kind, by the names they hear.

    `before_wait` is called before a wait begins: where nothing else runs that could
    ring, a test kit lets time pass there, or says that nothing will come.
    """

    def __init__(self, clock: Clock, before_wait: BeforeWait | None = None) -> None:
        self.clock = clock
        self.before_wait: BeforeWait = before_wait or _begin
        self._bells: dict[Any, list[MemoryBell]] = {}
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self._lock = threading.RLock()

    def hang(self, names: Iterable[Any]) -> MemoryBell:
        bell = MemoryBell(self)
        self.enter(bell, names)
        return bell

    def enter(self, bell: MemoryBell, names: Iterable[Any]) -> None:
        with self._lock:
            for name in names:
                if name not in bell.names:
                    bell.names.add(name)
                    self._bells.setdefault(name, []).append(bell)

    def leave(self, bell: MemoryBell, names: Iterable[Any]) -> None:
        with self._lock:
            for name in names:
                if name in bell.names:
                    bell.names.discard(name)
                    self._bells[name].remove(bell)
                    if not self._bells[name]:
                        del self._bells[name]

    def ring(self, names: set[Any]) -> None:
        with self._lock:
            rung = [(name, bell) for name in names for bell in self._bells.get(name, ())]
        for name, bell in rung:
            bell.ring(name)


def _begin(_seconds: float) -> None:
    """Wait as long as it takes."""
