"""The reader: plans that only read, beside the writer and never in its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import apsw

from backlane.engine.plan import Plan, finish
from backlane.engine.sqlite.store.connection import Database
from backlane.engine.sqlite.store.faults import BREAKING, translated
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.transaction import SqliteTx

T = TypeVar("T")

IDLE_CONNECTIONS = 4


class Reader:
    """Connections for reading, as many as there are readers at a time."""

    def __init__(self, database: Database, prepare: Callable[[], None]) -> None:
        self._database = database
        self._prepare = prepare
        self._idle: list[apsw.Connection] = []
        self._all: set[apsw.Connection] = set()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def run(self, plan: Plan[T]) -> T:
        """Read on this thread, all statements of the plan in one snapshot."""
        try:
            self._prepare()
            with inside_sqlite:
                return self._read(plan)
        except Exception as error:
            told = translated(error, self._database.name)
            if told is error:
                raise
            raise told from error

    def _read(self, plan: Plan[T]) -> T:
        connection = self._take()
        is_broken = True
        try:
            connection.execute("begin")
            value = finish(plan.within(SqliteTx(connection)))
            connection.execute("commit")
            is_broken = False
        except Exception as error:
            is_broken = isinstance(error, BREAKING) or not _rolled_back(connection)
            raise
        finally:
            self._give_back(connection, is_broken=is_broken)
        return value

    async def arun(self, plan: Plan[T]) -> T:
        """Read on a thread of the reader's own: a page may take some milliseconds."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(2, "backlane-reader")
            reading = self._threads.submit(self.run, plan)
        return await asyncio.wrap_future(reading)

    def close(self) -> None:
        """Wait for what is read, then close all connections."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
        with self._lock, inside_sqlite:
            for connection in self._all:
                connection.close(force=True)
            self._all.clear()
            self._idle.clear()

    def handles(self) -> list[apsw.Connection]:
        """Return what a forked child has to abandon."""
        return list(self._all)

    def _take(self) -> apsw.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = self._database.connect()
        with self._lock:
            self._all.add(connection)
        return connection

    def _give_back(self, connection: apsw.Connection, *, is_broken: bool) -> None:
        with self._lock:
            if not is_broken and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
            self._all.discard(connection)
        connection.close(force=True)


def _rolled_back(connection: apsw.Connection) -> bool:
    if connection.in_transaction:
        try:
            connection.execute("rollback")
        except apsw.Error:
            return False
    return True
