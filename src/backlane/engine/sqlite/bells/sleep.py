"""Sleep: a thread that waits for a bell, and how it is woken."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Sleeper:
    """A thread that waits for a bell."""

    __slots__ = ("_lock", "wake")

    def __init__(self, wake: Callable[[Sleeper], None]) -> None:
        self.wake: Callable[[], None] = lambda: wake(self)
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, seconds: float) -> None:
        self._lock.acquire(timeout=seconds)

    def rouse(self) -> None:
        with contextlib.suppress(RuntimeError):  # roused already
            self._lock.release()
