"""Migrations: numbered SQL files of the package, applied under the gate at open."""

from __future__ import annotations

from functools import cache
from importlib import resources

import apsw

from backlane.errors import SchemaMismatch, StoreCorrupt

# What `file` and SQLite's own tools show of a database made by us: "blne".
APPLICATION_ID = 0x626C6E65


@cache
def available() -> list[tuple[int, str, str]]:
    """Return number, name and text of every migration, in order."""
    folder = resources.files("backlane.engine.sqlite") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), name[:-4], (folder / name).read_text("utf-8")) for name in names]


def newest() -> int:
    """Return the number of the newest migration that there is."""
    return available()[-1][0]


def script() -> str:
    """Return the SQL of every migration, in order."""
    return "\n".join(f"-- {name}\n\n{text.strip()}\n" for _, name, text in available())


def version(connection: apsw.Connection, path: str) -> int:
    """Return the number of the newest migration applied to the file; 0: none.

    Raises:
        SchemaMismatch: a newer backlane wrote the file.
        StoreCorrupt: it has tables of our names that are not ours.
    """
    if not connection.table_exists("main", "backlane_meta"):
        if connection.table_exists("main", "backlane_job"):
            raise StoreCorrupt(
                f"{path}: its table backlane_job was not made by backlane, for backlane_meta "
                "is missing; use another file, or restore this one from a backup"
            )
        return 0
    rows = connection.execute("select value from backlane_meta where name = 'schema'").fetchall()
    if not rows or not isinstance(rows[0][0], int):
        raise StoreCorrupt(
            f"{path}: its table backlane_meta holds no schema version, so it is not ours or "
            "is damaged; use another file, or restore this one from a backup"
        )
    applied: int = rows[0][0]
    if applied > newest():
        raise SchemaMismatch(
            f"{path} has schema {applied}, and this backlane knows {newest()}: a newer version "
            "wrote it; upgrade backlane, or use another file"
        )
    return applied


def migrate(connection: apsw.Connection, path: str) -> list[str]:
    """Apply what is missing, within the transaction that is open; return the names."""
    applied = version(connection, path)
    missing = [migration for migration in available() if migration[0] > applied]
    if not missing:
        return []
    is_alone = not connection.execute("select 1 from sqlite_schema limit 1").fetchall()
    for _, _, text in missing:
        connection.execute(text).fetchall()
    connection.execute(
        "insert or replace into backlane_meta (name, value) values ('schema', ?)",
        (missing[-1][0],),
    )
    if is_alone:
        # The application may keep its tables in the same file: then the id is its own.
        connection.pragma("application_id", APPLICATION_ID)
    return [name for _, name, _ in missing]
