"""A coroutine that waits for a bell, and how any thread wakes it."""

from __future__ import annotations

import asyncio
import contextlib


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
