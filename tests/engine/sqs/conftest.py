"""What tests of SQS share: an endpoint, a transport on it, and one behind an unruly proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from tests.servers import sqs
from tests.servers.missing import Missing, give_up
from tests.servers.unruly import Unruly, unruly

from backlane.engine.transports.sqs import SqsTransport, open_url

T = TypeVar("T")


@pytest.fixture(scope="session")
def endpoint() -> str:
    try:
        return sqs.newest()
    except Missing as why:
        give_up("SQS", why)


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Carry a coroutine out; tasks live on between two of them."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def queue() -> str:
    """A queue that no test had before."""
    return f"{sqs.prefix()}.1.mail"


@pytest.fixture
def transport(endpoint: str, queue: str, run: Callable[..., Any]) -> Iterator[SqsTransport]:
    made = open_url(f"{endpoint}?wait=1&prefix={queue.partition('.')[0]}")
    assert isinstance(made, SqsTransport)
    yield made
    run(made.close())


@pytest.fixture
def bad(endpoint: str) -> Iterator[Unruly]:
    """The proxy; nothing goes wrong until it is told to."""
    with unruly(endpoint) as made:
        yield made


@pytest.fixture
def through(
    endpoint: str, bad: Unruly, queue: str, run: Callable[..., Any]
) -> Iterator[SqsTransport]:
    """A transport whose way leads through the proxy."""
    made = open_url(f"{bad.before(endpoint)}?wait=1&prefix={queue.partition('.')[0]}")
    assert isinstance(made, SqsTransport)
    yield made
    run(made.close())
