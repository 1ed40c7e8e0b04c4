"""A broker, and transports at a prefix of their own, all on one loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from tests.engine.rabbit.bench import Bench
from tests.servers import rabbitmq
from tests.servers.faulty import Network, network
from tests.servers.missing import Missing, give_up
from tests.servers.rabbitmq import Node


@pytest.fixture(scope="session")
def node() -> Node:
    """Our own node, whatever broker the tests are told to use."""
    try:
        return rabbitmq.own()
    except Missing as why:
        give_up("rabbitmq", why)


@pytest.fixture(scope="session")
def url() -> str:
    try:
        return rabbitmq.url()
    except Missing as why:
        give_up("rabbitmq", why)


@pytest.fixture
def bench(url: str) -> Iterator[Bench]:
    """A queue of the test's own, and a transport at it."""
    with contextlib.closing(Bench(url)) as made:
        yield made


@pytest.fixture
def own(node: Node) -> Iterator[Bench]:
    """The same at our own node, which can be made to suffer."""
    with contextlib.closing(Bench(node.url)) as made:
        yield made


@pytest.fixture
def bad(url: str) -> Iterator[tuple[Bench, Network]]:
    """A transport behind a network that does as it is told."""
    with network(url) as between, contextlib.closing(Bench(between.before(url))) as made:
        yield made, between


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    """Sockets that a test left open on purpose end with their loop."""
    yield
    with contextlib.suppress(RuntimeError):
        asyncio.get_event_loop_policy()
