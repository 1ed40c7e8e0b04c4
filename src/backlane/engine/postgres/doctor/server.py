"""The server itself: its version, its role, its clock, its connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg

from backlane.engine.postgres.doctor.limits import Limits
from backlane.engine.postgres.doctor.remedy import command
from backlane.engine.protocol import Finding
from backlane.model.clock import Clock

Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST = 15  # what every test runs on; older ones get no more corrections by their makers
PROBES = 5  # of the clock: the one with the shortest round trip tells most

VERSION: LiteralString = "select current_setting('server_version_num')::int / 10000, version()"
ROLE: LiteralString = """
    select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
        quote_ident(current_database()), quote_ident(current_user)
    """
ENCODING: LiteralString = "select current_setting('server_encoding')"
NOW: LiteralString = "select (extract(epoch from clock_timestamp()) * 1000)::float8"
# The narrowest of the three bounds that this role meets.
CONNECTIONS: LiteralString = """
    select used, allowed, what, name
    from (
        select count(*) as used,
            current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int as allowed,
            'the server' as what, '' as name
        from pg_stat_activity
        where coalesce(backend_type, 'client backend') = 'client backend'
        union all
        select count(*), max(datconnlimit), 'database', quote_ident(current_database())
        from pg_stat_activity
        join pg_database on pg_database.datname = current_database()
        where pg_stat_activity.datid = pg_database.oid
        and coalesce(backend_type, 'client backend') = 'client backend'
        and datconnlimit >= 0
        union all
        select count(*), max(rolconnlimit), 'role', quote_ident(current_user)
        from pg_stat_activity
        join pg_roles on pg_roles.rolname = current_user
        where usesysid = pg_roles.oid
        and coalesce(backend_type, 'client backend') = 'client backend'
        and rolconnlimit >= 0
    ) as bounds
    where allowed > 0
    order by used::float8 / allowed desc
    limit 1
    """


def examine(connection: Connection, clock: Clock, limits: Limits) -> Iterator[Finding]:
    """Say what is to be known of the server before anything else."""
    yield _version(connection)
    yield _role(connection)
    yield _encoding(connection)
    yield _clock(connection, clock, limits)
    yield _connections(connection, limits)


def _version(connection: Connection) -> Finding:
    major, text = connection.execute(VERSION).fetchall()[0]
    named = " ".join(text.split()[:2])
    if major < OLDEST:
        return Finding(
            subject="server",
            state="error",
            text=f"{named} is older than {OLDEST}: `backlane migrate` refuses it",
            remedy="upgrade the server: pg_upgrade --link, or a managed service's own upgrade",
        )
    return Finding(subject="server", state="ok", text=named)


def _role(connection: Connection) -> Finding:
    is_standby, is_read_only, database, role = connection.execute(ROLE).fetchall()[0]
    if is_standby:
        return Finding(
            subject="writes",
            state="error",
            text="this server is a standby, which only reads: it takes no job and gives none",
            remedy="name the primary in the URL, or all servers with "
            "?target_session_attrs=read-write",
        )
    if is_read_only:
        return Finding(
            subject="writes",
            state="error",
            text="transactions are read-only by default here, so no job is taken or given",
            remedy=command(
                "alter database {} reset default_transaction_read_only; "
                "alter role {} reset default_transaction_read_only",
                database,
                role,
            ),
        )
    return Finding(subject="writes", state="ok", text="a primary that takes writes")


def _encoding(connection: Connection) -> Finding:
    ((encoding,),) = connection.execute(ENCODING).fetchall()
    if encoding == "UTF8":
        return Finding(subject="encoding", state="ok", text="UTF8")
    return Finding(
        subject="encoding",
        state="error",
        text=f"the database keeps text as {encoding}: an error or a key in any other letters "
        "cannot be stored, and its append or settle fails",
        remedy="create database backlane encoding 'UTF8' template template0",
    )


def _clock(connection: Connection, clock: Clock, limits: Limits) -> Finding:
    probes = []
    for _ in range(PROBES):
        before = clock.wall_ms()
        ((server,),) = connection.execute(NOW).fetchall()
        after = clock.wall_ms()
        probes.append((after - before, (before + after) / 2 - server))
    trip, ahead = min(probes)
    if abs(ahead) <= limits.skew_ms + trip:
        text = f"this machine's clock is within {abs(ahead) + trip / 2:.0f} ms of the server's"
        return Finding(subject="clock", state="ok", text=text)
    which = "ahead of" if ahead > 0 else "behind"
    return Finding(
        subject="clock",
        state="warning",
        text=f"this machine's clock is {abs(ahead) / 1000:.1f} s {which} the server's. Leases and "
        "due times go by the server's and hold; ids made here carry the wrong time, so that a "
        "job may be refused as older than the history (StaleId), and times shown differ",
        remedy="timedatectl set-ntp true",
    )


def _connections(connection: Connection, limits: Limits) -> Finding:
    used, allowed, what, name = connection.execute(CONNECTIONS).fetchall()[0]
    text = f"{used} of the {allowed} connections that {what}{name and ' '}{name} allows are in use"
    if used < limits.connection_share * allowed:
        return Finding(subject="connections", state="ok", text=text)
    more = 2 * max(allowed, 50)
    remedy = command("alter {} {} connection limit {}", what, name, more)
    if not name:
        remedy = command("alter system set max_connections = {}, then restart the server", more)
    return Finding(
        subject="connections",
        state="warning",
        text=f"{text}: the next worker or caller may find none (EngineBusy)",
        remedy=f"{remedy}; or lower ?pool= in the URLs of the processes",
    )
