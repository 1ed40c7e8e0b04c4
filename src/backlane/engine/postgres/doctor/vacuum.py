"""What keeps vacuum from its work: snapshots that somebody holds, and what they left behind.

While anybody may still see a row that was deleted it stays where it is. Claims begin
behind such rows and keep their speed; sweeps, appends with keys, and disks do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg

from backlane.engine.postgres.doctor.limits import Limits
from backlane.engine.postgres.doctor.remedy import command
from backlane.engine.protocol import Finding

Connection = psycopg.Connection[tuple[Any, ...]]

NAMED = 5  # of a kind, at most: who has more is told how many

# Of sessions of other roles the time is not shown to everybody, but the snapshot is.
TRANSACTIONS: LiteralString = """
    select pid, coalesce(nullif(application_name, ''), '(no name)'),
        coalesce(usename, '(unknown)'),
        coalesce(state, 'in a state that this role may not see'),
        extract(epoch from clock_timestamp() - xact_start)::float8,
        greatest(age(backend_xmin), age(backend_xid))
    from pg_stat_activity
    where coalesce(backend_type, 'client backend') = 'client backend'
    and pid <> pg_backend_pid()
    and (backend_xmin is not null or backend_xid is not null)
    and (
        xact_start < clock_timestamp() - %(long)s * interval '1 second'
        or xact_start is null and greatest(age(backend_xmin), age(backend_xid)) > %(pinned)s
    )
    order by xact_start nulls last
    """
PREPARED: LiteralString = """
    select gid, quote_literal(gid), owner, database,
        extract(epoch from clock_timestamp() - prepared)::float8
    from pg_prepared_xacts
    where prepared < clock_timestamp() - %(long)s * interval '1 second'
    order by prepared
    """
SLOTS: LiteralString = """
    select slot_name, quote_literal(slot_name), active,
        coalesce(greatest(age(xmin), age(catalog_xmin)), 0),
        case when pg_is_in_recovery() then 0
            else coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)
        end::int8
    from pg_replication_slots
    order by slot_name
    """
FEEDBACK: LiteralString = """
    select pid, coalesce(nullif(application_name, ''), '(no name)'),
        coalesce(client_addr::text, 'a socket of this machine'), age(backend_xmin)
    from pg_stat_replication
    where age(backend_xmin) > %(pinned)s
    order by age(backend_xmin) desc
    """
DEAD: LiteralString = """
    select quote_ident(schemaname) || '.' || quote_ident(relname), n_dead_tup, n_live_tup
    from pg_stat_user_tables
    where schemaname = %(schema)s
    and n_dead_tup > %(dead)s
    and n_dead_tup > n_live_tup
    order by n_dead_tup desc
    """
NOTIFY_QUEUE: LiteralString = "select pg_notification_queue_usage()"
MAY_SEE: LiteralString = """
    select pg_has_role(current_user, 'pg_read_all_stats', 'member'), quote_ident(current_user)
    """


def examine(connection: Connection, schema: str, limits: Limits) -> Iterator[Finding]:
    """Name who holds a snapshot, each with what ends it, and tables that suffered."""
    bounds = {"long": limits.long_seconds, "pinned": limits.pinned}
    yield from _transactions(connection, bounds)
    yield from _prepared(connection, bounds)
    yield from _slots(connection, limits)
    yield from _standbys(connection, bounds)
    yield from _dead_rows(connection, schema, limits)
    yield _notify_queue(connection, limits)
    yield _sight(connection)


def span(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def _transactions(connection: Connection, bounds: dict[str, float]) -> Iterator[Finding]:
    rows = connection.execute(TRANSACTIONS, bounds).fetchall()
    if not rows:
        yield Finding(subject="transactions", state="ok", text="none is open for long")
    for pid, name, user, state, seconds, age in rows[:NAMED]:
        since = f"for {span(seconds)}" if seconds is not None else f"through {age:,} others"
        yield Finding(
            subject="transactions",
            state="warning",
            text=f"pid {pid} ({name}, role {user}, {state}) has had a transaction open {since}: "
            "no row deleted since then can be cleaned away, so tables of jobs grow"
            + _and_others(len(rows), "such transactions"),
            remedy=command("select pg_terminate_backend({})", pid),
        )


def _prepared(connection: Connection, bounds: dict[str, float]) -> Iterator[Finding]:
    rows = connection.execute(PREPARED, bounds).fetchall()
    if not rows:
        yield Finding(subject="prepared", state="ok", text="no forgotten prepared transaction")
    for gid, quoted, owner, database, seconds in rows[:NAMED]:
        yield Finding(
            subject="prepared",
            state="warning",
            text=f"transaction {gid!r} of role {owner} in database {database} was prepared "
            f"{span(seconds)} ago and never ended: it keeps its locks, and every row deleted "
            "since then, also when the server is started anew"
            + _and_others(len(rows), "such transactions"),
            remedy=command("rollback prepared {}", quoted),
        )


def _slots(connection: Connection, limits: Limits) -> Iterator[Finding]:
    fine = []
    has_some = False
    for name, quoted, is_active, age, kept in connection.execute(SLOTS).fetchall():
        if age <= limits.pinned and (is_active or kept <= limits.log_bytes):
            fine.append(name)
            continue
        has_some = True
        how = "is read" if is_active else "is read by nobody"
        yield Finding(
            subject="slots",
            state="warning",
            text=f"replication slot {name!r} {how} and keeps the rows of {age:,} transactions "
            f"and {kept / 1024 / 1024:,.0f} MiB of log: tables grow, and the disk fills up, "
            "after which no job is taken",
            remedy="end the long query on its standby, or turn hot_standby_feedback off there"
            if is_active
            else command("select pg_drop_replication_slot({})", quoted),
        )
    if not has_some:
        text = f"{', '.join(fine)}: nothing held back" if fine else "none"
        yield Finding(subject="slots", state="ok", text=text)


def _standbys(connection: Connection, bounds: dict[str, float]) -> Iterator[Finding]:
    rows = connection.execute(FEEDBACK, bounds).fetchall()
    if not rows:
        yield Finding(subject="standbys", state="ok", text="none holds rows back")
    for pid, name, address, age in rows[:NAMED]:
        yield Finding(
            subject="standbys",
            state="warning",
            text=f"standby {name!r} at {address} (pid {pid}) sends feedback of a query that goes "
            f"on for {age:,} transactions: rows deleted since then stay here too, so tables of "
            "jobs grow",
            remedy="on the standby: alter system set hot_standby_feedback = off; "
            "select pg_reload_conf()",
        )


def _dead_rows(connection: Connection, schema: str, limits: Limits) -> Iterator[Finding]:
    bounds = {"schema": schema, "dead": limits.dead_rows}
    rows = connection.execute(DEAD, bounds).fetchall()
    if not rows:
        yield Finding(subject="dead rows", state="ok", text="vacuum keeps up")
    for table, dead, live in rows[:NAMED]:
        yield Finding(
            subject="dead rows",
            state="warning",
            text=f"{table} has {dead:,} dead rows beside {live:,} living ones: vacuum does not "
            "keep up with it, or is kept from it",
            remedy=command("vacuum {}", table),
        )


def _notify_queue(connection: Connection, limits: Limits) -> Finding:
    ((share,),) = connection.execute(NOTIFY_QUEUE).fetchall()
    text = f"{share:.1%} of the server's queue of notifications is in use"
    if share < limits.notify_share:
        return Finding(subject="notify queue", state="ok", text=text)
    return Finding(
        subject="notify queue",
        state="warning",
        text=f"{text}: a session that listens sits in an open transaction and reads none. When "
        "the queue is full, every notify fails: workers only poll, and applications that notify "
        "within their transactions cannot commit",
        remedy="select pg_terminate_backend(pid) from pg_stat_activity where state = "
        "'idle in transaction' order by xact_start limit 1",
    )


def _sight(connection: Connection) -> Finding:
    may_see, role = connection.execute(MAY_SEE).fetchall()[0]
    if may_see:
        return Finding(subject="sight", state="ok", text="sessions of all roles are visible")
    return Finding(
        subject="sight",
        state="warning",
        text=f"role {role} cannot see what sessions of other roles do: of a transaction that "
        "keeps vacuum from its work only those that are very old are found",
        remedy=command("grant pg_read_all_stats to {}", role),
    )


def _and_others(number: int, what: str) -> str:
    return f" ({number} {what} in all)" if number > NAMED else ""
