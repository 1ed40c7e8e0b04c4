"""Bells of what has a transport: rung where messages arrive, heard in any thread or loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from backlane.engine.waiter import Waiter


class ArrivalBell:
    """One subscription to queues. See `hearing.Bell`."""

    def __init__(self, queues: Sequence[str], end: Callable[[ArrivalBell], None]) -> None:
        self.queues = tuple(queues)
        self._end = end
        self._change = threading.Condition()
        self._has_rung = False
        self._waiters: list[Waiter] = []

    def ring(self) -> None:
        with self._change:
            self._has_rung = True
            self._change.notify_all()
            for waiter in self._waiters:
                waiter.wake()

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""
        until = time.monotonic() + seconds
        with self._change:
            while not self._has_rung:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._change.wait(left)
            self._has_rung = False
            return True

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""
        with self._change:
            if self._has_rung or seconds <= 0:
                return self._take()
            waiter = Waiter(asyncio.get_running_loop())
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter.future
        except TimeoutError:
            pass
        finally:
            with self._change:
                self._waiters.remove(waiter)
        with self._change:
            return self._take()

    def close(self) -> None:
        """End the subscription."""
        self._end(self)

    def _take(self) -> bool:
        rang, self._has_rung = self._has_rung, False
        return rang


class Belfry:
    """All bells of one process, by the queues they hear."""

    def __init__(self) -> None:
        self._bells: dict[str, list[ArrivalBell]] = {}
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self._lock = threading.RLock()

    def hang(self, bell: ArrivalBell) -> None:
        with self._lock:
            for queue in set(bell.queues):
                self._bells.setdefault(queue, []).append(bell)

    def take_down(self, bell: ArrivalBell) -> None:
        with self._lock:
            for queue in set(bell.queues):
                if self.has(bell, queue):
                    self._bells[queue].remove(bell)
                    if not self._bells[queue]:
                        del self._bells[queue]

    def has(self, bell: ArrivalBell, queue: str | None = None) -> bool:
        """Whether it hangs here still."""
        return bell in self._bells.get(queue or bell.queues[0], ())

    def ring(self, queues: Iterable[str]) -> None:
        with self._lock:
            rung = {bell for queue in queues for bell in self._bells.get(queue, ())}
        for bell in rung:
            bell.ring()
