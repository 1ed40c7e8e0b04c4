"""Raw messages: sending, receiving, leases, receipts."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator

import pytest

from backlane import (
    Backlane,
    BadOption,
    LeaseLost,
    MessageQueue,
    Queue,
    QueueFull,
    TooLarge,
    UnknownOption,
    UnknownQueue,
    WrongUse,
)
from backlane.engine.memory import MemoryEngine
from backlane.model.clock import FakeClock
from backlane.worker import Worker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Backlane]:
    app = Backlane("memory://", queues=[Queue("orders"), Queue("tiny", max_jobs=2)])
    with app.replaced(MemoryEngine(clock), clock):
        yield app


@pytest.fixture
def orders(app: Backlane) -> MessageQueue:
    return app.messages("orders")


# -- sending --


def test_a_message_arrives_as_it_was_sent(orders):
    sent = orders.send(b"\x00\xff", headers={"kind": "order"})

    [message] = orders.receive()

    assert (message.body, dict(message.headers), message.id) == (
        b"\x00\xff",
        {"kind": "order"},
        sent,
    )
    assert message.attempt == 1


def test_messages_go_by_priority_and_then_in_order(orders):
    orders.send_many([b"a", b"b"])
    orders.send(b"urgent", priority=9)

    bodies = [message.body for message in orders.receive(10)]

    assert bodies == [b"urgent", b"a", b"b"]


def test_a_delayed_message_is_hidden_until_it_is_due(orders, clock):
    orders.send(b"later", delay=5)

    early = orders.receive()
    clock.advance(seconds=5)

    assert early == []
    assert [message.body for message in orders.receive()] == [b"later"]


def test_a_taken_key_gives_the_first_message(orders):
    first, second = orders.send(b"a", key="k"), orders.send(b"b", key="k")

    assert second == first
    assert [message.body for message in orders.receive(10)] == [b"a"]


def test_the_same_id_sent_again_is_the_same_message(orders):
    first = orders.send(b"a")

    assert orders.send(b"a", id=first) == first
    assert len(orders.receive(10)) == 1


def test_many_are_sent_in_order(orders):
    sent = orders.send_many(str(i).encode() for i in range(1_500))

    received = orders.receive(1_000) + orders.receive(1_000)

    assert [message.id for message in received] == sent


def test_sending_has_async_forms(orders):
    async def send():
        return [await orders.asend(b"a"), *await orders.asend_many([b"b"], delay=0)]

    sent = asyncio.run(send())

    assert [message.id for message in orders.receive(10)] == sent


def test_a_full_queue_refuses_and_tells_how_many_were_stored(app):
    tiny = app.messages("tiny")

    with pytest.raises(QueueFull) as refused:
        tiny.send_many([b"x"] * 3)

    assert (refused.value.limit, refused.value.accepted) == ("jobs", 0)


@pytest.mark.parametrize("body", ["text", None, 5, {"a": 1}])
def test_what_is_not_bytes_is_refused_with_the_way_to_make_it(orders, body):
    with pytest.raises(BadOption, match="encode it"):
        orders.send(body)


def test_many_in_one_bytes_object_are_refused(orders):
    with pytest.raises(BadOption, match="send_many"):
        orders.send_many(b"abc")


def test_a_message_that_is_too_large_is_refused_with_both_sizes():
    app = Backlane("memory://", max_bytes=10)

    with pytest.raises(TooLarge, match="11 bytes, 10 are allowed"):
        app.messages("orders").send(b"x" * 11)


def test_an_unknown_option_is_refused_with_the_nearest(orders):
    with pytest.raises(UnknownOption, match=r"send\(\) has no option 'dely' .*'delay'"):
        orders.send(b"x", dely=1)


def test_an_undeclared_queue_is_refused_with_the_nearest(app):
    with pytest.raises(UnknownQueue, match="did you mean 'orders'"):
        app.messages("order")


# -- receiving --


def test_a_received_message_is_hidden_from_others_until_its_lease_ends(orders, clock):
    orders.send(b"a")
    first = orders.receive(lease=30)

    during = orders.receive()
    clock.advance(seconds=31)
    again = orders.receive()

    assert during == []
    assert [message.id for message in again] == [message.id for message in first]
    assert [message.attempt for message in again] == [2]


def test_an_empty_queue_answers_at_once_unless_asked_to_wait(orders):
    assert orders.receive() == []


def test_a_receiver_that_waits_is_woken_by_a_message(orders):
    sending = threading.Thread(target=orders.send, args=(b"a",))
    sending.start()

    received = orders.receive(wait=60)

    assert [message.body for message in received] == [b"a"]
    sending.join()


def test_an_async_receiver_that_waits_is_woken_by_a_message(orders):
    async def both():
        return await asyncio.gather(orders.areceive(wait=60), orders.asend(b"a"))

    received, sent = asyncio.run(both())

    assert [message.id for message in received] == [sent]


def test_a_receiver_that_waits_is_woken_when_a_delayed_message_is_due(orders, clock):
    async def both():
        await orders.asend(b"a", delay=0.75)
        waiting = asyncio.ensure_future(orders.areceive(wait=60))
        while not waiting.done():
            clock.advance(milliseconds=50)
            await asyncio.sleep(0)
        return await waiting

    assert [message.body for message in asyncio.run(both())] == [b"a"]


def test_a_wait_for_nothing_ends_in_time(orders, clock):
    async def both():
        waiting = asyncio.ensure_future(orders.areceive(wait=5))
        while not waiting.done():
            clock.advance(milliseconds=100)
            await asyncio.sleep(0)
        return await waiting

    assert asyncio.run(both()) == []


def test_a_wait_that_would_block_the_running_loop_is_refused_naming_areceive(orders):
    async def blocking():
        orders.receive(wait=5)

    with pytest.raises(WrongUse, match="areceive"):
        asyncio.run(blocking())


@pytest.mark.parametrize("number", [0, 1_001, True, "1"])
def test_a_number_that_cannot_work_is_refused(orders, number):
    with pytest.raises(BadOption, match="max is"):
        orders.receive(number)


@pytest.mark.parametrize("option", ["wait", "lease"])
def test_a_duration_that_cannot_work_is_refused(orders, option):
    with pytest.raises(BadOption, match=f"{option} is -1"):
        orders.receive(**{option: -1})


# -- ending --


def test_an_acked_message_never_comes_back(orders, clock):
    orders.send(b"a")

    orders.receive()[0].ack()
    clock.advance(hours=1)

    assert orders.receive() == []


def test_a_released_message_comes_back_at_once_and_uncounted(orders):
    orders.send(b"a")

    orders.receive()[0].release()

    assert [message.attempt for message in orders.receive()] == [1]


def test_a_message_may_be_released_for_later(orders, clock):
    orders.send(b"a")

    orders.receive()[0].release(delay=60)
    early = orders.receive()
    clock.advance(seconds=60)

    assert early == []
    assert len(orders.receive()) == 1


def test_an_extended_lease_lasts_from_now(orders, clock):
    orders.send(b"a")
    [message] = orders.receive(lease=30)
    clock.advance(seconds=20)

    message.extend(60)
    clock.advance(seconds=59)

    assert orders.receive() == []


def test_messages_are_ended_in_async_forms_too(orders, clock):
    orders.send_many([b"a", b"b", b"c"])

    async def end():
        first, second, third = await orders.areceive(3)
        await first.aack()
        await second.arelease(delay=10)
        await third.aextend(3_600)

    asyncio.run(end())
    clock.advance(seconds=60)

    assert [message.body for message in orders.receive(10)] == [b"b"]


def test_any_process_ends_a_message_by_its_receipt(app, orders, clock):
    orders.send_many([b"a", b"b", b"c"])
    one, two, three = (message.receipt for message in orders.receive(3))
    other = Backlane("memory://")

    with other.replaced(app.engine, clock):
        elsewhere = other.messages("orders")
        elsewhere.ack(one)
        elsewhere.release(two)
        elsewhere.extend(three, 3_600)

    assert [message.body for message in orders.receive(10)] == [b"b"]


@pytest.mark.parametrize("verb", ["ack", "release", "extend"])
def test_a_receiver_whose_lease_went_to_another_is_told(orders, clock, verb):
    orders.send(b"a")
    [late] = orders.receive(lease=30)
    clock.advance(seconds=31)
    [again] = orders.receive()

    with pytest.raises(LeaseLost, match=str(late.id)):
        getattr(late, verb)()

    again.ack()


def test_many_are_acked_at_once_and_the_lost_ones_are_told(orders):
    orders.send_many([b"a", b"b"])
    first, second = orders.receive(2)
    first.ack()

    lost = orders.ack_many([first.receipt, second.receipt])

    assert lost == [first.receipt]
    assert asyncio.run(orders.aack_many([second.receipt])) == [second.receipt]


@pytest.mark.parametrize(
    "receipt", ["", "x", uuid.UUID(int=5, version=4).hex, f"{'0' * 32}.x", None, b"0"]
)
def test_what_is_no_receipt_is_refused(orders, receipt):
    with pytest.raises(BadOption, match="is not a receipt"):
        orders.ack(receipt)


def test_a_message_says_what_it_is(orders):
    sent = orders.send(b"a")

    assert repr(orders.receive()[0]) == f"<Message {sent} of orders>"


# -- beside a worker --


def test_a_declared_queue_is_free_for_messages_while_a_worker_runs():
    """The worker declared every queue as one of tasks, so that a first send was refused."""
    app = Backlane("memory://", queues=[Queue("orders")])
    app.task(name="nothing")(nothing)

    with Worker(app):
        app.tasks["nothing"].enqueue().result(timeout=30)
        app.messages("orders").send(b"a")

        assert [message.body for message in app.messages("orders").receive()] == [b"a"]


def nothing() -> None: ...
