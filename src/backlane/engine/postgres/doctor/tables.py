"""Our own tables: whether they are there, may be used, and are not held by somebody."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Any, LiteralString

import psycopg

from backlane.engine.postgres.doctor.limits import Limits
from backlane.engine.postgres.doctor.remedy import command
from backlane.engine.postgres.doctor.vacuum import NAMED, span
from backlane.engine.postgres.store.migrations import available
from backlane.engine.postgres.store.statement import in_schema, quoted
from backlane.engine.protocol import Finding

Connection = psycopg.Connection[tuple[Any, ...]]

IS_THERE: LiteralString = """
    select to_regnamespace(quote_ident(%(schema)s)) is not null
        and has_schema_privilege(quote_ident(%(schema)s), 'usage'),
        to_regnamespace(quote_ident(%(schema)s)) is not null,
        quote_ident(current_user)
    """
HAS_MIGRATIONS: LiteralString = """
    select exists (
        select 1
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where nspname = %(schema)s
        and relname = 'migration'
    )
    """
APPLIED: LiteralString = "select name from backlane.migration"
IS_REST_FULL: LiteralString = "select exists (select 1 from backlane.finished_rest)"
# A privilege that is missing on any table, with how many tables it is missing on.
MISSING: LiteralString = """
    select privilege, count(*), min(relname::text)
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    cross join unnest(array['select', 'insert', 'update', 'delete']) as privilege
    where nspname = %(schema)s
    and relkind in ('r', 'p')
    and relname <> 'migration'
    and not has_table_privilege(pg_class.oid, privilege)
    group by privilege
    """
MAY_APPEND: LiteralString = """
    select has_table_privilege(format('%%I.job', %(schema)s::text), 'insert')
    """
UNUSABLE: LiteralString = """
    select quote_ident(nspname) || '.' || quote_ident(relname)
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = %(schema)s
    and case when relkind = 'S' then not has_sequence_privilege(pg_class.oid, 'usage') end
    limit 1
    """
# The upper end of the last part of the history, and where appends have got to.
PARTS: LiteralString = """
    select max(
            (regexp_match(pg_get_expr(part.relpartbound, part.oid), 'TO \\(''?(\\d+)''?\\)'))[1]
            ::bigint
        ),
        (
            select last_value
            from pg_sequences
            where schemaname = %(schema)s
            and sequencename = 'job_seq'
        )
    from pg_inherits
    join pg_class as part on part.oid = inhrelid
    join pg_class as whole on whole.oid = inhparent
    join pg_namespace on pg_namespace.oid = whole.relnamespace
    where nspname = %(schema)s
    and whole.relname = 'finished'
    """
HOLDERS: LiteralString = """
    select pid, coalesce(nullif(application_name, ''), '(no name)'),
        quote_ident(coalesce(usename, '(unknown)')),
        extract(epoch from clock_timestamp() - state_change)::float8,
        string_agg(distinct relname, ', ')
    from pg_stat_activity
    join pg_locks using (pid)
    join pg_class on pg_class.oid = relation
    join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = %(schema)s
    and relkind in ('r', 'p')
    and pg_locks.mode <> 'AccessShareLock'
    and state like 'idle in transaction%%'
    and pid <> pg_backend_pid()
    and state_change < clock_timestamp() - %(idle)s * interval '1 second'
    group by pid, 2, 3, 4
    order by 4 desc
    """


def examine(connection: Connection, schema: str, url: str, limits: Limits) -> Iterator[Finding]:
    """Say whether the schema is there, is the one we know, and can be used."""
    named = {"schema": schema}
    may_use, is_there, role = connection.execute(IS_THERE, named).fetchall()[0]
    if is_there and not may_use:
        yield Finding(
            subject="schema",
            state="error",
            text=f"role {role} may not use schema {quoted(schema)}: every verb fails",
            remedy=f"grant usage on schema {quoted(schema)} to {role}",
        )
        return
    ((has_migrations,),) = connection.execute(HAS_MIGRATIONS, named).fetchall()
    if not has_migrations:
        yield Finding(
            subject="schema",
            state="error",
            text=f"there are no tables of backlane in schema {quoted(schema)}: every verb fails",
            remedy=f"backlane migrate --url {quote(url)}",
        )
        return
    yield from _holders(connection, schema, limits)  # first: what it finds may stop the rest
    yield _version(connection, schema, url)
    yield _access(connection, schema, role)
    yield _parts(connection, schema)


def _version(connection: Connection, schema: str, url: str) -> Finding:
    rows = connection.execute(in_schema(APPLIED, schema).encode())
    applied = {name for (name,) in rows}
    known = [one.name for one in available(schema)]
    missing = [name for name in known if name not in applied]
    if missing:
        return Finding(
            subject="schema",
            state="error",
            text=f"the tables are older than this backlane, and lack {', '.join(missing)}: verbs "
            "that need it fail",
            remedy=f"backlane migrate --url {quote(url)}",
        )
    newer = sorted(applied - set(known))
    if newer:
        return Finding(
            subject="schema",
            state="warning",
            text=f"the tables are newer than this backlane, with {', '.join(newer)}: what they "
            "add is not used by this process",
            remedy="pip install --upgrade backlane",
        )
    return Finding(subject="schema", state="ok", text=f"as of {known[-1]}")


def _access(connection: Connection, schema: str, role: str) -> Finding:
    named = {"schema": schema}
    missing = {row[0]: row[1:] for row in connection.execute(MISSING, named)}
    place = quoted(schema)
    if "select" in missing:
        number, table = missing["select"]
        return Finding(
            subject="access",
            state="error",
            text=f"role {role} may not read {number} tables, {table} among them",
            remedy=f"grant select on all tables in schema {place} to {role}",
        )
    ((may_append,),) = connection.execute(MAY_APPEND, named).fetchall()
    unusable = connection.execute(UNUSABLE, named).fetchall()
    if may_append and unusable:
        return Finding(
            subject="access",
            state="error",
            text=f"role {role} may not draw numbers from {unusable[0][0]}, so appends fail",
            remedy=f"grant usage on all sequences in schema {place} to {role}",
        )
    if not missing:
        text = f"role {role} may append, claim and settle"
        return Finding(subject="access", state="ok", text=text)
    what = "append, but not claim or settle" if may_append else "look, but not append or claim"
    return Finding(
        subject="access",
        state="warning",
        text=f"role {role} may {what}: right for a producer or a dashboard, and not enough for a "
        "worker",
        remedy=f"grant select, insert, update, delete on all tables in schema {place} to {role}; "
        f"grant usage on all sequences in schema {place} to {role}",
    )


def _parts(connection: Connection, schema: str) -> Finding:
    ((end, newest),) = connection.execute(PARTS, {"schema": schema}).fetchall()
    rest = f"{quoted(schema)}.finished_rest"
    ((is_full,),) = connection.execute(in_schema(IS_REST_FULL, schema).encode()).fetchall()
    if is_full:
        return Finding(
            subject="parts",
            state="warning",
            text=f"{rest} holds history that has no part of its own: it is deleted row by row, "
            "and not by dropping a part, and parts for it can no longer be made",
            remedy="start a worker (backlane worker): as long as one runs, parts are made ahead",
        )
    if end is None or (newest or 0) >= end:
        return Finding(
            subject="parts",
            state="warning",
            text=f"the history has parts up to job {end or 0:,}, and appends are at "
            f"{newest or 0:,}: what ends from now on goes to {rest}, where it is slow to delete",
            remedy="start a worker (backlane worker): as long as one runs, parts are made ahead",
        )
    return Finding(subject="parts", state="ok", text=f"{end - (newest or 0):,} jobs ahead")


def _holders(connection: Connection, schema: str, limits: Limits) -> Iterator[Finding]:
    bounds = {"schema": schema, "idle": limits.idle_seconds}
    rows = connection.execute(HOLDERS, bounds).fetchall()
    if not rows:
        yield Finding(subject="locks", state="ok", text="nobody holds our rows and does nothing")
    for pid, name, user, seconds, tables in rows[:NAMED]:
        yield Finding(
            subject="locks",
            state="warning",
            text=f"pid {pid} ({name}, role {user}) changed {tables} and has done nothing for "
            f"{span(seconds)} within its transaction: what it appended is not seen, keys and "
            "places it took are held, and who meets them waits",
            remedy=command(
                "select pg_terminate_backend({}); alter role {} set "
                "idle_in_transaction_session_timeout = '60s'",
                pid,
                user,
            ),
        )
