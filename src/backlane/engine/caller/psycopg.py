"""Connections of psycopg 3, which begin a transaction with their first statement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from backlane.errors import WrongUse

AUTOCOMMIT = (
    "is in autocommit, so there is no transaction to join: the job would be kept whatever "
    "becomes of the rest"
)
IN_A_BLOCK = (
    "the connection is inside `with connection.transaction()`, and only that block can commit; "
    "begin context.transaction(…) outside of it"
)


class PsycopgCaller:
    """A `psycopg.Connection`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def driver(self) -> psycopg.Connection[Any]:
        """Return it; outside of autocommit its first statement begins the transaction."""
        check_joinable(self.connection)
        return self.connection

    def after_commit(self, ring: Callable[[], None]) -> bool:  # noqa: ARG002
        """Psycopg tells nobody of a commit."""
        return False

    def begin(self) -> None:
        """Begin where the driver would not do so by itself."""
        if begins_now(self.connection):
            self.connection.execute("begin")

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()


class AsyncPsycopgCaller:
    """A `psycopg.AsyncConnection`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def adriver(self) -> psycopg.AsyncConnection[Any]:
        """Return it, as `PsycopgCaller.driver`."""
        check_joinable(self.connection)
        return self.connection

    def after_commit(self, ring: Callable[[], None]) -> bool:  # noqa: ARG002
        """Psycopg tells nobody of a commit."""
        return False

    async def abegin(self) -> None:
        """Begin where the driver would not do so by itself."""
        if begins_now(self.connection):
            await self.connection.execute("begin")

    async def acommit(self) -> None:
        await self.connection.commit()

    async def arollback(self) -> None:
        await self.connection.rollback()


Driver = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


def check_joinable(connection: Driver, autocommit: str = "") -> None:
    """Refuse a connection whose transaction cannot hold a job.

    `autocommit` says how its owner begins a transaction, if not as in psycopg.

    Raises:
        WrongUse: says why, and what to do.
    """
    if connection.closed:
        raise WrongUse("the connection is closed; pass one that is open")
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise WrongUse(
            "a statement failed in the transaction, so nothing can join it any more; roll it "
            "back, then begin again"
        )
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise WrongUse("the connection is in a pipeline; enqueue outside of `with pipeline()`")
    if connection.autocommit and status == TransactionStatus.IDLE:
        remedy = autocommit or "enqueue inside `with connection.transaction():`"
        raise WrongUse(f"the connection {AUTOCOMMIT}; {remedy}")


def begins_now(connection: Driver) -> bool:
    """Say whether a transaction has to be begun by hand, to be committed by us.

    Raises:
        WrongUse: it is in a block of its own, or cannot be used.
    """
    if getattr(connection, "_num_transactions", 0):
        raise WrongUse(IN_A_BLOCK)
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        return True
    check_joinable(connection)
    return False


def called(connection: object) -> PsycopgCaller | AsyncPsycopgCaller:
    """Return what knows a connection of psycopg.

    Raises:
        WrongUse: it is something else of psycopg, such as a cursor or a pool.
    """
    if isinstance(connection, psycopg.Connection):
        return PsycopgCaller(connection)
    if isinstance(connection, psycopg.AsyncConnection):
        return AsyncPsycopgCaller(connection)
    name = type(connection).__name__
    if "Cursor" in name:
        remedy = "pass cursor.connection"
    elif "Pool" in name:
        remedy = "pass a connection of it: with pool.connection() as connection"
    else:
        remedy = "pass the connection"
    raise WrongUse(f"a {name} of psycopg is no connection; {remedy}")
