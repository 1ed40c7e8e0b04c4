"""Bells of one process: a ring is kept until it is heard, so that none is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from backlane.model.clock import Clock

# 10 ms: how soon a waiting thread sees that a fake clock was advanced.
_PULSE_SECONDS = 0.01


class MemoryBell:
    """One subscription to some names: queues, or jobs."""

    def __init__(
        self, names: Iterable[object], clock: Clock, forget: Callable[[MemoryBell], None]
    ) -> None:
        self.names = frozenset(names)
        self._clock = clock
        self._forget = forget
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
        with self._change:
            while not self._has_rung:
                if self._clock.boot_ms() >= until:
                    return False
                self._change.wait(_PULSE_SECONDS)
            self._has_rung = False
            return True

    async def aheard(self, seconds: float) -> bool:
        if self._take():
            return True
        if seconds <= 0:
            return False
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._change:
            self._sleepers.append(sleeper)
            if self._has_rung:
                sleeper[1].set()
        waits = {
            asyncio.ensure_future(sleeper[1].wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with self._change:
                self._sleepers.remove(sleeper)
        return self._take()

    def close(self) -> None:
        self._forget(self)

    def _take(self) -> bool:
        with self._change:
            has_rung, self._has_rung = self._has_rung, False
            return has_rung


class Belfry:
    """All bells of one kind."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bells: list[MemoryBell] = []
        self._lock = threading.Lock()

    def hang(self, names: Iterable[object]) -> MemoryBell:
        bell = MemoryBell(names, self._clock, self._take_down)
        with self._lock:
            self._bells.append(bell)
        return bell

    def ring(self, names: set[object]) -> None:
        with self._lock:
            bells = [bell for bell in self._bells if not names.isdisjoint(bell.names)]
        for bell in bells:
            bell.ring()

    def _take_down(self, bell: MemoryBell) -> None:
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)
