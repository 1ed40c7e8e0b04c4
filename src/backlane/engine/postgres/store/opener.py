"""Opening: connections to one store, each set up so that nothing of the server's or the
role's defaults changes what verbs mean.

Whether a pooler stands between is found out here: a connection whose server process is
not the one it was greeted by is shared. Then nothing of a session is used: no settings,
no prepared statements, no LISTEN, no locks that last.
"""

from __future__ import annotations

from typing import Any

import psycopg

from backlane.engine.plan import finish
from backlane.engine.postgres.store.address import Address
from backlane.engine.postgres.store.fork import live
from backlane.engine.postgres.store.statement import Statement
from backlane.engine.postgres.store.waits import Blocking, Waits
from backlane.engine.postgres.store.wire import Wire

# A statement has to end before the lease (30 s) of those who wait for it; the server
# gives up first, so that it is known that nothing was stored.
STATEMENT_SECONDS = 10.0
ANSWER_SECONDS = STATEMENT_SECONDS + 2.0
LOCK_SECONDS = 5.0
PROBE_CONNECT_SECONDS = 2

SESSION = {
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{ANSWER_SECONDS:.0f}s",
    # What is idle holds the lock that shows this process, and listens. Only a server of
    # version 17 or newer knows the limit on transactions.
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "search_path": "pg_catalog",  # every name of ours is written with its schema
    # Prepared once, while tables are empty perhaps: only ever along the keys.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",  # compiling a statement takes longer than any of ours runs
    "client_min_messages": "warning",
}

# One statement, which sets nothing in a session that is shared with others: there the
# server's process is not the one that the connection was greeted by.
SET_UP = Statement(
    """
    select case
        when $3::boolean or pg_catalog.pg_backend_pid() = $4::int then (
            select count(pg_catalog.set_config(name, value, false))
            from unnest($1::text[], $2::text[]) as given (name, value)
            where current_setting(name, true) is not null
        ) + length(pg_catalog.set_config(
            'synchronous_commit',
            case pg_catalog.current_setting('synchronous_commit')
                when 'off' then 'on'
                else pg_catalog.current_setting('synchronous_commit')
            end,
            false
        ))
    end
    """,
    "",
    "backlane_set_up",
)
AT_WORK = Statement(
    """
    select pid
    from pg_catalog.pg_stat_activity
    where pid = $1::int
    and state = 'active'
    and wait_event_type is distinct from 'Client'
    """,
    "",
    "backlane_at_work",
)


class Opener:
    """Opens connections of one store for one process."""

    def __init__(self, address: Address) -> None:
        self.address = address
        # Once seen it stays so: there may be both ways to the server, and this one is safe.
        self.is_pooled = address.pooler == "transaction"

    def open(self, *, seconds: float = ANSWER_SECONDS) -> psycopg.Connection[Any]:
        """Open a connection, in autocommit; takes as long as `connect_timeout` allows.

        Raises:
            psycopg.Error: as libpq says.
        """
        connection: psycopg.Connection[Any] = psycopg.connect(
            self.address.conninfo, autocommit=True, prepare_threshold=None
        )
        # Ours to close, and quietly where a process ends without: see `BaseConnection.__del__`.
        connection._pool = None
        live.add(connection)
        if not self.is_pooled:
            try:
                self._set_up(connection, seconds)
            except BaseException:
                connection.close()
                raise
        return connection

    def wire(self, connection: psycopg.Connection[Any], waits: Waits) -> Wire:
        """Return what speaks on a connection that was opened here."""
        return Wire(
            connection,
            waits,
            prepares=not self.is_pooled,
            seconds=ANSWER_SECONDS,
            probe=None if self.is_pooled else self.is_at_work,
        )

    def is_at_work(self, session: int) -> bool:
        """Ask on another connection whether the server is at work for a session of ours.

        One that waits for its client is not: what it said was lost, or was never asked.
        """
        try:
            with psycopg.connect(
                self.address.conninfo, autocommit=True, connect_timeout=PROBE_CONNECT_SECONDS
            ) as other:
                wire = Wire(other, Blocking(other.pgconn), prepares=False, seconds=1.0)
                return bool(finish(wire.rows(AT_WORK, (session,))))
        except (psycopg.Error, OSError):
            return False  # it cannot be asked: the server or the network is away

    def _set_up(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        wire = Wire(connection, Blocking(connection.pgconn), prepares=False, seconds=seconds)
        asked = (
            list(SESSION),
            list(SESSION.values()),
            self.address.pooler == "none",
            connection.pgconn.backend_pid,
        )
        if finish(wire.rows(SET_UP, asked)) == [(None,)]:
            self.is_pooled = True
        connection.pgconn.nonblocking = 0
