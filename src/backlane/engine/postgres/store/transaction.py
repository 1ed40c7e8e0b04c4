"""The transaction of the PostgreSQL engine: what plans run on, and what they leave to do.

`rows` of a sync transaction never suspends, so `finish` brings a verb to its end in one
step. What is not in the store is left for after the commit: `rings` says whose bells to
ring, `then` what the process is to remember (floors, credits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.statement import Statement, Statements

R = TypeVar("R")


class Rings:
    """Whose bells to ring once the transaction is committed."""

    __slots__ = ("jobs", "queues", "starts")

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.jobs: list[bytes] = []
        self.starts: list[bytes] = []  # jobs that a worker took: few listen for that

    def __bool__(self) -> bool:
        return bool(self.queues or self.jobs or self.starts)

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


class Speaks(Protocol):
    """A connection on which statements run one after another."""

    async def rows(self, statement: Statement, params: Sequence[Any]) -> list[Any]:
        """Run a statement and return its rows as tuples."""

    async def each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a statement for each row of parameters, in one round trip."""


class PostgresTx:
    """An open transaction on one connection, or a run of statements atomic by themselves.

    Statements say `backlane.` for the schema and `$1::bigint` for a parameter; arrays
    are plain sequences, `None` in them is null. Rows are tuples: `bytea` as bytes.
    """

    __slots__ = ("_statements", "_thens", "_wire", "boot_ms", "is_joined", "rings", "wall_ms")

    def __init__(
        self,
        wire: Speaks,
        statements: Statements,
        *,
        wall_ms: int | None = None,
        boot_ms: int | None = None,
        is_joined: bool = False,
    ) -> None:
        self._wire = wire
        self._statements = statements
        self._thens: list[Callable[[], None]] = []
        self.rings = Rings()
        # The times of a clock that is not the machine's; None: the server's own hold.
        self.wall_ms = wall_ms
        self.boot_ms = boot_ms
        self.is_joined = is_joined  # the transaction is the caller's

    async def rows(self, statement: Sql[R], *params: Any) -> list[R]:
        """Run a statement once and return all its rows."""
        return await self._wire.rows(self._statements.of(statement), params)

    async def each(self, statement: Sql[R], rows: Sequence[Sequence[Any]]) -> list[R]:
        """Run a statement for each row of parameters; return all rows of all runs."""
        return await self._wire.each(self._statements.of(statement), rows)

    def then(self, remember: Callable[[], None]) -> None:
        """Have this called after the commit, and never if there is none. Must not wait."""
        self._thens.append(remember)

    def learned(self) -> list[Callable[[], None]]:
        """Return what is to be called after the commit."""
        return self._thens
