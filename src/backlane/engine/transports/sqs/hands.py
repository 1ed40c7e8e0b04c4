"""Hands: a bounded number of threads that wait for answers, in the place of the loop.

They are daemons, unlike those of `concurrent.futures`: a poll that waits at the other end
for 20 s keeps no process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_SECONDS = 30.0  # a thread that had nothing to do for so long ends


class Hands:
    """Carries blocking calls out, at most so many at a time; what is too much waits its turn."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = name, most
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that wait for work, less the work that waits for them
        self._is_closed = False

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Carry out in a thread. Cancelling the future ends no call that has begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            if future.cancelled():
                return
            try:
                result, error = work(), None
            except BaseException as raised:  # noqa: BLE001 - it is the caller's to judge
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_answer, future, result, error)

        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"{self.name} is closed")
            self._free -= 1
            needs_one = self._free < 0 and self._threads < self.most
            if needs_one:
                self._threads += 1
                self._free += 1
        self._work.put(carry_out)
        if needs_one:
            self._hire()
        return future

    def _hire(self) -> None:
        """Start a thread. Where the machine allows no more, those there are do it all.

        Raises:
            RuntimeError: there is none at all.
        """
        try:
            threading.Thread(target=self._run, name=self.name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                self._free -= 1
                self.most = max(1, self._threads)
                if not self._threads:
                    raise

    def close(self) -> None:
        """Let the threads end: each when its call has."""
        with self._lock:
            self._is_closed = True
            number = self._threads
        for _ in range(number):
            self._work.put(None)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free <= 0:  # some work is on its way
                        continue
                    self._threads -= 1
                    self._free -= 1
                return
            if work is None:
                return
            work()
            with self._lock:
                self._free += 1


def _answer(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
