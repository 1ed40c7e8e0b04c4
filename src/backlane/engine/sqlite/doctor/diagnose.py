"""Diagnose: settings and states of the file that lose jobs or time, and what mends them."""

from __future__ import annotations

from pathlib import Path

import apsw

from backlane.engine.protocol import Finding
from backlane.engine.sqlite.driver.checkpoint import LOG_BYTES
from backlane.engine.sqlite.driver.handles import Handles
from backlane.engine.sqlite.store.address import NETWORK_FILE_SYSTEMS, file_system
from backlane.engine.sqlite.store.connection import Database
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.migrations import version
from backlane.errors import BacklaneError

# The first release without the race that corrupts a file written by two processes.
SAFE_SQLITE = 3051003


def diagnose(database: Database, handles: Handles) -> list[Finding]:
    """Return what is to be known of the library, the file and the directory beside it."""
    findings = [_library(), _place(database.path)]
    try:
        handles.open()
    except BacklaneError as error:
        return [*findings, Finding(subject="file", state="error", text=str(error))]
    with inside_sqlite:
        connection = database.connect()
        try:
            findings += [
                _journal(connection),
                _durability(database.durability),
                _log(database.path),
                _integrity(connection, database.name),
                _schema(connection, database.name),
            ]
        finally:
            connection.close(force=True)
    return [*findings, _mode(database.path), _owners(handles)]


def _library() -> Finding:
    text = f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"
    if apsw.SQLITE_VERSION_NUMBER >= SAFE_SQLITE:
        return Finding(subject="library", state="ok", text=text)
    return Finding(
        subject="library",
        state="error",
        text=f"{text} can corrupt a file that two processes write",
        remedy="pip install --upgrade apsw",
    )


def _place(path: Path) -> Finding:
    kind = file_system(path.parent) or "unknown"
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding(
            subject="file system",
            state="error",
            text=f"{path} is on {kind}, where locks do not hold between machines",
            remedy="move the file to a local disk, or use a server engine",
        )
    return Finding(subject="file system", state="ok", text=kind)


def _journal(connection: apsw.Connection) -> Finding:
    mode = str(connection.pragma("journal_mode"))
    if mode == "wal":
        return Finding(subject="journal", state="ok", text="write-ahead log")
    return Finding(
        subject="journal",
        state="error",
        text=f"journal mode is {mode!r}, so readers and writers wait for each other",
        remedy="run 'pragma journal_mode=wal' on the file while nothing else uses it",
    )


def _durability(durability: str) -> Finding:
    if durability == "full":
        return Finding(subject="durability", state="ok", text="full: survives power loss")
    return Finding(
        subject="durability",
        state="warning",
        text="normal: the last acknowledged jobs may be lost when the power fails",
        remedy="leave ?durability=normal out of the URL",
    )


def _log(path: Path) -> Finding:
    log = Path(f"{path}-wal")
    size = log.stat().st_size if log.exists() else 0
    text = f"{size / 1024 / 1024:.1f} MiB of log"
    if size <= 4 * LOG_BYTES:
        return Finding(subject="log", state="ok", text=text)
    return Finding(
        subject="log",
        state="warning",
        text=f"{text}: a reader that stays open keeps it from starting anew",
        remedy="end transactions that read the file for long",
    )


def _integrity(connection: apsw.Connection, name: str) -> Finding:
    problems = [row[0] for row in connection.execute("pragma quick_check(10)")]
    if problems == ["ok"]:
        return Finding(subject="integrity", state="ok", text="quick_check found nothing")
    return Finding(
        subject="integrity",
        state="error",
        text=f"{name} is damaged: {problems[0]}",
        remedy="stop all workers, keep a copy, run the sqlite3 shell's 'recover' command on it",
    )


def _schema(connection: apsw.Connection, name: str) -> Finding:
    return Finding(subject="schema", state="ok", text=f"version {version(connection, name)}")


def _mode(path: Path) -> Finding:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077 == 0:
        return Finding(subject="access", state="ok", text=f"mode {mode:04o}")
    return Finding(
        subject="access",
        state="warning",
        text=f"mode {mode:04o}: other users may read or change the jobs",
        remedy=f"chmod 600 {path}",
    )


def _owners(handles: Handles) -> Finding:
    dead = handles.departed()
    if not dead:
        return Finding(subject="owners", state="ok", text="no dead owner holds a lease")
    return Finding(
        subject="owners",
        state="warning",
        text=f"{len(dead)} dead owners still hold leases: {', '.join(dead[:5])}",
        remedy="start a worker: its next turn takes their jobs back",
    )
