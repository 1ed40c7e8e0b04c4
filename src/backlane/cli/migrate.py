"""`backlane migrate`: bring the schema of a store up to date."""

from __future__ import annotations

import click
import msgspec

from backlane.cli.output import Output, count
from backlane.cli.store import Store, new_store_options


class MigrateView(msgspec.Struct, frozen=True):
    """What a migration applied, in order."""

    url: str
    applied: list[str]


class ScriptView(msgspec.Struct, frozen=True):
    """The SQL that a migration of an empty store runs."""

    url: str
    script: str


@click.command()
@click.option(
    "--print",
    "is_printed",
    is_flag=True,
    help="Only show the SQL, for an empty store; nothing is changed, nor connected to.",
)
@new_store_options
def migrate(store: Store, output: Output, *, is_printed: bool) -> None:
    """Bring a store's schema up to date.

    Makes the store if there is none. SQLite does this by itself when it is opened, and
    Redis needs none. Running it again changes nothing.
    """
    if is_printed:
        script = store.engine.script()
        if output.as_json:
            output.document(ScriptView(store.engine.url, script))
        else:
            output.line(script or "-- this engine needs no tables")
        return
    applied = store.engine.migrate()
    if output.as_json:
        output.document(MigrateView(store.engine.url, applied))
        return
    for name in applied:
        output.line(f"applied {name}")
    output.line(f"{count(len(applied), 'migration')} applied" if applied else "up to date")
