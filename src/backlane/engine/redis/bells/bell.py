"""Bells: who waits in this process, for what, and how they are woken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from enum import IntEnum
from hashlib import sha1
from typing import Protocol

from backlane.engine.rung import Rung


class Topic(IntEnum):
    """What a name rings for."""

    QUEUES = 0
    JOBS = 1
    STARTS = 2  # a job was taken: told to those alone who asked for it


_LETTERS = (b"q", b"j", b"s")
_HEX = b"0123456789abcdef"


def channel(topic: Topic, name: bytes) -> bytes:
    """Return the channel (behind the prefix of the namespace) on which a name rings.

    Few channels serve all names, so that a process that waits for many results need not
    subscribe for each, and no name is ever part of a channel's. `lua/bells.lua` says the same.
    """
    if topic is Topic.QUEUES:
        return b"q" + sha1(name, usedforsecurity=False).hexdigest()[:2].encode()
    at = name[15] & 15 if len(name) == 16 else 0
    return _LETTERS[topic] + _HEX[at : at + 1]


class Ringing(Protocol):
    """What a bell needs of the ear it hears by."""

    mutex: threading.RLock

    def want(self, bell: Bell, name: bytes) -> None: ...

    def drop(self, bell: Bell, name: bytes) -> None: ...

    def take_down(self) -> None: ...

    def take_in(self) -> None: ...

    def wait(self, bell: Bell, seconds: float) -> None: ...

    async def await_ring(self, bell: Bell, seconds: float) -> None: ...


class Bell:
    """One subscription to queues, or to jobs. See `protocol.Watch`.

    A bell is unsure until the server has confirmed its channels. What changed before
    that may not have rung, so the confirmation itself rings: who read meanwhile reads
    once more. Only the first bell of a while meets this.
    """

    __slots__ = (
        "_ear",
        "_is_open",
        "_names",
        "rung",
        "sure_by",
        "topics",
        "unsure",
    )

    def __init__(self, ear: Ringing, topics: Sequence[Topic]) -> None:
        self.topics = tuple(topics)
        self.unsure: set[bytes] = set()  # channels not confirmed yet
        self.sure_by = 0.0  # until when a confirmation is waited for
        self._ear = ear
        self._is_open = True
        self.rung = Rung()
        self._names: set[bytes] = set()

    def add(self, names: Iterable[bytes]) -> None:
        """Hear these names too."""
        for name in names:
            if name not in self._names and self._is_open:
                self._names.add(name)
                self._ear.want(self, name)

    def discard(self, names: Iterable[bytes]) -> None:
        """Hear these names no longer."""
        for name in names:
            if name in self._names:
                self._names.discard(name)
                self._ear.drop(self, name)

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""
        until = time.monotonic() + seconds
        while not self.rung:
            left = self._left(until)
            if left <= 0:
                self._ear.take_in()  # nobody may have waited, and so read
                break
            self._ear.wait(self, left)
        return bool(self.take())

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""
        return bool(await self.arang(seconds))

    async def arang(self, seconds: float) -> set[bytes]:
        """Wait for a ring; return the names that rang."""
        until = time.monotonic() + seconds
        while not self.rung:
            left = self._left(until)
            if left <= 0:
                self._ear.take_in()  # nobody may have waited, and so read
                break
            await self._ear.await_ring(self, left)
        return self.take()

    def _left(self, until: float) -> float:
        if self.unsure:
            until = max(until, self.sure_by)
        return until - time.monotonic()

    def take(self) -> set[bytes]:
        """Take the names that have rung."""
        with self._ear.mutex:
            return self.rung.take(self._names)

    def close(self) -> None:
        """End the subscription."""
        if self._is_open:
            self._is_open = False
            self.discard(tuple(self._names))
            self._ear.take_down()

    def hush(self) -> None:
        """Forget what has rung: it rang for the process that this one was forked from."""
        self.rung.take(self._names)
        self.unsure = set()


class Sleeper:
    """A thread that waits for a bell."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, seconds: float) -> None:
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken already
            self._lock.release()
