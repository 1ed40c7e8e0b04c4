"""The store a command looks at: found by `--url`, `--app` or the environment.

Commands talk to it in the verbs of the engine, so they need no application beside it,
and work the same on every engine.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import click

from backlane.cli.application import load
from backlane.cli.output import Output
from backlane.engine.bare import Bare
from backlane.engine.connect import connect
from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.selection import Selection
from backlane.errors import JobNotFound, UnknownQueue, nearest
from backlane.model.clock import SystemClock
from backlane.model.ids import parse_id
from backlane.model.job import JobRecord
from backlane.model.queue import QueueRecord

T = TypeVar("T")
Command = Callable[..., None]

URL_HELP = "The store, as in sqlite:///jobs.db; else BACKLANE_URL."
APP_HELP = "The application whose store it is; else BACKLANE_APP."


class NoStore(click.ClickException):
    """There is nothing to look at where the URL points; exit code 1."""


@dataclass(frozen=True, slots=True)
class Store:
    """An engine, with the questions that more than one command asks it."""

    engine: Engine

    def run(self, plan: Plan[T]) -> T:
        return self.engine.run(plan)

    def queues(self) -> list[QueueRecord]:
        return self.run(self.engine.list_queues())

    def queue(self, name: str) -> QueueRecord:
        """Return the queue of that name.

        Raises:
            UnknownQueue: the store holds none; offers the nearest name.
        """
        found = {queue.name: queue for queue in self.queues()}
        if name not in found:
            hint = nearest(name, found)
            known = f"; known: {', '.join(sorted(found)[:10])}" if found and not hint else ""
            raise UnknownQueue(f"no queue {name!r} in {self.engine.url}{hint}{known}")
        return found[name]

    def job(self, job_id: bytes) -> JobRecord:
        """Return all that is known of a job.

        Raises:
            JobNotFound: the store does not hold it.
        """
        records = self.run(self.engine.find(Selection(ids=(job_id,)), 1)).records
        if not records:
            raise not_found([job_id], self.engine.url)
        return records[0]


def not_found(ids: list[bytes], url: str) -> JobNotFound:
    """Return the error for ids that the store does not hold."""
    named = ", ".join(str(uuid.UUID(bytes=each)) for each in ids[:3])
    more = f" and {len(ids) - 3:,} more" if len(ids) > 3 else ""
    return JobNotFound(
        f"no job {named}{more} in {url}: never enqueued there, or its history has been pruned"
    )


class JobId(click.ParamType[bytes]):
    """A job's id in its usual spelling, as 16 bytes."""

    name = "id"

    def convert(self, value: object, *_: object) -> bytes:
        if isinstance(value, bytes):
            return value
        return parse_id(str(value))


JOB_ID = JobId()


@contextmanager
def opened(url: str | None, app: str | None, *, make: bool = False) -> Iterator[Store]:
    """Open the store that the options name, and close it behind the block.

    `make` allows a file that does not exist yet; a command that only looks must not
    leave an empty store where a name was misspelt.
    """
    if url is not None and app is not None:
        raise click.UsageError("give --url or --app, not both")
    if url is not None:
        engine = connect(url, SystemClock())
    elif app is not None:
        loaded = load(app)
        engine = loaded.engine
        if isinstance(engine, Bare):  # it cannot ask a broker which queues there are
            engine.know({name: queue.bounds for name, queue in loaded.queues.items()})
    else:
        raise click.UsageError(
            "no store named: give --url sqlite:///jobs.db or --app module:attribute, "
            "or set BACKLANE_URL or BACKLANE_APP"
        )
    refuse_emptiness(engine.url, make=make)
    try:
        yield Store(engine)
    finally:
        engine.close()


def refuse_emptiness(url: str, *, make: bool) -> None:
    """Refuse a store that cannot hold anything yet, or not for other processes.

    Raises:
        NoStore: it is in memory, or a file that does not exist, or has none of our
            tables, unless `make`.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        raise NoStore(f"{url} lives inside one process, so there is nothing to look at from here")
    path = Path(unquote(parts.path.removeprefix("/")))
    if parts.scheme == "sqlite" and not make and not path.exists():
        raise NoStore(
            f"no store at {path}: check the path, or make it with "
            f"`backlane migrate --url {quote(url)}`"
        )
    if parts.scheme == "sqlite" and not make and not has_store(path):
        raise NoStore(
            f"{path} holds no jobs of backlane: check the path, or make its tables in this file "
            f"with `backlane migrate --url {quote(url)}`"
        )


def has_store(path: Path) -> bool:
    """Say whether a file has our tables; one that cannot be read may be: its use tells."""
    import apsw  # here, for the command line loads no engine until it needs one

    if not path.is_file() or not path.stat().st_size:
        return True
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return connection.table_exists("main", "backlane_meta")
        finally:
            connection.close()
    except apsw.Error:
        return True


def store_options(command: Command) -> Command:
    """Give a command `--url`, `--app` and `--json`, and hand it the store they name."""
    return _with_store(command, make=False)


def new_store_options(command: Command) -> Command:
    """Like `store_options`, for a command that may make the store."""
    return _with_store(command, make=True)


def _with_store(command: Command, *, make: bool) -> Command:
    @click.option("--url", metavar="URL", envvar="BACKLANE_URL", help=URL_HELP)
    @click.option("--app", metavar="MODULE:ATTR", envvar="BACKLANE_APP", help=APP_HELP)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def with_store(url: str | None, app: str | None, as_json: bool, **rest: object) -> None:
        with _without_warnings(), opened(*named(url, app), make=make) as store:
            command(store, Output(as_json), **rest)

    return with_store


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Let a look say what it was asked for; what settings risk is the doctor's to tell."""
    log = logging.getLogger("backlane")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def named(url: str | None, app: str | None) -> tuple[str | None, str | None]:
    """Return which of the two names the store.

    What the command line gives goes before the environment, and there the URL before
    the application.
    """
    given = click.get_current_context().get_parameter_source
    on_command_line = click.core.ParameterSource.COMMANDLINE
    if given("app") is on_command_line and given("url") is not on_command_line:
        return None, app
    if given("app") is not on_command_line and url is not None:
        return url, None
    return url, app
