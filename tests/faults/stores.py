"""The stores that the fault tests break: a file, and servers that write to the disk.

A server lives for one test, so that what is done to it hurts no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.servers import postgres, rabbitmq, redis, sqs
from tests.servers.missing import Missing, give_up

from backlane.engine.connect import connect
from backlane.model.clock import SystemClock

SETTLES = 5.0  # of PostgreSQL: until then everybody may be on the way back
LEASE = 4.0  # seconds, of workers on a store that only tells by it who is dead


class Server(Protocol):
    """A server that a test may end, kill and start again."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class Store:
    """A store of one test, and the server behind it, if there is one."""

    url: str
    server: Server | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a kind of store is started, and what it promises."""

    name: str
    open: Callable[[Path], AbstractContextManager[Store]]
    recovery: float  # seconds until what a killed worker ran runs again, 99 of 100 times
    lease: float | None = None  # where nothing but the lease tells who is dead
    # Seconds until the last job is done; an offer of a killed relay takes its time.
    drain: float = 60.0
    forgets: float = 0.0  # seconds before a crash whose acknowledgements may be lost
    settles: float = 0.0  # seconds after its start in which it takes nobody for dead

    @contextlib.contextmanager
    def opened(self, folder: Path) -> Iterator[Store]:
        """Start it; skip the test (fail it, in CI) where it cannot be had."""
        with contextlib.ExitStack() as held:
            try:
                store = held.enter_context(self.open(folder))
            except Missing as why:
                give_up(f"faults on {self.name}", why)
            yield store


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[Store]:
    yield Store(f"sqlite:///{folder / 'jobs.db'}")


@contextlib.contextmanager
def durable_postgres(**settings: str) -> Iterator[Store]:
    """Run a PostgreSQL that loses nothing, with our schema in it."""
    with postgres.started(**settings) as server:
        engine = connect(server.url, SystemClock())
        engine.migrate()
        engine.close()
        yield Store(server.url, server)


@contextlib.contextmanager
def _redis(appendfsync: str) -> Iterator[Store]:
    with redis.started(appendfsync=appendfsync) as server:
        yield Store(server.url, server)


@contextlib.contextmanager
def _by_rabbitmq(ledger: AbstractContextManager[Store]) -> Iterator[Store]:
    """A node and a ledger of the test's own; it is the node that a test may end."""
    with ledger as kept, rabbitmq.started() as node:
        yield Store(f"{node.url}?ledger={kept.url}", node)


@contextlib.contextmanager
def _by_sqs(ledger: AbstractContextManager[Store]) -> Iterator[Store]:
    with ledger as kept:
        yield Store(f"{sqs.newest()}?prefix={sqs.prefix()}&ledger={kept.url}")


SQLITE = Kind(name="sqlite", open=_file, recovery=1.0)
POSTGRES = Kind(name="postgresql", open=lambda _: durable_postgres(), recovery=2.0, settles=SETTLES)
REDIS = Kind(name="redis", open=lambda _: _redis("everysec"), recovery=LEASE, lease=LEASE)
REDIS_ALWAYS = Kind(
    name="redis-always", open=lambda _: _redis("always"), recovery=LEASE, lease=LEASE
)
REDIS_EVERYSEC = Kind(
    name="redis-everysec",
    open=lambda _: _redis("everysec"),
    recovery=LEASE,
    lease=LEASE,
    forgets=2.0,
)
# A broker before a ledger: that its worker is dead is the ledger's to tell.
RABBITMQ_SQLITE = Kind(
    name="rabbitmq+sqlite",
    open=lambda folder: _by_rabbitmq(_file(folder)),
    recovery=2.0,
    drain=180.0,
)
RABBITMQ_POSTGRES = Kind(
    name="rabbitmq+postgresql",
    open=lambda _: _by_rabbitmq(durable_postgres()),
    recovery=3.0,
    settles=SETTLES,
    drain=180.0,
)
SQS_SQLITE = Kind(
    name="sqs+sqlite",
    open=lambda folder: _by_sqs(_file(folder)),
    recovery=3.0,
    drain=180.0,
)
SQS_POSTGRES = Kind(
    name="sqs+postgresql",
    open=lambda _: _by_sqs(durable_postgres()),
    recovery=4.0,
    settles=SETTLES,
    drain=180.0,
)
