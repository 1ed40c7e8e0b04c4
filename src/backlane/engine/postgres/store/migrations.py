"""Migrations: numbered SQL files of the package, applied by `migrate` and never else.

All that is missing is applied in one transaction, under an advisory lock: though many
processes start together it happens once. A schema that is newer than this backlane is
left as it is, for what comes later only adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg

from backlane.engine.postgres.store import faults
from backlane.engine.postgres.store.address import Address
from backlane.engine.postgres.store.statement import in_schema, quoted
from backlane.errors import SchemaMismatch

OLDEST_SERVER = 150000
ENCODINGS = ("UTF8", "SQL_ASCII")  # the second keeps whatever bytes it is sent
# Large tables may be rewritten; and another process may be at it.
MIGRATION_SECONDS = 3600.0

LOCK = "select pg_catalog.pg_advisory_xact_lock(hashtextextended('backlane:' || %s, 8021))"
IS_THERE = "select pg_catalog.to_regclass(%s) is not null"
APPLIED = "select name from backlane.migration"
NOTE = "insert into backlane.migration (name) values (%s)"
NOTED = "insert into backlane.migration (name) values ('0000');\n"
MAKE_SCHEMA = "create schema backlane"
MAKE_SCHEMA_ONCE = "create schema if not exists backlane"
MAKE_TABLE = """
create table backlane.migration (
    name text primary key,
    applied_at timestamptz not null default clock_timestamp()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    name: str
    text: str


def available(schema: str) -> list[Migration]:
    """Return every migration, in order, written for a schema of this name."""
    folder = resources.files("backlane.engine.postgres") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [
        Migration(name[:-4], in_schema((folder / name).read_text("utf-8"), schema))
        for name in names
    ]


def script(schema: str) -> str:
    """Return all that `migrate` does to an empty database, as SQL for `psql`."""
    head = f"{MAKE_SCHEMA_ONCE};\n{MAKE_TABLE.rstrip()};\n"
    parts = ["begin;\nset local check_function_bodies = off;\n", in_schema(head, schema)]
    for one in available(schema):
        parts.append(f"-- {one.name}\n\n{one.text.strip()}\n")
        parts.append(in_schema(NOTED, schema).replace("0000", one.name))
    return "\n".join([*parts, "commit;"])


def migrate(connection: psycopg.Connection[Any], address: Address) -> list[str]:
    """Apply what is missing; return the names.

    Raises:
        SchemaMismatch: the server is too old, or keeps text in less than Unicode.
        EngineUnavailable: the role may not, and which grant it needs.
    """
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise SchemaMismatch(
            f"{address.url} is PostgreSQL {version // 10000}; backlane needs "
            f"{OLDEST_SERVER // 10000} or newer"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ENCODINGS:
        raise SchemaMismatch(
            f"{address.url} keeps text in {encoding}, which cannot hold all that names and errors "
            "may say; use a database in UTF-8: createdb --encoding=UTF8 --template=template0 NAME"
        )
    try:
        with connection.transaction():
            return _apply(connection, address.schema)
    except psycopg.Error as error:
        raise faults.translated(error, address) from error


def _apply(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    connection.execute("set local statement_timeout = 0")
    connection.execute("set local lock_timeout = 0")
    connection.execute("set local check_function_bodies = off")
    connection.execute(LOCK, [schema])
    table = f"{quoted(schema)}.migration"
    (is_there,) = connection.execute(IS_THERE, [table]).fetchone() or (False,)
    applied: set[str] = set()
    if is_there:
        rows = connection.execute(in_schema(APPLIED, schema).encode())
        applied = {name for (name,) in rows}
    missing = [one for one in available(schema) if one.name not in applied]
    if not missing:
        return []
    if not is_there:
        _make_schema(connection, schema)
        connection.execute(in_schema(MAKE_TABLE, schema).encode())
    for one in missing:
        # Without parameters and prepared never: a file has many statements.
        connection.execute(one.text.encode())
        connection.execute(in_schema(NOTE, schema).encode(), [one.name])
    return [one.name for one in missing]


def _make_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    # Looked for first: `if not exists` asks for the right to make one all the same.
    found = connection.execute("select pg_catalog.to_regnamespace(%s)", [quoted(schema)])
    if found.fetchone() == (None,):
        connection.execute(in_schema(MAKE_SCHEMA, schema).encode())
