"""The belfry: gives bells, and keeps the ear of this process for one engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from backlane.engine.redis.bells.bell import Bell, Topic
from backlane.engine.redis.bells.ear import Ear
from backlane.engine.redis.store.connection import Connection


class Belfry:
    """Bells of one namespace, in this process.

    Args:
        connect: opens a connection to the server of the namespace.
        prefix: of the channels of the namespace.
    """

    def __init__(self, connect: Callable[[], Connection], prefix: bytes) -> None:
        self._connect = connect
        self._prefix = prefix
        self._ear: Ear | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def listen(self, queues: Iterable[str]) -> Bell:
        """Hang a bell that hears of queues."""
        return self._hang((Topic.QUEUES,), [name.encode() for name in queues])

    def watch(self, jobs: Iterable[bytes], *, starts: bool) -> Bell:
        """Hang a bell that hears of jobs."""
        return self._hang((Topic.JOBS, Topic.STARTS) if starts else (Topic.JOBS,), jobs)

    def _hang(self, topics: tuple[Topic, ...], names: Iterable[bytes]) -> Bell:
        if self._pid != os.getpid():
            self._start_anew()
        with self._lock:
            if self._ear is None or self._ear.is_ending:
                self._ear = Ear(self._connect, self._prefix)
            return self._ear.hang(topics, names)

    def _start_anew(self) -> None:
        """In a forked child: the parent's lock may be held, and its ear is abandoned."""
        self._ear = None
        self._lock, self._pid = threading.Lock(), os.getpid()

    def close(self) -> None:
        """Let go of the connection; bells that hang go on until they are closed."""
        if self._pid == os.getpid() and self._ear is not None:
            self._ear.end()
