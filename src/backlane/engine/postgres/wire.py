"""Wires: one connection each, spoken to through libpq itself.

psycopg opens the connection and brings libpq; its cursors are passed by, for they cost
60 to 100 µs a statement. Statements are prepared at their first use (unless a pooler
stands between), values go and come in binary form, and every wait has an end.

A wire that failed in the middle of a conversation is broken: nothing is known of where
it stands, so it is closed and never used again.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.postgres import register_default_adapters, types
from psycopg.types.array import register_all_arrays

from backlane.engine.postgres.statement import Statement

_ADAPTERS = AdaptersMap(types=types)
register_default_adapters(_ADAPTERS)
register_all_arrays(_ADAPTERS)

_TUPLES = pq.ExecStatus.TUPLES_OK
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC)
_BINARY = 1


class Silent(Exception):  # noqa: N818 - not told to anybody: translated by the driver
    """The server did not answer within the time that a statement may take."""


class Answers:
    """Turns results into rows. One for each connection."""

    __slots__ = ("_transformer",)

    def __init__(self) -> None:
        self._transformer = Transformer(_ADAPTERS)  # not the application's own loaders

    def rows(self, result: pq.abc.PGresult) -> list[Any]:
        """Return the rows of a result.

        Raises:
            psycopg.Error: the server refused the statement.
        """
        if result.status == _TUPLES:
            if not result.ntuples:
                return []
            self._transformer.set_pgresult(result, format=pq.Format.BINARY)
            return self._transformer.load_rows(0, result.ntuples, tuple)
        if result.status in _GOOD:
            return []
        raise psycopg.errors.error_from_result(result)


class SyncWire:
    """A connection for the threads of a process; one at a time uses it."""

    def __init__(
        self, connection: psycopg.Connection[Any], *, prepares: bool, seconds: float
    ) -> None:
        self.connection = connection
        self.pgconn = connection.pgconn
        self.pgconn.nonblocking = 1
        self.seconds = seconds
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        self._answers = Answers()
        self._poll = select.poll()
        self._fd = self.pgconn.socket
        self._poll.register(self._fd, select.POLLIN)

    async def rows(self, statement: Statement, params: Sequence[Any]) -> list[Any]:
        """Run a statement and return its rows; never suspends."""
        values = statement.encoded(params)
        if not self._prepares:
            self.pgconn.send_query_params(
                statement.text, values, statement.oids, statement.formats, _BINARY
            )
            return self._answers.rows(self._result())
        if statement.name not in self._prepared:
            self.pgconn.send_prepare(statement.name, statement.text, statement.oids)
            self._answers.rows(self._result())
            self._prepared.add(statement.name)
        self.pgconn.send_query_prepared(statement.name, values, statement.formats, _BINARY)
        return self._answers.rows(self._result())

    async def each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a statement for each row of parameters."""
        answers: list[Any] = []
        for row in rows:
            answers += await self.rows(statement, row)
        return answers

    def command(self, text: bytes) -> None:
        """Run a statement that has no parameters and whose rows are of no interest."""
        self.pgconn.send_query(text)
        self._answers.rows(self._result())

    def _result(self) -> pq.abc.PGresult:
        """Return the one result of what was sent."""
        pgconn = self.pgconn
        until = time.monotonic() + self.seconds
        while pgconn.flush():
            self._wait(until, select.POLLIN | select.POLLOUT)
            pgconn.consume_input()
        last = None
        while True:
            while pgconn.is_busy():
                self._wait(until, select.POLLIN)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            last = result
        assert last is not None
        return last

    def _wait(self, until: float, events: int) -> None:
        if events != select.POLLIN:
            self._poll.modify(self._fd, events)
        try:
            left = until - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise Silent(f"no answer within {self.seconds:.0f} s")
        finally:
            if events != select.POLLIN:
                self._poll.modify(self._fd, select.POLLIN)
