"""Bells of one process: a ring is kept until it is heard, so that none is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from backlane.engine.postgres.store.transaction import Rings

CONFIRM_SECONDS = 0.5  # for a connection to be had; then polling must do
TAIL_BYTES = 6  # of an id: random ones, which stand for it in a message


class Kind(IntEnum):
    """What a bell hears of."""

    QUEUES = 0
    JOBS = 1
    STARTS = 2


Name = str | bytes


class Bell:
    """One subscription to some names: queues, or jobs. See `protocol.Watch`."""

    def __init__(self, belfry: Belfry, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.names: set[Name] = set()
        self._belfry = belfry
        self._rang: set[Name] = set()
        self._has_rung = False
        self._change = threading.Condition()
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def ring(self, name: Name | None) -> None:
        """Ring for one of its names; None: for whatever may have been missed."""
        with self._change:
            self._has_rung = True
            self._rang |= self.names if name is None else {name}
            self._change.notify_all()
            sleepers, self._sleepers = self._sleepers, []
        for loop, awake in sleepers:
            _rouse(loop, awake)

    def add(self, names: Iterable[Name]) -> None:
        """Hear these names too."""
        self._belfry.enter(self, names)

    def discard(self, names: Iterable[Name]) -> None:
        """Hear these names no longer."""
        self._belfry.leave(self, names)

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""
        seconds = self._given(seconds)
        end = time.monotonic() + seconds
        with self._belfry.sleeping(), self._change:
            while not self._has_rung:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._change.wait(left)
            self._rang, self._has_rung = set(), False
            return True

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""
        return await self._arang(seconds) is not None

    async def arang(self, seconds: float) -> set[bytes]:
        """Wait for a ring and return whose it was."""
        rang = await self._arang(seconds)
        return {name for name in rang or () if isinstance(name, bytes)}

    def close(self) -> None:
        """End the subscription."""
        self.discard(tuple(self.names))

    async def _arang(self, seconds: float) -> set[Name] | None:
        rang, seconds = self._taken(), self._given(seconds)
        if rang is not None or seconds <= 0:
            return rang
        loop = asyncio.get_running_loop()
        sleeper = loop, loop.create_future()
        with self._change:
            if not self._has_rung:
                self._sleepers.append(sleeper)
        if not self._has_rung:
            self._belfry.on_wait(loop)
            timer = loop.call_later(seconds, _wake, sleeper[1])
            try:
                await sleeper[1]
            finally:
                timer.cancel()
                with self._change:
                    if sleeper in self._sleepers:
                        self._sleepers.remove(sleeper)
        return self._taken()

    def _given(self, seconds: float) -> float:
        """How long to wait: for what has rung so far, until other processes are heard of."""
        return seconds if seconds > 0 or self._belfry.hears(self.kinds) else CONFIRM_SECONDS

    def _taken(self) -> set[Name] | None:
        with self._change:
            if not self._has_rung:
                return None
            rang, self._rang, self._has_rung = self._rang, set(), False
            return rang


class Belfry:
    """All bells of one process, by the names they hear.

    Args:
        on_hang: called for each new bell.
        on_wait: called whenever a coroutine of this loop, or (None) a thread begins to wait.
    """

    def __init__(
        self,
        on_hang: Callable[[], None],
        on_wait: Callable[[asyncio.AbstractEventLoop | None], None],
    ) -> None:
        self._bells: dict[tuple[Kind, Name], list[Bell]] = {}
        self._tails: dict[bytes, set[bytes]] = {}  # of jobs that are watched
        self._counts = [0, 0, 0]
        self.heard: frozenset[Kind] = frozenset()  # of other processes; set by who hears
        self.on_wait = on_wait
        self.sleepers = 0  # threads that wait
        self._on_hang = on_hang
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self._lock = threading.RLock()

    def hears(self, kinds: Iterable[Kind]) -> bool:
        """Whether other processes' commits of these kinds ring here."""
        return self.heard >= set(kinds)

    @property
    def kinds(self) -> frozenset[Kind]:
        """What there are bells for."""
        return frozenset(kind for kind in Kind if self._counts[kind])

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """Know that a thread waits, for as long as the block lasts."""
        with self._lock:
            self.sleepers += 1
        self.on_wait(None)
        try:
            yield
        finally:
            with self._lock:
                self.sleepers -= 1

    def listen(self, queues: Iterable[str]) -> Bell:
        """Hang a bell that hears of queues."""
        return self._hang((Kind.QUEUES,), queues)

    def watch(self, jobs: Iterable[bytes], *, starts: bool) -> Bell:
        """Hang a bell that hears of jobs."""
        return self._hang((Kind.JOBS, Kind.STARTS) if starts else (Kind.JOBS,), jobs)

    def _hang(self, kinds: tuple[Kind, ...], names: Iterable[Name]) -> Bell:
        bell = Bell(self, kinds)
        self.enter(bell, names)
        self._on_hang()
        return bell

    def enter(self, bell: Bell, names: Iterable[Name]) -> None:
        with self._lock:
            for name in names:
                if name in bell.names:
                    continue
                bell.names.add(name)
                for kind in bell.kinds:
                    self._counts[kind] += 1
                    self._bells.setdefault((kind, name), []).append(bell)
                if isinstance(name, bytes):
                    self._tails.setdefault(name[-TAIL_BYTES:], set()).add(name)

    def leave(self, bell: Bell, names: Iterable[Name]) -> None:
        with self._lock:
            for name in names:
                if name not in bell.names:
                    continue
                bell.names.discard(name)
                for kind in bell.kinds:
                    self._counts[kind] -= 1
                    self._bells[kind, name].remove(bell)
                    if not self._bells[kind, name]:
                        del self._bells[kind, name]
                if isinstance(name, bytes) and (Kind.JOBS, name) not in self._bells:
                    self._tails.pop(name[-TAIL_BYTES:], None)

    def ring(self, rings: Rings) -> None:
        """Ring for what this process has committed."""
        if not any(self._counts):
            return
        named: list[tuple[Kind, Name]] = [(Kind.QUEUES, queue) for queue in rings.queues]
        if self._counts[Kind.JOBS]:
            named += [(Kind.JOBS, job) for job in rings.jobs]
        if self._counts[Kind.STARTS]:
            named += [(Kind.STARTS, job) for job in rings.starts]
        self._ring(named)

    def ring_tails(self, kind: Kind, tails: Iterable[bytes]) -> None:
        """Ring for jobs that another process told of."""
        with self._lock:
            named = [(kind, job) for tail in tails for job in self._tails.get(tail, ())]
        self._ring(named)

    def ring_all(self) -> None:
        """Ring every bell: something may have been missed."""
        with self._lock:
            bells = {bell for bells in self._bells.values() for bell in bells}
        for bell in bells:
            bell.ring(None)

    def _ring(self, named: Iterable[tuple[Kind, Name]]) -> None:
        with self._lock:
            rung = [(key[1], bell) for key in named for bell in self._bells.get(key, ())]
        for name, bell in rung:
            bell.ring(name)


def _rouse(loop: asyncio.AbstractEventLoop, awake: asyncio.Future[None]) -> None:
    if asyncio._get_running_loop() is loop:
        _wake(awake)
        return
    try:
        loop.call_soon_threadsafe(_wake, awake)
    except RuntimeError:  # it has ended, and its sleepers with it
        return


def _wake(awake: asyncio.Future[None]) -> None:
    if not awake.done():
        awake.set_result(None)
