"""Lent connections: for jobs that write together with their completion.

They are as an application would open them, with the server's own defaults, and not like
those that verbs run on. At most as many as the pool is large; kept for the next job.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from backlane.engine.postgres.driver.pool import PATIENCE_SECONDS, taken
from backlane.engine.postgres.store import faults
from backlane.engine.postgres.store.fork import live
from backlane.engine.postgres.store.opener import Opener

Lent = psycopg.Connection[Any]
ALent = psycopg.AsyncConnection[Any]


class Lending:
    """The lent connections of one process."""

    def __init__(self, opener: Opener, size: int) -> None:
        self._opener = opener
        self._size = size
        self._idle: list[Lent] = []
        self._places = threading.Semaphore(size)
        self._loops: dict[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, list[ALent]]] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    # -- without `await` --

    def lend(self) -> Lent:
        """Return a connection in a transaction.

        Raises:
            EngineBusy: all were lent for too long.
            EngineUnavailable: none could be opened.
        """
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            raise taken(self._size, self._opener)
        try:
            while self._idle:
                with contextlib.suppress(IndexError):  # another thread was quicker
                    found = self._idle.pop()
                    if _begun(found):
                        return found
            made = psycopg.connect(self._opener.address.conninfo, **self._options())
            live.add(made)
            made.execute("select")
        except (psycopg.Error, OSError) as error:
            self._places.release()
            raise faults.translated(error, self._opener.address) from error
        except BaseException:
            self._places.release()
            raise
        return made

    def take_back(self, connection: Lent) -> None:
        """Keep a connection for the next job, if it is as it was."""
        if _is_clean(connection) and not self._is_closed:
            self._idle.append(connection)
        else:
            _close(connection)
        self._places.release()

    # -- with it --

    async def alend(self) -> ALent:
        """Like `lend`, in the running loop."""
        places, idle = self._of(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise taken(self._size, self._opener) from None
        try:
            while idle:
                found = idle.pop()
                if await _abegun(found):
                    return found
            made = await psycopg.AsyncConnection.connect(
                self._opener.address.conninfo, **self._options()
            )
            live.add(made)
            await made.execute("select")
        except (psycopg.Error, OSError) as error:
            places.release()
            raise faults.translated(error, self._opener.address) from error
        except BaseException:
            places.release()
            raise
        return made

    async def atake_back(self, connection: ALent) -> None:
        """Like `take_back`."""
        places, idle = self._of(asyncio.get_running_loop())
        if _is_clean(connection) and not self._is_closed:
            idle.append(connection)
        else:
            _close(connection)
        places.release()

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._is_closed = True
        with self._lock:
            of_loops = [idle for _, idle in self._loops.values()]
        for idle in of_loops:
            while idle:
                _close(idle.pop())
        while self._idle:
            _close(self._idle.pop())

    def _of(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Semaphore, list[ALent]]:
        with self._lock:
            for ended in [one for one in self._loops if one.is_closed()]:
                for connection in self._loops.pop(ended)[1]:
                    _close(connection)
            if loop not in self._loops:
                self._loops[loop] = asyncio.Semaphore(self._size), []
            return self._loops[loop]

    def _options(self) -> dict[str, Any]:
        # Behind a pooler the next statement may meet another session.
        return {"prepare_threshold": None} if self._opener.is_pooled else {}


def _begun(connection: Lent) -> bool:
    """Begin a transaction; False where the server went away while nobody looked."""
    try:
        connection.execute("select")
    except psycopg.OperationalError:
        _close(connection)
        return False
    return True


async def _abegun(connection: ALent) -> bool:
    try:
        await connection.execute("select")
    except psycopg.OperationalError:
        _close(connection)
        return False
    return True


def _is_clean(connection: Lent | ALent) -> bool:
    return (
        not connection.closed
        and connection.pgconn.transaction_status == TransactionStatus.IDLE
        and not connection.autocommit
    )


def _close(connection: Lent | ALent) -> None:
    connection._closed = True  # else psycopg warns that nobody closed it
    connection.pgconn.finish()
