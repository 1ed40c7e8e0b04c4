"""Waits: how a conversation waits for its socket, in a thread or in an event loop.

Each wait has an end: a server behind a half-open connection never answers and never
closes it, and nothing but a time-out tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import psycopg
from psycopg import pq

from backlane.engine.postgres.store.fork import Twin

T = TypeVar("T")


class Silence(psycopg.OperationalError):
    """The server did not answer within the time that a statement may take."""


class Waits(Protocol):
    """How one connection's socket is waited for; `until` is of `time.monotonic`."""

    async def until_answered(self, until: float) -> None:
        """Wait for a whole answer, or for a part of it; what came has been read."""

    async def until_writable(self, until: float) -> None:
        """Wait until more can be sent, or something has been read."""

    async def ask(self, question: Callable[[], bool]) -> bool:
        """Ask what takes a while to answer."""

    def is_calm(self) -> bool:
        """Whether an idle connection is still there, as far as this side knows."""

    def close(self) -> None:
        """Wait no more."""


class Blocking:
    """Waits in the calling thread; its coroutines never suspend."""

    __slots__ = ("_fd", "_pgconn", "_poll")

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._fd = pgconn.socket
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    async def until_answered(self, until: float) -> None:
        self._wait(until)
        self._pgconn.consume_input()

    async def until_writable(self, until: float) -> None:
        self._poll.modify(self._fd, select.POLLIN | select.POLLOUT)
        try:
            self._wait(until)
        finally:
            self._poll.modify(self._fd, select.POLLIN)
        self._pgconn.consume_input()

    async def ask(self, question: Callable[[], bool]) -> bool:
        return question()

    def is_calm(self) -> bool:
        try:
            if self._poll.poll(0):
                self._pgconn.consume_input()  # a notice, or the end of the connection
        except (psycopg.Error, OSError):
            return False
        return True

    def close(self) -> None:
        pass

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise Silence("the server did not answer in time")


class Suspending:
    """Waits in an event loop, which watches the socket from the first moment to the last.

    What arrives is read at once, so that a caller is woken once and for a whole answer;
    and that a server went away is known before the next statement is sent into nothing.
    """

    __slots__ = ("_end", "_loop", "_pgconn", "_twin", "_waiter")

    def __init__(self, pgconn: pq.abc.PGconn, loop: asyncio.AbstractEventLoop) -> None:
        self._pgconn = pgconn
        self._twin = Twin(pgconn)
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._end: BaseException | None = None
        loop.add_reader(self._twin.number, self._readable)

    async def until_answered(self, until: float) -> None:
        await self._wait(until)

    async def until_writable(self, until: float) -> None:
        self._loop.add_writer(self._twin.number, self._wake)
        try:
            await self._wait(until)
        finally:
            if not self._loop.is_closed():
                self._loop.remove_writer(self._twin.number)

    async def ask(self, question: Callable[[], bool]) -> bool:
        return await in_thread(question, self._loop)

    def is_calm(self) -> bool:
        return self._end is None

    def close(self) -> None:
        if self._twin.number >= 0 and not self._loop.is_closed():
            # A loop may be closed by its thread at this very moment.
            with contextlib.suppress(RuntimeError, ValueError):
                self._loop.remove_reader(self._twin.number)
        self._twin.close()

    async def _wait(self, until: float) -> None:
        if self._end is not None:
            raise self._end
        self._waiter = self._loop.create_future()
        alarm = self._loop.call_later(max(0, until - time.monotonic()), self._give_up)
        try:
            await self._waiter
        finally:
            alarm.cancel()
            self._waiter = None

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            self._end = error
            self._loop.remove_reader(self._twin.number)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
            return
        if self._waiter is not None and not self._pgconn.is_busy():
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Silence("the server did not answer in time"))


async def in_thread(
    work: Callable[[], T],
    loop: asyncio.AbstractEventLoop,
    give_up: Callable[[T], object] = bool,
) -> T:
    """Do what blocks in a thread of its own; `give_up` gets an answer nobody waits for.

    Not in the loop's own threads: those are the application's, and a loop that ends waits
    for them.
    """
    answer: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: BaseException | None) -> None:
        if error is not None:
            if not answer.done():
                answer.set_exception(error)
        elif answer.done():  # whoever asked has gone
            give_up(cast("T", value))
        else:
            answer.set_result(cast("T", value))

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failure = error
        try:
            loop.call_soon_threadsafe(tell, value, failure)
        except RuntimeError:  # the loop has ended
            if failure is None:
                give_up(cast("T", value))

    threading.Thread(target=run, name="backlane-connect", daemon=True).start()
    return await answer
