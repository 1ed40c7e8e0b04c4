"""Wires: one connection each, spoken to through libpq itself.

psycopg opens the connection and brings libpq; its cursors are passed by, for they cost
60 to 100 µs a statement. Statements are prepared at their first use (unless a pooler
stands between), values go and come in binary form, and every wait has an end.

What is posted is sent without waiting for its answer, which is read before the next
statement is sent, or once it is there.

A wire that failed in the middle of a conversation is broken: nothing is known of where
it stands, so it is closed and never used again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.postgres import register_default_adapters, types
from psycopg.types.array import register_all_arrays

from backlane.engine.postgres.store.statement import Statement
from backlane.engine.postgres.store.waits import Silence, Waits

# Not psycopg's global ones, to which the application may have added its own.
ADAPTERS = AdaptersMap(types=types)
register_default_adapters(ADAPTERS)
register_all_arrays(ADAPTERS)

# An answer later than this is rare enough to spend a connection on finding out why. On a
# half-open connection none ever comes, and a worker is to go on within 5 s.
PROBE_SECONDS = 1.0
UNDER_WAY_SECONDS = 0.5

# Where the session is shared, what is set has to end with the transaction.
LIMITS = (
    b"select pg_catalog.set_config('statement_timeout', '10s', true), "
    b"pg_catalog.set_config('lock_timeout', '5s', true)"
)

# Says whether the server is at work for the session of this number.
Probe = Callable[[int], bool]

_TUPLES = pq.ExecStatus.TUPLES_OK
_COMMAND = pq.ExecStatus.COMMAND_OK
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_BINARY = 1
_OK = pq.ConnStatus.OK


class Wire:
    """A connection on which one caller at a time speaks.

    With `waits` of a thread its coroutines never suspend; with those of an event loop
    they do, and the wire belongs to that loop.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_is_owed",
        "_prepared",
        "_prepares",
        "_probe",
        "_seconds",
        "_waits",
        "connection",
        "is_broken",
        "is_pending",
        "pgconn",
        "since",
    )

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        waits: Waits,
        *,
        prepares: bool,
        seconds: float,
        probe: Probe | None = None,
    ) -> None:
        self.connection = connection
        self.pgconn = connection.pgconn
        self.pgconn.nonblocking = 1
        self.is_broken = False
        self.is_pending = False  # a transaction that begins with the next statement
        self.since = time.monotonic()  # idle
        self._waits = waits
        self._seconds = seconds
        self._probe = probe
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        self._is_owed = False  # the answer to what was posted
        self._answers = Transformer(ADAPTERS)

    # -- statements --

    async def rows(self, statement: Statement, params: Sequence[Any]) -> list[Any]:
        """Run a statement and return its rows."""
        values = statement.encoded(params)
        if self.is_pending or (self._prepares and statement.name not in self._prepared):
            return await self._piped(statement, (values,))
        with _Conversation(self):
            await self._collect()
            self._send(statement, values)
            result = await self._result(time.monotonic() + self._seconds)
        return self._rows(result)

    async def each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a statement for each row of parameters, in one round trip."""
        return await self._piped(statement, [statement.encoded(row) for row in rows])

    async def command(self, text: bytes) -> bytes:
        """Run statements without parameters whose rows do not matter; return their tag."""
        with _Conversation(self):
            await self._collect()
            self.pgconn.send_query(text)
            result = await self._result(time.monotonic() + self._seconds)
        self._rows(result)
        return result.command_status or b""

    async def post(self, statement: Statement, params: Sequence[Any]) -> None:
        """Send a statement of which nobody needs to know what came of it."""
        if statement.name not in self._prepared:
            await self._piped(statement, (statement.encoded(params),))
            return
        with _Conversation(self):
            await self._collect()
            self._send(statement, statement.encoded(params))
            self._is_owed = True
            self.pgconn.flush()  # what does not fit in goes before the next statement

    async def _collect(self) -> None:
        """Read the answer to what was posted, whatever it says."""
        if self._is_owed:
            await self._result(time.monotonic() + self._seconds)
            self._is_owed = False

    async def _piped(
        self, statement: Statement, all_values: Sequence[list[bytes | None]]
    ) -> list[Any]:
        """Begin, prepare and run in one round trip, as far as each is wanted."""
        prepares = self._prepares and statement.name not in self._prepared
        results: list[pq.abc.PGresult] = []
        with _Conversation(self):
            await self._collect()
            self.pgconn.enter_pipeline_mode()
            if self.is_pending:
                self.pgconn.send_query_params(b"begin", None)
                if not self._prepares:
                    self.pgconn.send_query_params(LIMITS, None)
            if prepares:
                self.pgconn.send_prepare(statement.name, statement.text, statement.oids)
            for values in all_values:
                self._send(statement, values)
            self.pgconn.pipeline_sync()
            until = time.monotonic() + self._seconds
            while True:
                result = await self._result(until, is_piped=True)
                if result.status == _SYNC:
                    break
                results.append(result)
            self.pgconn.exit_pipeline_mode()
        if self.is_pending:
            self.is_pending = False
            for _ in range(1 if self._prepares else 2):
                self._rows(results.pop(0))
        if prepares:
            self._rows(results.pop(0))
            self._prepared.add(statement.name)
        rows: list[Any] = []
        for one in results:
            rows += self._rows(one)
        return rows

    def _send(self, statement: Statement, values: Sequence[bytes | None]) -> None:
        if self._prepares:
            self.pgconn.send_query_prepared(statement.name, values, statement.formats, _BINARY)
        else:
            self.pgconn.send_query_params(
                statement.text, values, statement.oids, statement.formats, _BINARY
            )

    async def _result(self, until: float, *, is_piped: bool = False) -> pq.abc.PGresult:
        """Return the result of one statement; of several its last."""
        pgconn = self.pgconn
        while pgconn.flush():
            await self._waits.until_writable(until)
        last: pq.abc.PGresult | None = None
        patience = PROBE_SECONDS if self._probe is not None else self._seconds
        while True:
            while pgconn.is_busy():
                await self._answered(until, patience)
                patience *= 2
            result = pgconn.get_result()
            if result is None:
                if last is not None or not is_piped:
                    break
                if pgconn.status != _OK:  # it would say so for ever
                    raise psycopg.OperationalError("the server closed the connection")
                continue
            last = result
            if result.status == _SYNC:
                break
        if last is None:
            raise psycopg.OperationalError("the server closed the connection")
        return last

    async def _answered(self, until: float, patience: float) -> None:
        """Wait for an answer; when it is late, ask whether there is to be one at all."""
        at = time.monotonic() + patience
        try:
            await self._waits.until_answered(min(until, at))
        except Silence:
            probe = self._probe
            if probe is None or at >= until:
                raise
            pid = self.pgconn.backend_pid
            if await self._waits.ask(lambda: probe(pid)):
                return
            # Over, or never begun: its answer is on the way, or is lost.
            await self._waits.until_answered(min(until, time.monotonic() + UNDER_WAY_SECONDS))

    def _rows(self, result: pq.abc.PGresult) -> list[Any]:
        if result.status == _TUPLES:
            if not result.ntuples:
                return []
            self._answers.set_pgresult(result, format=pq.Format.BINARY)
            return self._answers.load_rows(0, result.ntuples, tuple)
        if result.status == _COMMAND:
            return []
        raise psycopg.errors.error_from_result(result)

    # -- the connection --

    @property
    def is_usable(self) -> bool:
        """Whether the server is still there, as far as is known without asking it."""
        return not self.is_broken and self._waits.is_calm() and self.pgconn.status == _OK

    @property
    def prepares(self) -> bool:
        """Whether its session is ours alone, and keeps what is prepared."""
        return self._prepares

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection any more."""
        return self.is_broken or self.pgconn.status != _OK

    @property
    def is_in_transaction(self) -> bool:
        # What was posted is a transaction of its own, which the server ends by itself.
        is_idle = self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        return not (is_idle or self._is_owed)

    def close(self) -> None:
        """Let go of the connection."""
        self.is_broken = True
        self._waits.close()
        with contextlib.suppress(psycopg.Error):
            self.connection.close()


class _Conversation:
    """While it lasts an exception leaves the wire in a state nobody knows."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._wire.is_broken = True
