"""Joining: plans in the caller's own transaction, on the caller's connection.

The caller commits. Only then are bells rung: the connection tells of its commit just
before it, so a thread waits until the change can be seen.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from backlane.engine.plan import Plan, finish
from backlane.engine.sqlite.bells.bell import Belfry
from backlane.engine.sqlite.store.faults import translated
from backlane.engine.sqlite.store.transaction import Rings, SqliteTx
from backlane.errors import WrongUse

T = TypeVar("T")

SEEN_WITHIN_SECONDS = 1.0
LOOK_SECONDS = 0.001


def checked(connection: object, path: Path) -> apsw.Connection:
    """Return a connection whose open transaction can be joined.

    Raises:
        WrongUse: it cannot be; says why, and which can.
    """
    own = on_file(connection, path)
    if not own.in_transaction:
        raise WrongUse(
            "the connection is in no transaction, so there is nothing to join: begin one "
            "first ('begin immediate', or `with connection:`), or leave connection= out"
        )
    return own


def on_file(connection: object, path: Path) -> apsw.Connection:
    """Return a connection that is an apsw one on the file of the jobs.

    Raises:
        WrongUse: it is not; says why, and which would be.
    """
    if not isinstance(connection, apsw.Connection):
        raise WrongUse(_foreign(connection, path))
    theirs = connection.db_filename("main") or "(memory)"
    if not Path(theirs).exists() or not Path(theirs).samefile(path):
        raise WrongUse(
            f"the connection is open on {theirs}, and the jobs are in {path}; use one on that "
            "file, for only its transaction can hold both"
        )
    return connection


def _foreign(connection: object, path: Path) -> str:
    """Return why something that is no apsw connection cannot be joined, and what to do."""
    library = type(connection).__module__.partition(".")[0]
    what = f"a connection of {library}"
    is_alias = isinstance(connection, str) and ":" not in connection
    if is_alias or library == "django":
        what = f"the Django alias {connection!r}" if is_alias else what
        later = "Enqueue after the commit: transaction.on_commit(lambda: task.enqueue(…))"
    elif library == "sqlalchemy":
        later = 'Enqueue after the commit: @event.listens_for(session, "after_commit")'
    elif library in ("sqlite3", "_sqlite3"):
        later = "Use an apsw.Connection, or enqueue after your commit"
    else:
        return (
            f"{type(connection).__name__} cannot be joined: pass an apsw.Connection that is "
            f"open on {path} and in a transaction"
        )
    return (
        f"{what} cannot be joined: it would bring a second SQLite library to {path} in this "
        "process, and closing its handle drops the locks of the first, which loses "
        f"acknowledged jobs. {later}"
    )


class Joins:
    """The callers' connections that one process has joined, and whom to ring for them."""

    def __init__(self, path: str, version: Callable[[], int], belfry: Belfry) -> None:
        self._path = path
        self._version = version
        self._belfry = belfry
        # By connection, so that joining one transaction twice rings for both.
        self._pending: weakref.WeakKeyDictionary[apsw.Connection, Rings]
        self._pending = weakref.WeakKeyDictionary()

    def join(self, connection: apsw.Connection) -> JoinedTransaction:
        """Join the transaction that is open on a connection."""
        if connection not in self._pending:
            here = weakref.ref(connection)
            connection.set_commit_hook(lambda: self._commits(here()), id=id(self))
            connection.set_rollback_hook(lambda: self._rolls_back(here()), id=id(self))
            self._pending[connection] = Rings()
        return JoinedTransaction(connection, self._path, self._pending[connection])

    def _commits(self, connection: apsw.Connection | None) -> bool:
        rings = self._forget(connection)
        if rings is not None and self._belfry.is_listened(rings):
            threading.Thread(
                target=self._ring_once_seen, args=(self._version(), rings), daemon=True
            ).start()
        return False  # go ahead

    def _rolls_back(self, connection: apsw.Connection | None) -> None:
        self._forget(connection)

    def _forget(self, connection: apsw.Connection | None) -> Rings | None:
        rings = self._pending.get(connection) if connection is not None else None
        return rings.empty() if rings is not None else None

    def _ring_once_seen(self, before: int, rings: Rings) -> None:
        until = time.monotonic() + SEEN_WITHIN_SECONDS
        while self._version() == before and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        self._belfry.ring(rings)


class JoinedTransaction:
    """The caller's open transaction."""

    def __init__(self, connection: apsw.Connection, path: str, rings: Rings) -> None:
        self._connection = connection
        self._path = path
        self._rings = rings

    def run(self, plan: Plan[T]) -> T:
        """Run a plan; what it did is durable once the caller commits."""
        if not self._connection.in_transaction:
            raise WrongUse("the transaction that was joined has ended; join the next one anew")
        tx = SqliteTx(self._connection)
        try:
            value = finish(plan.within(tx))
        except Exception as error:
            if isinstance(error, apsw.SQLError) and not self._has_tables():
                # They are not made here: DDL would be the caller's to commit or roll back.
                raise WrongUse(
                    f"{self._path} has no tables of backlane yet; make them before the "
                    f"transaction begins, once: backlane migrate --url sqlite:///{self._path}"
                ) from error
            told = translated(error, self._path)
            if told is error:
                raise
            raise told from error
        self._rings.add(tx.rings)
        return value

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`: a statement on the caller's connection never waits."""
        return self.run(plan)

    def _has_tables(self) -> bool:
        return self._connection.table_exists("main", "backlane_job")
