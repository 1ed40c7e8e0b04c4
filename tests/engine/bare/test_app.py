"""An application at a broker alone: its messages, and what its handles say."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from backlane import Backlane, NotSupported, QueueFull
from backlane.engine.bare import Bare
from backlane.engine.transports.memory import MemoryBroker
from backlane.errors import LeaseLost
from backlane.model.clock import SystemClock


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Backlane]:
    made = Backlane("amqp://127.0.0.1:1/")
    with (
        contextlib.closing(Bare(broker.connect())) as engine,
        made.replaced(engine, SystemClock()),
    ):
        yield made


def greet(name: str) -> str:
    return f"hello {name}"


def test_messages_are_sent_received_and_acked(app: Backlane, broker: MemoryBroker) -> None:
    orders = app.messages("orders")
    first = orders.send(b"one", headers={"shop": "7"})
    orders.send_many([b"two", b"three"])

    received = orders.receive(max=1, wait=5)
    while len(received) < 3:
        received += orders.receive(max=3, wait=5)

    assert [it.body for it in received] == [b"one", b"two", b"three"]
    assert (received[0].id, received[0].headers, received[0].attempt) == (first, {"shop": "7"}, 1)
    received[0].ack()
    assert orders.ack_many([it.receipt for it in received[1:]]) == []
    with pytest.raises(LeaseLost):
        received[0].ack()
    assert broker.acked.total() == 3


def test_a_message_that_is_released_comes_again(app: Backlane) -> None:
    orders = app.messages("orders")

    async def twice() -> list[int]:
        await orders.asend(b"one")
        [message] = await orders.areceive(wait=5)
        await message.aextend(60)
        await message.arelease()
        [again] = await orders.areceive(wait=5)
        await again.aack()
        return [message.attempt, again.attempt]

    assert asyncio.run(twice()) == [1, 2]


def test_a_receipt_is_good_in_its_own_process_alone(app: Backlane, broker: MemoryBroker) -> None:
    orders = app.messages("orders")
    orders.send(b"one")
    [message] = orders.receive(wait=5)
    other = Backlane("amqp://127.0.0.1:1/")

    with (
        contextlib.closing(Bare(broker.connect())) as engine,
        other.replaced(engine, SystemClock()),
        pytest.raises(LeaseLost),
    ):
        other.messages("orders").ack(message.receipt)

    message.ack()


@pytest.mark.parametrize(
    "ask",
    [
        lambda job: job.result(timeout=5),
        lambda job: job.cancel(),
        lambda job: job.state,
        lambda job: job.progress,
    ],
    ids=["result", "cancel", "state", "progress"],
)
def test_a_handle_names_the_ledger_at_once(app: Backlane, ask) -> None:
    job = app.task(greet).enqueue("ada")

    with pytest.raises(NotSupported, match="needs a ledger"):
        ask(job)


def test_a_full_broker_is_a_full_queue_that_says_when_to_come_back(app, broker) -> None:
    broker.is_blocked = True

    with pytest.raises(QueueFull, match="takes nothing") as full:
        app.task(greet).enqueue("ada")

    assert full.value.limit == "broker"
    assert full.value.retry_after is not None
    assert full.value.retry_after.total_seconds() == 1


def test_a_caller_may_wait_for_a_broker_that_takes_nothing(app, broker) -> None:
    broker.is_blocked = True
    soon = threading.Timer(0.2, lambda: setattr(broker, "is_blocked", False))
    soon.start()

    app.task(greet).using(on_full="wait", on_full_timeout=10).enqueue("ada")

    assert broker.ready("backlane.1.default") == 1
