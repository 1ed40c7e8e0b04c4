"""The transaction of the SQLite engine: what plans run on, and what they leave to do.

Its methods never suspend, so `finish` brings a verb to its end in one step. `rings`
is what a plan wants done after the commit, as it is not in the store.
"""

from __future__ import annotations

from array import array as numbers
from collections.abc import Sequence
from typing import Any, TypeVar

import apsw

from backlane.engine.plan import Sql

R = TypeVar("R")


class Rings:
    """Whose bells to ring once the transaction is committed."""

    __slots__ = ("jobs", "queues", "starts")

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.jobs: list[bytes] = []
        self.starts: list[bytes] = []  # jobs that a worker took: few listen for that

    def add(self, other: Rings) -> None:
        self.queues |= other.queues
        self.jobs += other.jobs
        self.starts += other.starts

    def empty(self) -> Rings:
        """Take everything out and return it."""
        taken = Rings()
        taken.add(self)
        self.queues, self.jobs, self.starts = set(), [], []
        return taken


class SqliteTx:
    """An open transaction on one connection."""

    __slots__ = ("_connection", "rings")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.rings = Rings()

    async def rows(self, statement: Sql[R], *params: Any) -> list[R]:
        """Run a statement once and return all its rows."""
        rows: list[Any] = self._connection.execute(statement.text, params).fetchall()
        return rows

    async def each(self, statement: Sql[R], rows: Sequence[Sequence[Any]]) -> list[R]:
        """Run a statement for each row of parameters; return all rows of all runs."""
        answers: list[Any] = self._connection.executemany(statement.text, rows).fetchall()
        return answers


def array(values: Sequence[bytes] | Sequence[str]) -> Any:
    """Bind many values as one parameter, read in SQL by `carray(?)`.

    The array is read without calling back into Python. It must not be empty.
    """
    return apsw.carray(tuple(values))


def integers(values: Sequence[int]) -> Any:
    """Bind many numbers as one parameter, read in SQL by `carray(?)`. Not empty."""
    return apsw.carray(numbers("q", values))
