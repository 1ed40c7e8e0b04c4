"""Cursors: statements of ours on a connection that is not ours.

The caller's connection may have loaders, row factories and a pipeline of its own, so a
raw cursor of psycopg sends what was encoded here, and what comes back is decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, PyFormat
from psycopg.adapt import Dumper, Transformer
from psycopg.pq import Format

from backlane.engine.postgres.store.statement import Statement
from backlane.engine.postgres.store.wire import ADAPTERS


class Encoded:
    """A parameter as it goes over the wire."""

    __slots__ = ("oid", "value")

    def __init__(self, value: bytes, oid: int) -> None:
        self.value = value
        self.oid = oid


class EncodedDumper(Dumper):
    """Sends what is encoded already; one for each type."""

    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)

    def get_key(self, obj: Encoded, format: PyFormat) -> Any:  # noqa: A002, ARG002
        return (Encoded, obj.oid)

    def upgrade(self, obj: Encoded, format: PyFormat) -> EncodedDumper:  # noqa: A002, ARG002
        made = EncodedDumper(Encoded)
        made.oid = obj.oid
        return made

    def dump(self, obj: Encoded) -> bytes:
        return obj.value


class CursorWire:
    """Statements on a caller's connection, within its transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = psycopg.RawCursor(connection)
        self._cursor.adapters.register_dumper(Encoded, EncodedDumper)

    async def rows(self, statement: Statement, params: Sequence[Any]) -> list[Any]:
        """Run a statement and return its rows; never suspends."""
        self._cursor.execute(statement.text, _sent(statement, params), prepare=False, binary=True)
        return _rows(self._cursor.pgresult)

    async def each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a statement for each row of parameters."""
        answers: list[Any] = []
        for row in rows:
            answers += await self.rows(statement, row)
        return answers


class AsyncCursorWire:
    """Like `CursorWire`, on a connection that is used with `await`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._cursor = psycopg.AsyncRawCursor(connection)
        self._cursor.adapters.register_dumper(Encoded, EncodedDumper)

    async def rows(self, statement: Statement, params: Sequence[Any]) -> list[Any]:
        """Run a statement and return its rows."""
        await self._cursor.execute(
            statement.text, _sent(statement, params), prepare=False, binary=True
        )
        return _rows(self._cursor.pgresult)

    async def each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a statement for each row of parameters."""
        answers: list[Any] = []
        for row in rows:
            answers += await self.rows(statement, row)
        return answers


def _sent(statement: Statement, params: Sequence[Any]) -> list[Encoded | None]:
    values = statement.encoded(params)
    return [
        None if value is None else Encoded(value, oid)
        for value, oid in zip(values, statement.oids, strict=True)
    ]


def _rows(result: psycopg.pq.abc.PGresult | None) -> list[Any]:
    if result is None or not result.ntuples:
        return []
    decoding = Transformer(ADAPTERS)
    decoding.set_pgresult(result, format=Format.BINARY)
    return decoding.load_rows(0, result.ntuples, tuple)
