"""Bad addresses, files that are no store of ours, and rows that were tampered with."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
from tests.bad_input.book import Bad, World
from tests.bad_input.stored import work

from backlane import (
    Backlane,
    BadOption,
    EngineUnavailable,
    JobHandle,
    SchemaMismatch,
    StoreCorrupt,
    Undecodable,
    UnknownOption,
)
from backlane.engine.selection import Selection

ADDRESSES = {
    "sqlite:jobs.db": BadOption,
    "sqlite://": BadOption,
    "sqlite:///": BadOption,
    "sqlite://host/jobs.db": BadOption,
    "sqlite:///:memory:": BadOption,
    "sqlite:///a%00b": BadOption,
    "sqlite:///a.db?durability=most": BadOption,
    "sqlite:///a.db?durability=": BadOption,
    "sqlite:///a.db?filesystem=nfs": BadOption,
    "sqlite:///a.db?durabilty=full": UnknownOption,
    "sqlite:///a.db?x": UnknownOption,
    "sqlite:///a.db?mode=ro": UnknownOption,
}


def addresses() -> Iterator[Bad]:
    for url, error in ADDRESSES.items():
        yield Bad(f"the address {url}", lambda _, url=url: Backlane(url).engine, error)


# -- files --


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


HEADER = b"SQLite format 3\x00"

FILES: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "a text": (_write(b"not a database, but a text of some length\n" * 100), StoreCorrupt),
    "a line": (_write(b"x"), StoreCorrupt),
    "an image": (_write(b"\x89PNG\r\n\x1a\n" + bytes(5_000)), StoreCorrupt),
    "an archive": (_write(b"PK\x03\x04" + bytes(5_000)), StoreCorrupt),
    "noise": (_write(random.Random(1).randbytes(8_192)), StoreCorrupt),
    "a header and noise": (_write(HEADER + random.Random(2).randbytes(8_176)), EngineUnavailable),
    "half a header": (_write(HEADER[:10]), StoreCorrupt),
    "a directory": (lambda path: path.mkdir(), EngineUnavailable),
    "a pipe": (os.mkfifo, EngineUnavailable),
    "a link to itself": (lambda path: path.symlink_to(path), EngineUnavailable),
    "a link to nowhere": (
        lambda path: path.symlink_to(path.parent / "no" / "where.db"),
        EngineUnavailable,
    ),
}

PLACES = {
    "a directory that is missing": "missing/jobs.db",
    "a file for a directory": "plain.txt/jobs.db",
    "a name that is too long": "x" * 300 + ".db",
    "the folder itself": ".",
}


def files() -> Iterator[Bad]:
    for what, (make, error) in FILES.items():
        yield Bad(f"a store that is {what}", _opening(make), error)
    for what, place in PLACES.items():
        yield Bad(f"a store in {what}", _placed(place), EngineUnavailable)


def _opening(make: Callable[[Path], object]) -> Callable[[World], object]:
    def call(world: World) -> object:
        make(world.folder / "bad.db")
        return _use(world.folder / "bad.db")

    return call


def _placed(place: str) -> Callable[[World], object]:
    def call(world: World) -> object:
        (world.folder / "plain.txt").write_text("a text")
        return _use(world.folder / place)

    return call


def _use(path: Path) -> object:
    with Backlane(f"sqlite:///{path}") as app:
        return app.messages("orders").send(b"x")


# -- schemas --

SCHEMAS: dict[str, tuple[str, type[Exception]]] = {
    "a newer schema": (
        "update backlane_meta set value = 999 where name = 'schema'",
        SchemaMismatch,
    ),
    "a schema that is no number": (
        "update backlane_meta set value = 'two' where name = 'schema'",
        StoreCorrupt,
    ),
    "a schema of null": (
        "update backlane_meta set value = null where name = 'schema'",
        StoreCorrupt,
    ),
    "no schema version": ("delete from backlane_meta where name = 'schema'", StoreCorrupt),
    "no meta table": ("drop table backlane_meta", StoreCorrupt),
    "another meta table": (
        "drop table backlane_meta; create table backlane_meta (a, b)",
        StoreCorrupt,
    ),
    "another job table": (
        "drop table backlane_job; create table backlane_job (a, b)",
        StoreCorrupt,
    ),
    "a view for a table": (
        "drop table backlane_queue; create view backlane_queue as select 1 as id",
        StoreCorrupt,
    ),
    "a column of another name": (
        "alter table backlane_job rename column body to content",
        StoreCorrupt,
    ),
    "a column less": ("alter table backlane_ready drop column size", StoreCorrupt),
}
DROPPED = ("queue", "counter", "job", "ready", "scheduled", "lease", "finished")


def schemas() -> Iterator[Bad]:
    for what, (statements, error) in SCHEMAS.items():
        yield Bad(f"a store with {what}", _tampered(statements, _turn), error)
    for table in DROPPED:
        statements = f"drop table backlane_{table}"
        yield Bad(f"a store without its table {table}", _tampered(statements, _turn), StoreCorrupt)


# -- rows --

Use = Callable[[Backlane, JobHandle[Any], JobHandle[Any]], object]

ROWS: dict[str, tuple[str, Use, type[Exception]]] = {
    "a state that does not exist": (
        "update backlane_finished set state = 99",
        lambda app, done, ready: done.record(),
        StoreCorrupt,
    ),
    "a reason that does not exist": (
        "update backlane_finished set reason = 'tired'",
        lambda app, done, ready: done.record(),
        StoreCorrupt,
    ),
    "a lane that does not exist": (
        "update backlane_job set lane = 99",
        lambda app, done, ready: done.record(),
        StoreCorrupt,
    ),
    "a kind that does not exist": (
        "update backlane_queue set kind = 'letters'",
        lambda app, done, ready: app.engine.run(app.engine.list_queues()),
        StoreCorrupt,
    ),
    "a state that does not exist, in a list": (
        "update backlane_finished set state = 99",
        lambda app, done, ready: app.engine.run(app.engine.find(Selection())),
        StoreCorrupt,
    ),
    "a result that is no JSON": (
        "update backlane_finished set result = x'ff00'",
        lambda app, done, ready: done.result(timeout=0),
        Undecodable,
    ),
    "a result of another type": (
        "update backlane_finished set result = cast('\"text\"' as blob)",
        lambda app, done, ready: done.result(timeout=0),
        Undecodable,
    ),
    "a result that was cut off": (
        "update backlane_finished set result = cast('{\"a\":' as blob)",
        lambda app, done, ready: done.result(timeout=0),
        Undecodable,
    ),
}


def rows() -> Iterator[Bad]:
    for what, (statements, use, error) in ROWS.items():
        yield Bad(f"a row with {what}", _tampered(statements, use), error)


def _turn(app: Backlane, _done: object, _ready: object) -> object:
    """Do what an application and its worker do all day."""
    task = app.tasks["good"]
    job = task.enqueue(3)
    work(app)
    return job.record()


def _tampered(statements: str, use: Use) -> Callable[[World], object]:
    """Return a call that uses a store which another program has changed meanwhile."""

    def call(world: World) -> object:
        path = world.folder / "tampered.db"
        with _application(path) as app:
            done, ready = app.tasks["good"].enqueue(1), app.tasks["good"].using(delay=60).enqueue(2)
            work(app)
        connection = apsw.Connection(str(path))
        connection.execute(statements)
        connection.close()
        with _application(path) as app:
            return use(app, app_job(app, done), app_job(app, ready))

    return call


def app_job(app: Backlane, job: JobHandle[Any]) -> JobHandle[Any]:
    """Return the same job as another application sees it, without reading it yet."""
    reader = app.tasks["good"]._plain._reader
    return JobHandle(job._job, reader)


def _application(path: Path) -> Backlane:
    app = Backlane(f"sqlite:///{path}")

    @app.task(name="good")
    def good(x: int) -> int:
        return x

    return app


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    yield from addresses()
    yield from files()
    yield from schemas()
    yield from rows()
