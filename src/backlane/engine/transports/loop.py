"""The loop of a process that talks to brokers: one thread, whatever the caller's colour.

Engines enter it at their first use and leave it when they are closed; with the last one
the thread ends. In a process that does nothing else (a worker's) they settle in its own
loop instead, and what arrives is spared two ways between threads. A child of a fork has a
loop of its own, and holds no socket of its parent's: a broker would take the parent for
alive as long as the child is.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import selectors
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

NAME = "backlane-broker"

# What is in the middle of something when the last engine leaves is cancelled, and has so long.
_LEAVING_SECONDS = 5.0


class Background:
    """A thread with an event loop in it. Coroutines are started there from anywhere.

    Args:
        host: a loop that runs in the caller's thread already, and ends by itself.
    """

    def __init__(self, host: asyncio.AbstractEventLoop | None = None) -> None:
        self.is_guest = host is not None
        self._pid = os.getpid()
        self._selector: selectors.BaseSelector | None = None
        if host is not None:
            self.loop, self._thread = host, threading.current_thread()
            return
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    @property
    def is_own(self) -> bool:
        """Whether it runs in this process, and still does."""
        return self._pid == os.getpid() and not self.loop.is_closed()

    @property
    def is_here(self) -> bool:
        """Whether the caller is in its thread."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine there. Cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Carry a coroutine out there and wait for it, in a thread that has time to wait.

        Raises:
            TimeoutError: it took longer, and was cancelled.
        """
        if self.is_here:
            work.close()
            raise RuntimeError("the thread of the broker cannot wait for itself")
        future = self.start(work)
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Like `run`, in a coroutine of any loop. Cancelling it cancels the work."""
        if self.is_here:
            return await work
        return await asyncio.wrap_future(self.start(work))

    def end(self) -> None:
        """Cancel what runs, close the loop and wait for the thread, in bounded time."""
        if not self.is_own or self.is_guest:
            return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        if not self.is_here:
            self._thread.join(_LEAVING_SECONDS)

    def let_go(self) -> None:
        """In a child: let its copies of the parent's sockets lead nowhere.

        They are not closed: objects that are still about would close the numbers again,
        which may be another's by then.
        """
        if self._selector is None:  # of a loop that forks nothing that goes on
            return
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for key in list(self._selector.get_map().values()):
            with contextlib.suppress(OSError):
                os.dup2(nowhere, key.fd, inheritable=False)
        os.close(nowhere)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            running = asyncio.all_tasks(self.loop)
            for task in running:
                task.cancel()
            if running:
                self.loop.run_until_complete(asyncio.wait(running, timeout=_LEAVING_SECONDS / 2))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


class _Current:
    """The loop of this process, and how many engines are in it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.background: Background | None = None
        self.number = 0


# One for the process: a thread an engine would be one too many for each.
_current = _Current()
_inherited: list[Background] = []  # never collected: their loops must not be touched any more


def enter() -> Background:
    """Return the loop of this process, begun if need be. `leave` it as often as entered."""
    current = _current
    with current.lock:
        if current.background is None or not current.background.is_own:
            current.background, current.number = Background(), 0
        current.number += 1
        return current.background


def settle_in() -> None:
    """Let what enters from now on run in the running loop, for as long as that does.

    Nothing may wait for a broker in this thread then: engines are closed in another.
    """
    current = _current
    with current.lock:
        if current.background is None or not current.background.is_own:
            current.background, current.number = Background(asyncio.get_running_loop()), 0


def is_lived_in() -> bool:
    """Whether engines have settled in the loop of this thread."""
    background = _current.background
    return background is not None and background.is_here and _current.number > 0


def leave(background: Background) -> None:
    """Say that one engine less uses it; with the last it ends."""
    current = _current
    with current.lock:
        if background is not current.background or not background.is_own:
            return
        current.number -= 1
        if current.number:
            return
        current.background = None
    background.end()


def _start_anew() -> None:
    global _current  # another thread of the parent may have held its lock
    inherited, _current = _current.background, _Current()
    if inherited is not None:
        _inherited.append(inherited)
        inherited.let_go()


def _end_at_exit() -> None:
    background, _current.background = _current.background, None
    if background is not None:
        background.end()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(_end_at_exit)
