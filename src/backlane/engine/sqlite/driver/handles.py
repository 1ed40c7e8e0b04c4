"""Handles: all that one process has open of a database. A fork opens its own.

What a child inherits it must never close: SQLite would write a log that is the
parent's, so the connections are kept for ever instead. Lock files are closed: the lock
stays the parent's, and a copy left open would outlive the parent.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

import apsw

from backlane.engine.plan import Plan, Sql
from backlane.engine.sqlite.bells.bell import Belfry
from backlane.engine.sqlite.driver.checkpoint import Checkpointer
from backlane.engine.sqlite.driver.joining import Joins
from backlane.engine.sqlite.driver.reader import Reader
from backlane.engine.sqlite.driver.store import Store
from backlane.engine.sqlite.driver.writer import Writer
from backlane.engine.sqlite.store.connection import Database
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.presence import Roll
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock

# A small scan: one row for each running job.
OWNERS: Sql[tuple[str]] = Sql(
    """
    select distinct owner
    from backlane_lease
    where owner in (select value from carray(?))
    """
)


class Handles:
    """The writer, the readers, the bells and the locks of one process."""

    def __init__(self, database: Database, clock: Clock, boot_id: Callable[[], str]) -> None:
        self._pid = os.getpid()
        self._database = database
        self._probe: apsw.Connection | None = None
        self._probing = threading.Lock()
        self._is_open = False
        self.store = Store(database, on_log=self._saw_log, boot_id=boot_id)
        self.belfry = Belfry(database.side / "bells", self.version)
        self.roll = Roll(database.side / "owners")
        self.writer = Writer(self.store, clock, self.belfry.ring)
        self.reader = Reader(database, self.open)
        self.joins = Joins(database.name, self.version, self.belfry)
        self.checkpointer = Checkpointer(database, self.writer.exclusively)
        _living.add(self)

    @property
    def is_own(self) -> bool:
        return self._pid == os.getpid()

    def open(self) -> None:
        """Make, check and migrate the file, once in this process."""
        if not self._is_open:
            self.writer.open()
            self._is_open = True

    def version(self) -> int:
        """Return a number that changes with every commit of another connection."""
        with self._probing, inside_sqlite:
            if self._probe is None:
                self._probe = self._database.connect()
            version: int = self._probe.pragma("data_version")
            return version

    def departed(self) -> tuple[str, ...]:
        """Return the dead owners that still have leases; forget those that have none."""
        dead = self.roll.departed()
        if not dead:
            return ()
        owning = {owner for (owner,) in self.reader.run(Plan(lambda tx: _owners(tx, dead)))}
        for owner in dead:
            if owner not in owning:
                self.roll.forget(owner)
        return tuple(owner for owner in dead if owner in owning)

    def close(self) -> None:
        """Wait for what has begun, then close everything."""
        self.checkpointer.close()
        self.writer.close()
        self.reader.close()
        self.belfry.close()
        with self._probing, inside_sqlite:
            if self._probe is not None:
                self._probe.close(force=True)
                self._probe = None
        _living.discard(self)

    def abandon(self) -> None:
        """Let go of what a fork inherited, without touching the database."""
        for connection in [*self.store.handles(), *self.reader.handles(), self._probe]:
            if connection is not None:
                _keep_for_ever(connection)
        self.leave_locks()

    def leave_locks(self) -> None:
        """Close the copies of lock files, which would keep a dead parent's locks."""
        self.belfry.abandon()
        self.store.gate.abandon()
        self.checkpointer.abandon()

    def _saw_log(self, pages: int) -> None:
        self.checkpointer.saw_log(pages)


async def _owners(tx: SqliteTx, dead: list[str]) -> list[tuple[str]]:
    return await tx.rows(OWNERS, array(dead))


def _keep_for_ever(connection: apsw.Connection) -> None:
    """Leak a connection on purpose, also past the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


# Not state: only what a forked child must close before it does anything else.
_living: weakref.WeakSet[Handles] = weakref.WeakSet()


def _leave_locks_of_parent() -> None:
    for handles in list(_living):
        if not handles.is_own:
            handles.leave_locks()


os.register_at_fork(after_in_child=_leave_locks_of_parent)
