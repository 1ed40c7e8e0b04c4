"""The bare loops: the least that SQLite and plain Python must do for the same work.

One table with one partial index, FULL durability. `drain` claims 100, decodes, calls,
and deletes the settled in the transaction of the next claim; `inserts` stores one row
a commit. Both with apsw and with the standard library: the faster one counts.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import apsw
import msgspec

SCHEMA = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",
    "create table job (id integer primary key, state integer not null, body blob not null)",
    "create index job_ready on job (id) where state = 0",
)
INSERT = "insert into job (state, body) values (0, ?)"
CLAIM = (
    "update job set state = 1 where id in"
    " (select id from job where state = 0 order by id limit 100) returning id, body"
)
DELETE = "delete from job where id = ?"
BATCH = 100


class Cursor(Protocol):
    """What both libraries' cursors can do."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Iterable[Any]: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object: ...

    def close(self) -> None: ...


# What a job of every system here is called with: about 290 bytes, as in the study of
# the machine's limits that the bars come from.
PAYLOAD = "x" * 256


class Call(msgspec.Struct):
    """What a job's body holds."""

    task: str
    n: int
    text: str


def noop(_n: int, _text: str) -> None:
    """Do nothing, like the task that it is compared with."""


def of_apsw(path: Path) -> tuple[Cursor, Callable[[], None]]:
    """Open a file with apsw; return a cursor and what closes it."""
    connection = apsw.Connection(str(path))
    return connection.cursor(), connection.close


def of_stdlib(path: Path) -> tuple[Cursor, Callable[[], None]]:
    """Open a file with the standard library."""
    connection = sqlite3.connect(path, isolation_level=None)
    return connection.cursor(), connection.close


OPENERS = (of_apsw, of_stdlib)


def drain_rate(directory: Path, number: int) -> float:
    """Return jobs/s of the faster library's bare loop."""
    return max(_drain(directory, opener, number) for opener in OPENERS)


def insert_rate(directory: Path, seconds: float) -> float:
    """Return one-row commits/s of the faster library."""
    return max(_inserts(directory, opener, seconds) for opener in OPENERS)


def paced_insert_ms(directory: Path, number: int, pause: float) -> float:
    """Return the median milliseconds of a one-row commit by a process that idles between."""
    cursor, close = _fresh(directory, of_apsw)
    body = msgspec.json.encode(Call("noop", 1, PAYLOAD))
    taken = []
    for _ in range(number):
        time.sleep(pause)
        began = time.perf_counter()
        cursor.execute(INSERT, (body,))
        taken.append(time.perf_counter() - began)
    close()
    return statistics.median(taken) * 1000


def bulk_rate(directory: Path, number: int) -> float:
    """Return rows/s stored in transactions of 1,000 by the faster library."""
    return max(_bulk(directory, opener, number) for opener in OPENERS)


def _drain(
    directory: Path, opener: Callable[[Path], tuple[Cursor, Callable[[], None]]], number: int
) -> float:
    cursor, close = _fresh(directory, opener)
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Call).decode
    registry = {"noop": noop}
    cursor.execute("begin immediate")
    cursor.executemany(INSERT, [(encode(Call("noop", n, PAYLOAD)),) for n in range(number)])
    cursor.execute("commit")
    settled: list[tuple[int]] = []
    done = 0
    began = time.perf_counter()
    while True:
        cursor.execute("begin immediate")
        cursor.executemany(DELETE, settled)
        claimed = list(cursor.execute(CLAIM))
        cursor.execute("commit")
        done += len(settled)
        if not claimed:
            break
        for _, body in claimed:
            call = decode(body)
            registry[call.task](call.n, call.text)
        settled = [(job,) for job, _ in claimed]
    seconds = time.perf_counter() - began
    close()
    return done / seconds


def _inserts(
    directory: Path, opener: Callable[[Path], tuple[Cursor, Callable[[], None]]], seconds: float
) -> float:
    cursor, close = _fresh(directory, opener)
    body = msgspec.json.encode(Call("noop", 1, PAYLOAD))
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        cursor.execute(INSERT, (body,))
        done += 1
    rate = done / (time.perf_counter() - began)
    close()
    return rate


def _bulk(
    directory: Path, opener: Callable[[Path], tuple[Cursor, Callable[[], None]]], number: int
) -> float:
    cursor, close = _fresh(directory, opener)
    encode = msgspec.json.Encoder().encode
    began = time.perf_counter()
    for first in range(0, number, 1000):
        cursor.execute("begin immediate")
        cursor.executemany(
            INSERT, [(encode(Call("noop", first + n, PAYLOAD)),) for n in range(1000)]
        )
        cursor.execute("commit")
    rate = number / (time.perf_counter() - began)
    close()
    return rate


def _fresh(
    directory: Path, opener: Callable[[Path], tuple[Cursor, Callable[[], None]]]
) -> tuple[Cursor, Callable[[], None]]:
    path = directory / f"bare-{opener.__name__}.db"
    for old in directory.glob(path.name + "*"):
        old.unlink()
    cursor, close = opener(path)
    for statement in SCHEMA:
        list(cursor.execute(statement))
    return cursor, close
