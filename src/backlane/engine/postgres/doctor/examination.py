"""The examination: all that the doctor looks at, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from backlane.engine.postgres.doctor import server, session, settings, signs, tables, vacuum
from backlane.engine.postgres.doctor.limits import LIMITS, Limits
from backlane.engine.postgres.store.address import Address
from backlane.engine.protocol import Finding
from backlane.model.clock import Clock

Connection = psycopg.Connection[tuple[Any, ...]]


def diagnose(address: Address, clock: Clock, limits: Limits = LIMITS) -> list[Finding]:
    """Return what is to be known of a server, its settings, its sessions and our tables.

    Nothing is changed. The connections are as the server makes them: what ours set for
    themselves is not set here.
    """

    def connect() -> Connection:
        return psycopg.connect(
            address.conninfo,
            autocommit=True,
            prepare_threshold=None,
            application_name="backlane doctor",
        )

    schema = address.schema
    try:
        connection = connect()
    except psycopg.Error as error:
        return [
            Finding(
                subject="server",
                state="error",
                text=f"no connection: {_said(error)}",
                remedy="check host, port and role of the URL, and that the server runs",
            )
        ]
    with connection:
        _never_wait_long(connection)
        parts: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("server", lambda: server.examine(connection, clock, limits)),
            ("settings", lambda: settings.examine(connection, schema)),
            ("schema", lambda: tables.examine(connection, schema, address.url, limits)),
            ("workers", lambda: signs.examine(connection, schema)),
            ("vacuum", lambda: vacuum.examine(connection, schema, limits)),
            (
                "session",
                lambda: session.examine(
                    connection,
                    connect,
                    limits,
                    pooler=address.pooler,
                ),
            ),
        ]
        return [finding for subject, part in parts for finding in _all(subject, part)]


def _never_wait_long(connection: Connection) -> None:
    """Look at a table that somebody has locked only for so long, and then say so."""
    ((server_pid,),) = connection.execute(session.PID).fetchall()
    if server_pid == connection.info.backend_pid:  # a session of our own
        connection.execute("set lock_timeout = '2s'")
        connection.execute("set statement_timeout = '10s'")


def _all(subject: str, part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Go on with the rest where one part may not be looked at."""
    try:
        yield from part()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return  # that tables are missing is a finding of its own
    except psycopg.Error as error:
        yield Finding(
            subject=subject, state="warning", text=f"could not be looked at: {_said(error)}"
        )


def _said(error: psycopg.Error) -> str:
    words = error.diag.message_primary or str(error)  # without the statement's text
    return " ".join(words.split()) or type(error).__name__
