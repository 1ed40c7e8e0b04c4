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


@click.command()
@new_store_options
def migrate(store: Store, output: Output) -> None:
    """Bring a store's schema up to date.

    Makes the store if there is none. SQLite does this by itself when it is opened.
    Running it again changes nothing.
    """
    applied = store.engine.migrate()
    if output.as_json:
        output.document(MigrateView(store.engine.url, applied))
        return
    for name in applied:
        output.line(f"applied {name}")
    output.line(f"{count(len(applied), 'migration')} applied" if applied else "up to date")
