"""The bare engine over each transport: in memory, on RabbitMQ, on SQS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from tests.engine.bare.counter import Counter
from tests.servers import rabbitmq, sqs
from tests.servers.missing import Missing, give_up

from backlane.engine.bare import Bare
from backlane.engine.connect import connect
from backlane.engine.transports.memory import MemoryBroker
from backlane.model.clock import SystemClock


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def memory(broker: MemoryBroker) -> Iterator[Counter]:
    """An engine on the memory broker, whose faults can be had at will."""
    with contextlib.closing(Bare(broker.connect())) as engine:
        yield Counter(engine)


@pytest.fixture(scope="session")
def amqp_url() -> str:
    try:
        return rabbitmq.url()
    except Missing as why:
        give_up("rabbitmq", why)


@pytest.fixture(scope="session")
def sqs_url() -> str:
    try:
        return sqs.newest()
    except Missing as why:
        give_up("sqs", why)


@pytest.fixture
def rabbit_url(amqp_url: str) -> str:
    """A broker's URL with a prefix of the test's own."""
    return f"{amqp_url}?prefix={rabbitmq.prefix()}"


@pytest.fixture(params=["memory", "rabbitmq", "sqs"])
def counter(request: pytest.FixtureRequest) -> Iterator[Counter]:
    match request.param:
        case "memory":
            engine = Bare(MemoryBroker().connect())
        case "rabbitmq":
            url = request.getfixturevalue("rabbit_url")
            engine = connect(url, SystemClock())
        case _:
            url = f"{request.getfixturevalue('sqs_url')}?prefix={sqs.prefix()}"
            engine = connect(url, SystemClock())
    with contextlib.closing(engine):
        yield Counter(engine)
