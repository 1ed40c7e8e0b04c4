"""Pools: the connections that verbs run on, for the threads of a process or for one loop.

Opened when they are wanted, at most `size`, and one more for what keeps leases alive.
Who comes when all are taken waits in line, but not for ever. The one used last is used
next, so that what is not needed grows old and is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque

import psycopg

from backlane.engine.postgres.store.opener import ANSWER_SECONDS, Opener
from backlane.engine.postgres.store.waits import Blocking, Suspending, in_thread
from backlane.engine.postgres.store.wire import Wire
from backlane.errors import EngineBusy

PATIENCE_SECONDS = 5.0
IDLE_SECONDS = 120.0


class Retired(Exception):
    """Closed by another thread meanwhile. Not told to anybody: who meets it opens anew."""


class ThreadPool:
    """Connections for the threads of a process."""

    def __init__(self, opener: Opener, size: int) -> None:
        self._opener = opener
        self._size = size
        self._idle: list[Wire] = []
        self._open = 0  # and being opened
        self._change = threading.Condition()
        self.is_closed = False

    async def take(self, *, is_beat: bool) -> Wire:
        """Return a connection that is nobody else's; blocks, and never suspends.

        Raises:
            EngineBusy: all were taken for too long.
            psycopg.Error: none could be opened.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        size = self._size + is_beat
        with self._change:
            while True:
                if self.is_closed:
                    raise Retired
                while self._idle:
                    wire = self._idle.pop()
                    if wire.is_usable:
                        return wire
                    self._drop(wire)
                if self._open < size:
                    self._open += 1
                    break
                if not self._change.wait(max(0.0, until - time.monotonic())):
                    raise taken(self._size, self._opener)
        try:
            connection = self._opener.open()
        except BaseException:
            with self._change:
                self._open -= 1
                self._change.notify()
            raise
        return self._opener.wire(connection, Blocking(connection.pgconn))

    def give(self, wire: Wire) -> None:
        """Take a connection back, or what is left of it."""
        wire.since = now = time.monotonic()
        with self._change:
            if wire.is_lost or self.is_closed:
                self._drop(wire)
            else:
                self._idle.append(wire)
                if now - self._idle[0].since > IDLE_SECONDS:
                    self._drop(self._idle.pop(0))
            self._change.notify()

    def suspect(self) -> None:
        """Close what is idle: a connection is half-open, and so may be the others."""
        with self._change:
            while self._idle:
                self._drop(self._idle.pop())
            self._change.notify_all()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - for threads: it never suspends

    def close(self) -> None:
        """Wait for what has begun, then close all."""
        until = time.monotonic() + ANSWER_SECONDS
        with self._change:
            self.is_closed = True
            while True:
                while self._idle:
                    self._drop(self._idle.pop())
                if not self._open or not self._change.wait(until - time.monotonic()):
                    return

    def _drop(self, wire: Wire) -> None:
        self._open -= 1
        wire.close()


class LoopPool:
    """Connections for one event loop. Only that loop's thread uses it."""

    def __init__(
        self,
        opener: Opener,
        size: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.is_closed = False
        self._opener = opener
        self._size = size
        self._idle: list[Wire] = []
        self._taken: set[Wire] = set()
        self._opening = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def take(self, *, is_beat: bool) -> Wire:
        """Return a connection that is nobody else's.

        Raises:
            EngineBusy: all were taken for too long.
            psycopg.Error: none could be opened.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        size = self._size + is_beat
        while True:
            if self.is_closed:
                raise Retired
            while self._idle:
                wire = self._idle.pop()
                if wire.is_usable:
                    self._taken.add(wire)
                    return wire
                wire.close()
            if len(self._taken) + self._opening < size:
                break
            await self._turn(until)
        self._opening += 1
        try:
            # In a thread: names are looked up there, and no loop is held up.
            connection = await in_thread(self._opener.open, self.loop, psycopg.Connection.close)
        except BaseException:
            self._wake()
            raise
        finally:
            self._opening -= 1
        wire = self._opener.wire(connection, Suspending(connection.pgconn, self.loop))
        self._taken.add(wire)
        return wire

    def give(self, wire: Wire) -> None:
        """Take a connection back, or what is left of it."""
        self._taken.discard(wire)
        wire.since = now = time.monotonic()
        if wire.is_lost or self.is_closed:
            wire.close()
        else:
            self._idle.append(wire)
            if now - self._idle[0].since > IDLE_SECONDS:
                self._idle.pop(0).close()
        self._wake()

    def suspect(self) -> None:
        """Close what is idle: a connection is half-open, and so may be the others."""
        while self._idle:
            self._idle.pop().close()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Close what is idle; what is taken is closed when it comes back.

        Of a loop that has ended nothing comes back.
        """
        self.is_closed = True
        for waiter in self._line:
            if not waiter.done():
                waiter.set_result(None)  # to find it closed
        while self._idle:
            self._idle.pop().close()
        if self.loop.is_closed():
            for wire in list(self._taken):
                wire.close()

    @property
    def is_done(self) -> bool:
        """Whether nothing is under way."""
        return not self._taken and not self._opening

    async def _turn(self, until: float) -> None:
        mine = self.loop.create_future()
        self._line.append(mine)
        try:
            async with asyncio.timeout(max(0, until - time.monotonic())):
                await mine
        except TimeoutError:
            raise taken(self._size, self._opener) from None
        except BaseException:
            if mine.done() and not mine.cancelled():
                self._wake()  # it was this one's turn: the next one's now
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._line.remove(mine)

    def _wake(self) -> None:
        while self._line:
            first = self._line.popleft()
            if not first.done():
                first.set_result(None)
                return


def taken(size: int, opener: Opener) -> EngineBusy:
    """Return the error for a pool of which nothing came free."""
    return EngineBusy(
        f"all {size} connections of this process to {opener.address.url} are in use, and none "
        "came free in time; raise pool= in the URL, or do less at a time"
    )
