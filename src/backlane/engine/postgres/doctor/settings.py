"""Settings of the server that lose jobs, or let tables grow without end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString, NamedTuple

import psycopg

from backlane.engine.postgres.doctor.remedy import command
from backlane.engine.protocol import Finding

Connection = psycopg.Connection[tuple[Any, ...]]

SETTINGS: LiteralString = """
    select name, setting, source, quote_ident(current_database()), quote_ident(current_user)
    from pg_settings
    where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum',
        'track_counts', 'default_transaction_isolation', 'synchronous_standby_names')
    """
# Only a role that owns the table can have done so, by name.
NOT_VACUUMED: LiteralString = """
    select quote_ident(nspname) || '.' || quote_ident(relname)
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = %s
    and relkind = 'r'
    and exists (
        select 1
        from unnest(reloptions) as option
        where option in ('autovacuum_enabled=false', 'autovacuum_enabled=off',
            'autovacuum_enabled=0', 'autovacuum_enabled=no')
    )
    order by relname
    """


class Setting(NamedTuple):
    """A setting as this session has it, and where that was said."""

    name: str
    value: str
    source: str
    database: str
    role: str

    def remedy(self, value: str) -> str:
        """Return the command that sets it right where it was set wrong."""
        match self.source:
            case "database":
                return command("alter database {} reset {}", self.database, self.name)
            case "user":
                return command("alter role {} reset {}", self.role, self.name)
            case "database user":
                return command(
                    "alter role {} in database {} reset {}", self.role, self.database, self.name
                )
            case "client" | "session":
                return f"take {self.name} out of the URL's options, and out of PGOPTIONS"
            case "command line":
                return f"start the server without {self.name} on its command line"
            case _:
                return command(
                    "alter system set {} = {}; select pg_reload_conf()", self.name, value
                )


def examine(connection: Connection, schema: str) -> Iterator[Finding]:
    """Look at what a crash of the server would do, and at what cleans up behind us."""
    found = {row[0]: Setting(*row) for row in connection.execute(SETTINGS)}
    yield _durability(found)
    yield _isolation(found)
    yield _autovacuum(found, [name for (name,) in connection.execute(NOT_VACUUMED, [schema])])


def _durability(found: dict[str, Setting]) -> Finding:
    fsync, pages, commit = (
        found[name] for name in ("fsync", "full_page_writes", "synchronous_commit")
    )
    if fsync.value == "off":
        return Finding(
            subject="durability",
            state="error",
            text="fsync is off: what was acknowledged is lost when the machine stops, and the "
            "database may be damaged beyond repair",
            remedy=fsync.remedy("on"),
        )
    if pages.value == "off":
        return Finding(
            subject="durability",
            state="error",
            text="full_page_writes is off: a page that was half written when the power failed "
            "stays damaged",
            remedy=pages.remedy("on"),
        )
    if commit.value == "off":
        # Connections of our own turn it on; others go by what is set.
        return Finding(
            subject="durability",
            state="error",
            text="synchronous_commit is off: what an application commits together with its jobs, "
            "and everything behind a transaction pooler, is lost when the server stops within "
            "the next moments, though it was acknowledged",
            remedy=commit.remedy("on"),
        )
    standbys = found["synchronous_standby_names"].value
    if commit.value == "local" and standbys:
        return Finding(
            subject="durability",
            state="warning",
            text=f"synchronous_commit is local although {standbys!r} is to be waited for: what "
            "was acknowledged last is lost when that standby takes over",
            remedy=commit.remedy("on"),
        )
    text = f"fsync and full_page_writes on, synchronous_commit {commit.value}"
    return Finding(subject="durability", state="ok", text=text)


def _isolation(found: dict[str, Setting]) -> Finding:
    isolation = found["default_transaction_isolation"]
    if isolation.value == "read committed":
        return Finding(subject="isolation", state="ok", text=isolation.value)
    return Finding(
        subject="isolation",
        state="warning",
        text=f"transactions are {isolation.value} by default: an application that enqueues within "
        "its own may fail at commit, where at read committed it would wait for a moment",
        remedy=isolation.remedy("'read committed'"),
    )


def _autovacuum(found: dict[str, Setting], tables: list[str]) -> Finding:
    effect = "rows that jobs leave behind stay for ever, and every claim reads past them"
    for setting in (found["autovacuum"], found["track_counts"]):
        if setting.value == "off":
            return Finding(
                subject="autovacuum",
                state="error",
                text=f"{setting.name} is off: {effect}",
                remedy=setting.remedy("on"),
            )
    if tables:
        return Finding(
            subject="autovacuum",
            state="error",
            text=f"it is off for {', '.join(tables)}: {effect}",
            remedy="; ".join(
                command("alter table {} reset (autovacuum_enabled)", it) for it in tables
            ),
        )
    return Finding(subject="autovacuum", state="ok", text="on")
