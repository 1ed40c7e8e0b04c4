"""A transaction that a job holds open, on the caller's connection or on one of ours.

It waits for the write lock at the gate, as our own writer does, and keeps its place
there until it ends: others queue behind it instead of trying again and again.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import apsw

from backlane.engine.plan import Plan
from backlane.engine.sqlite.driver.handles import Handles
from backlane.engine.sqlite.driver.joining import checked, on_file
from backlane.engine.sqlite.store.connection import Database
from backlane.engine.sqlite.store.faults import translated
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.gate import Gate
from backlane.errors import WrongUse

T = TypeVar("T")


class Block:
    """One transaction of a job: begun, joined by plans, ended."""

    def __init__(
        self, handles: Handles, database: Database, connection: apsw.Connection | None
    ) -> None:
        self._handles = handles
        self._database = database
        self._own = connection is None  # made here, and closed here
        self._connection = connection
        self._gate: Gate | None = None

    def begin(self) -> apsw.Connection:
        """Begin to write, waiting for the lock; in a transaction of the caller's, go on."""
        self._handles.open()
        connection = self._connection
        if connection is not None and connection.in_transaction:
            return connection
        self._gate = gate = Gate(self._database.side / "gate")
        gate.acquire()
        try:
            with inside_sqlite:
                if connection is None:
                    connection = self._connection = self._database.connect()
                self._database.begin(connection)
        except BaseException:
            self._leave()
            raise
        return connection

    def run(self, plan: Plan[T]) -> T:
        """Run a plan in the transaction."""
        if self._connection is None:
            raise WrongUse("the transaction has not begun")
        connection = checked(self._connection, self._database.path)
        with inside_sqlite:
            return self._handles.joins.join(connection).run(plan)

    def commit(self) -> None:
        """Make all of it durable; bells ring by the hook that joining has set."""
        try:
            if self._connection is not None:
                with inside_sqlite:
                    self._connection.execute("commit")
        except apsw.Error as error:
            raise translated(error, self._database.name) from error
        self._leave()

    def rollback(self) -> None:
        """Undo all of it."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                with inside_sqlite:
                    self._connection.execute("rollback")
        finally:
            self._leave()

    def _leave(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()
            gate.close()
        if self._own and self._connection is not None:
            with inside_sqlite:
                self._connection.close(force=True)
            self._connection = None

    # The lock may take seconds and the commit a write to stable storage, so neither is
    # waited for in the event loop.

    async def abegin(self) -> apsw.Connection:
        """Like `begin`."""
        return await asyncio.to_thread(self.begin)

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`: a statement never waits."""
        return self.run(plan)

    async def acommit(self) -> None:
        """Like `commit`."""
        await asyncio.to_thread(self.commit)

    async def arollback(self) -> None:
        """Like `rollback`."""
        await asyncio.to_thread(self.rollback)


def block(handles: Handles, database: Database, connection: object | None) -> Block:
    """Return a transaction on `connection`, or on one of its own.

    Raises:
        WrongUse: the connection cannot be joined; says why, and which can.
    """
    own = None if connection is None else on_file(connection, database.path)
    return Block(handles, database, own)
