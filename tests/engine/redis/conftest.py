"""A server, and a desk at a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from tests.engine.contract.desk import Desk
from tests.engine.redis.ledger import Ledger
from tests.servers import redis as servers
from tests.servers.missing import Missing, give_up
from tests.servers.redis import RedisServer

from backlane.engine.redis import RedisEngine
from backlane.model.clock import FakeClock


@pytest.fixture(scope="module")
def url() -> str:
    try:
        return servers.newest()
    except Missing as why:
        give_up("redis", why)


@pytest.fixture
def namespace() -> str:
    return servers.namespace()


@pytest.fixture
def desk(url: str, namespace: str) -> Iterator[Desk]:
    """A desk at an engine on a fake clock."""
    clock = FakeClock()
    engine = RedisEngine(f"{url}?namespace={namespace}", clock=clock)
    yield Desk(engine, clock)
    engine.close()


@pytest.fixture
def ledger(url: str, namespace: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(url) as client:
        yield Ledger(client, namespace)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to be stopped and killed."""
    try:
        with servers.started() as made:
            yield made
    except Missing as why:
        give_up("redis", why)
