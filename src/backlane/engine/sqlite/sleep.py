"""Sleep: a thread or a coroutine that waits for a bell, and how it is woken."""

from __future__ import annotations

import asyncio
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


class Waiter:
    """A coroutine that waits for a bell."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def wake(self) -> None:
        if asyncio._get_running_loop() is self._loop:
            self.set()
        else:
            with contextlib.suppress(RuntimeError):  # its loop was closed
                self._loop.call_soon_threadsafe(self.set)
