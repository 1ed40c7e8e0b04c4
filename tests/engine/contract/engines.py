"""The engines that the contract is run against.

To add one, add a `Maker`: where an empty store of it is to be had. An engine that is
missing is named at the end of the run; where `CI` is set it fails the run, so that
nothing passes by not being tried.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.servers import pgbouncer, postgres, redis
from tests.servers.missing import Missing, give_up

from backlane.engine.connect import connect
from backlane.engine.protocol import Engine
from backlane.model.clock import Clock, SystemClock

MEMORY_DISK = Path("/dev/shm")
ROOM = 1 << 30  # in a container it may be of 64 MiB

Place = Callable[[Path, Clock], AbstractContextManager[str]]


@dataclass(frozen=True)
class Maker:
    """How to get an empty store of one kind, and with it an engine."""

    name: str
    lend: Place  # yields a URL; raises Missing where there is no such server here

    @contextlib.contextmanager
    def place(self, folder: Path, clock: Clock) -> Iterator[str]:
        """Lend an empty store; skip the test (fail it, in CI) naming what is missing."""
        try:
            lent = self.lend(folder, clock)
            url = lent.__enter__()
        except Missing as why:
            give_up(f"engine {self.name}", why)
        try:
            yield url
        finally:
            lent.__exit__(None, None, None)

    @contextlib.contextmanager
    def opened(self, folder: Path, clock: Clock) -> Iterator[Engine]:
        """Make an engine on a place of its own, and close it before that is given back."""
        with self.place(folder, clock) as url:
            engine = connect(url, clock)
            try:
                yield engine
            finally:
                engine.close()


@contextlib.contextmanager
def _of_this_process(folder: Path, clock: Clock) -> Iterator[str]:
    yield "memory://"


@contextlib.contextmanager
def _in_a_file(folder: Path, clock: Clock) -> Iterator[str]:
    with in_memory(folder) as quick:
        yield f"sqlite:///{lay(quick / 'jobs.db')}"


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """Lend a folder in memory where there is room, else the given one.

    A sync of a disk takes milliseconds, and a store syncs with each commit. What a crash
    leaves is the business of the fault tests, as with the servers of `tests/servers/`.
    """
    if not MEMORY_DISK.is_dir() or shutil.disk_usage(MEMORY_DISK).free < ROOM:
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK, ignore_cleanup_errors=True) as made:
        yield Path(made)


def lay(path: Path) -> Path:
    """Put an empty store into a file, quicker than an engine makes one; return the path."""
    made, secret = _made_file()
    path.write_bytes(made.replace(secret, os.urandom(len(secret))))
    return path


@cache
def _made_file() -> tuple[bytes, bytes]:
    """Make a store in a file once: five times as long as most tests of it take."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        engine = connect(f"sqlite:///{path}", SystemClock())
        secret = engine.run(engine.measure(())).secret
        engine.close()
        return path.read_bytes(), secret


@contextlib.contextmanager
def _on_postgres(folder: Path, clock: Clock) -> Iterator[str]:
    server = postgres.newest()
    with server.schema(clock) as schema:
        yield f"{server.url}?schema={schema}"


@contextlib.contextmanager
def _on_old_postgres(folder: Path, clock: Clock) -> Iterator[str]:
    server = postgres.old()
    with server.schema(clock) as schema:
        yield f"{server.url}?schema={schema}"


@contextlib.contextmanager
def _through_pgbouncer(folder: Path, clock: Clock) -> Iterator[str]:
    pooler = pgbouncer.pooled()
    with postgres.newest().schema(clock) as schema:
        yield f"{pooler}?schema={schema}&pooler=transaction"


@contextlib.contextmanager
def _on_redis(folder: Path, clock: Clock) -> Iterator[str]:
    yield f"{redis.newest()}?namespace={redis.namespace()}"


@contextlib.contextmanager
def _on_old_redis(folder: Path, clock: Clock) -> Iterator[str]:
    yield f"{redis.old()}?namespace={redis.namespace()}"


@contextlib.contextmanager
def _on_a_cluster(folder: Path, clock: Clock) -> Iterator[str]:
    yield f"{redis.cluster()}?namespace={redis.namespace()}"


MEMORY = Maker("memory", _of_this_process)
SQLITE = Maker("sqlite", _in_a_file)
POSTGRES = Maker("postgresql", _on_postgres)
REDIS = Maker("redis", _on_redis)
MAKERS = [MEMORY, SQLITE, POSTGRES, REDIS]
SHARED = MAKERS[1:]  # by several processes
# The same engines on old servers, and where something stands between.
VARIANTS = [
    Maker("postgresql-15", _on_old_postgres),
    Maker("postgresql-pgbouncer", _through_pgbouncer),
    Maker("redis-7", _on_old_redis),
    Maker("redis-cluster", _on_a_cluster),
]
