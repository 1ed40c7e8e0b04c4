"""Bells: who waits for messages is woken in whatever thread or loop it waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable

from backlane.engine.waiter import Waiter


class BareBell:
    """A subscription to queues. A ring is kept until it is heard."""

    def __init__(self, belfry: Belfry, queues: Iterable[str]) -> None:
        self.queues = frozenset(queues)
        self._belfry = belfry
        self._change = threading.Condition()
        self._has_rung = False
        self._waiters: list[Waiter] = []

    def ring(self) -> None:
        with self._change:
            self._has_rung = True
            self._change.notify_all()
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.wake()

    def heard(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        with self._change:
            while not self._has_rung:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._change.wait(left)
            self._has_rung = False
            return True

    async def aheard(self, seconds: float) -> bool:
        if self._taken():
            return True
        if seconds <= 0:
            return False
        waiter = Waiter(asyncio.get_running_loop())
        with self._change:
            self._waiters.append(waiter)
            if self._has_rung:
                waiter.set()
        try:
            await asyncio.wait((waiter.future,), timeout=seconds)
        finally:
            with self._change:
                self._waiters.remove(waiter)
            waiter.future.cancel()
        return self._taken()

    def close(self) -> None:
        self._belfry.take_down(self)

    def _taken(self) -> bool:
        with self._change:
            has_rung, self._has_rung = self._has_rung, False
            return has_rung


class Belfry:
    """All bells of one engine."""

    def __init__(self) -> None:
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self._lock = threading.RLock()
        self._bells: list[BareBell] = []

    def hang(self, queues: Iterable[str]) -> BareBell:
        bell = BareBell(self, queues)
        with self._lock:
            self._bells.append(bell)
        return bell

    def take_down(self, bell: BareBell) -> None:
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)

    def ring(self, queue: str) -> None:
        with self._lock:
            bells = [bell for bell in self._bells if queue in bell.queues]
        for bell in bells:
            bell.ring()
