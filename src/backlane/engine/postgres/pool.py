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
from typing import Any

import psycopg

from backlane.engine.postgres.opener import ANSWER_SECONDS, Opener
from backlane.engine.postgres.waits import Blocking, Suspending
from backlane.engine.postgres.wire import Wire
from backlane.errors import EngineBusy

PATIENCE_SECONDS = 5.0
IDLE_SECONDS = 120.0


class ThreadPool:
    """Connections for the threads of a process."""

    def __init__(self, opener: Opener, size: int, patience: float = PATIENCE_SECONDS) -> None:
        self._opener = opener
        self._size = size
        self._patience = patience
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
        until = time.monotonic() + self._patience
        size = self._size + is_beat
        with self._change:
            while True:
                while self._idle:
                    wire = self._idle.pop()
                    if wire.is_usable:
                        return wire
                    self._drop(wire)
                if self._open < size:
                    self._open += 1
                    break
                if not self._change.wait(until - time.monotonic()):
                    raise taken(self._size, self._opener)
        try:
            connection = self._opener.open()
        except BaseException:
            with self._change:
                self._open -= 1
                self._change.notify()
            raise
        return self._wire(connection)

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

    def _wire(self, connection: psycopg.Connection[Any]) -> Wire:
        return Wire(
            connection,
            Blocking(connection.pgconn),
            prepares=not self._opener.is_pooled,
            seconds=ANSWER_SECONDS,
        )

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
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.loop = loop
        self.is_closed = False
        self._opener = opener
        self._size = size
        self._patience = patience
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
        until = time.monotonic() + self._patience
        size = self._size + is_beat
        while True:
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
            connection = await opened(self._opener, self.loop)
        except BaseException:
            self._wake()
            raise
        finally:
            self._opening -= 1
        wire = Wire(
            connection,
            Suspending(connection.pgconn, self.loop),
            prepares=not self._opener.is_pooled,
            seconds=ANSWER_SECONDS,
        )
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

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Close what is idle; what is taken is closed when it comes back.

        Of a loop that has ended nothing comes back.
        """
        self.is_closed = True
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


async def opened(opener: Opener, loop: asyncio.AbstractEventLoop) -> psycopg.Connection[Any]:
    """Open a connection in a thread: names are looked up there, and no loop is held up."""
    answer: asyncio.Future[psycopg.Connection[Any]] = loop.create_future()

    def tell(connection: psycopg.Connection[Any] | None, error: BaseException | None) -> None:
        if answer.done():  # whoever asked has gone
            if connection is not None:
                connection.close()
        elif connection is not None:
            answer.set_result(connection)
        elif error is not None:
            answer.set_exception(error)

    def work() -> None:
        connection, failure = None, None
        try:
            connection = opener.open()
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failure = error
        try:
            loop.call_soon_threadsafe(tell, connection, failure)
        except RuntimeError:  # the loop has ended
            if connection is not None:
                connection.close()

    threading.Thread(target=work, name="backlane-connect", daemon=True).start()
    return await answer


def taken(size: int, opener: Opener) -> EngineBusy:
    """Return the error for a pool of which nothing came free."""
    return EngineBusy(
        f"all {size} connections of this process to {opener.address.url} are in use, and none "
        "came free in time; raise pool= in the URL, or do less at a time"
    )
