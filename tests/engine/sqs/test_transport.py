"""The transport on a real endpoint: what is promised of every transport, and what is SQS's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.servers import sqs

from backlane.engine.transport import Bounds, Delivery, Fate, Parcel
from backlane.engine.transports.sqs import SqsTransport, open_url
from backlane.engine.transports.sqs.naming import dead_name, sqs_name

Run = Callable[..., Any]
SOON = 30.0  # seconds that an endpoint may take on a busy machine; it answers at once


def parcels(number: int, body: bytes = b"x") -> list[Parcel]:
    return [Parcel(f"id-{n}", body) for n in range(number)]


async def receive_all(transport: SqsTransport, queue: str, number: int) -> list[Delivery]:
    """Receive until there are so many, and acknowledge each batch."""
    found: list[Delivery] = []
    acks = []
    while len(found) < number:
        came = await transport.receive(queue, 50, SOON)
        assert came, f"{len(found)} of {number} came"
        found += came
        acks.append(asyncio.ensure_future(transport.ack(came)))
    await asyncio.gather(*acks)
    return found


def test_what_is_published_is_received_once(transport: SqsTransport, run: Run, queue: str):
    sent = parcels(95)

    fates = run(transport.publish(queue, sent, 10))
    came = run(receive_all(transport, queue, 95))

    assert fates == [Fate.CONFIRMED] * 95
    assert sorted(it.id or "" for it in came) == sorted(it.id for it in sent)
    assert run(transport.receive(queue, 10, 0)) == []
    assert run(transport.standing(queue)).ready == 0


def test_any_bytes_headers_and_groups_travel(transport: SqsTransport, run: Run, queue: str):
    sent = [
        Parcel("1", bytes(range(256)), {"": "", "ключ": "\0\uffff", "AWS.x": "y"}, "group 1\n"),
        Parcel("2", "größe \U0001f600\r\n\t".encode(), {"kind": "plain"}, "group-2"),
        Parcel("3", b""),
        Parcel("4", b"\x0b"),
    ]

    run(transport.publish(queue, sent, 10))
    came = {it.id: it for it in run(receive_all(transport, queue, 4))}

    for parcel in sent:
        got = came[parcel.id]
        assert (got.body, dict(got.headers), got.group) == (
            *(parcel.body, parcel.headers, parcel.group),
        )


def test_batches_keep_to_the_bytes_that_a_call_takes(transport: SqsTransport, run: Run, queue: str):
    sizes = [400_000, 10, 700_000, 300_000, 1_048_000, 5, 1_048_576, 1_100_000, 200_000]
    sent = [Parcel(str(n), b"y" * size) for n, size in enumerate(sizes)]

    fates = run(transport.publish(queue, sent, 30))

    assert [fate is Fate.REFUSED for fate in fates] == [size > 1_048_500 for size in sizes]
    came = run(receive_all(transport, queue, 7))
    assert sorted(len(it.body) for it in came) == sorted(it for it in sizes if it < 1_048_500)


def test_a_queue_may_take_less_than_sqs_does(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    sqs.client(endpoint).create_queue(
        QueueName=sqs_name(queue), Attributes={"MaximumMessageSize": "2048"}
    )

    fates = run(
        transport.publish(queue, [Parcel("1", b"x" * 3000), Parcel("2", b"x" * 1000)], SOON)
    )

    assert fates == [Fate.REFUSED, Fate.CONFIRMED]


def test_a_lone_message_starts_within_100_ms(transport: SqsTransport, run: Run, queue: str):
    async def measure() -> float:
        waiting = asyncio.ensure_future(transport.receive(queue, 10, SOON))
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        await transport.publish(queue, parcels(1), SOON)
        await transport.ack(await waiting)
        return time.monotonic() - begun - 0.2  # an acknowledgement waits so long for company

    run(transport.publish(queue, parcels(1), SOON))
    run(receive_all(transport, queue, 1))
    took = sorted(run(measure()) for _ in range(5))

    assert took[2] < 0.1


def test_nothing_comes_of_an_empty_queue_in_time(transport: SqsTransport, run: Run, queue: str):
    run(transport.standing(queue))
    begun = time.monotonic()

    assert run(transport.receive(queue, 10, 0.2)) == []
    assert 0.15 < time.monotonic() - begun < 5


def test_a_poll_that_outlives_its_call_serves_the_next(
    transport: SqsTransport, run: Run, queue: str
):
    run(transport.receive(queue, 10, 0.05))
    run(transport.publish(queue, parcels(1), SOON))
    run(asyncio.sleep(0.2))

    assert len(run(transport.receive(queue, 10, 1))) == 1


def test_polls_become_more_while_they_come_back_full(transport: SqsTransport, run: Run, queue: str):
    async def most() -> int:
        await transport.publish(queue, parcels(400), 20)
        seen = 0
        found = 0
        while found < 400:
            came = await transport.receive(queue, 100, SOON)
            found += len(came)
            parts = transport._parts
            assert parts is not None
            seen = max(seen, parts.sources._known[queue].polls)
            await transport.ack(came)
        await transport.receive(queue, 100, 0.5)
        assert parts.sources._known[queue].polls <= 1  # again, once it is empty
        return seen

    seen = run(most())

    assert 2 < seen <= 8


def test_many_queues_share_a_bounded_number_of_threads(run: Run, endpoint: str):
    prefix = sqs.prefix()
    transport = open_url(f"{endpoint}?wait=1")
    assert isinstance(transport, SqsTransport)
    queues = [f"{prefix}.1.q{n}" for n in range(40)]
    before = set(threading.enumerate())

    async def all_of_them() -> list[list[Delivery]]:
        transport._open().link.polls.most = 16
        await asyncio.gather(*(transport.publish(it, parcels(1), 60) for it in queues))
        return await asyncio.gather(*(transport.receive(it, 10, 60) for it in queues))

    try:
        came = run(all_of_them())
        new = set(threading.enumerate()) - before  # other tests' engines may still be open
        threads = [it for it in new if it.name.startswith("backlane-sqs")]
        assert [len(it) for it in came] == [1] * 40
        assert len(threads) <= 32
    finally:
        run(transport.close())


def test_what_is_released_is_shown_again(transport: SqsTransport, run: Run, queue: str):
    run(transport.publish(queue, parcels(12), SOON))
    first: list[Delivery] = []
    while len(first) < 12:
        first += run(transport.receive(queue, 20, SOON))

    run(transport.release(first))
    again = run(receive_all(transport, queue, 12))

    assert {it.received for it in again} == {2}


def test_a_delivery_whose_time_is_over_is_not_ours(endpoint: str, run: Run, queue: str):
    transport = open_url(f"{endpoint}?wait=1&visibility=2")
    run(transport.publish(queue, parcels(2), SOON))
    first = run(transport.receive(queue, 1, SOON))[0]
    kept = run(transport.receive(queue, 1, SOON))[0]

    assert run(transport.extend([kept], 30)) == []
    time.sleep(1.2)

    assert run(transport.extend([first, kept], 30)) == [first]
    again = run(transport.receive(queue, 10, SOON))
    assert [it.id for it in again] == [first.id]
    run(transport.ack([kept, *again]))
    assert run(transport.standing(queue)).ready == 0
    run(transport.close())


def test_what_was_deleted_elsewhere_is_lost_to_an_extension(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.publish(queue, parcels(2), SOON))
    came: list[Delivery] = []
    while len(came) < 2:
        came += run(transport.receive(queue, 2, SOON))
    run(transport.ack(came[:1]))

    assert run(transport.extend(came, 60)) == came[:1]
    assert run(transport.extend(came[1:], 100_000)) == []  # as long as there is: twelve hours


def test_an_acknowledgement_may_be_said_twice(transport: SqsTransport, run: Run, queue: str):
    run(transport.publish(queue, parcels(1), SOON))
    came = run(transport.receive(queue, 10, SOON))

    run(transport.ack(came + came))
    run(transport.ack(came))


def test_what_came_in_advance_goes_back_when_it_is_forgotten(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.publish(queue, parcels(10), SOON))

    assert len(run(transport.receive(queue, 10, SOON))) == 10
    run(transport.publish(queue, parcels(10), SOON))
    taken = run(transport.receive(queue, 3, 0))  # begins a poll for more
    run(asyncio.sleep(0.3))
    run(transport.forget(queue))

    other = open_url(f"{endpoint}?wait=1")
    found: list[Delivery] = []
    while len(found) < 10 - len(taken):
        came = run(other.receive(queue, 10, SOON))
        assert came
        found += came
    run(other.close())


def test_closing_gives_everything_back(endpoint: str, run: Run, queue: str):
    first, second = open_url(f"{endpoint}?wait=1"), open_url(f"{endpoint}?wait=1")
    run(first.publish(queue, parcels(10), SOON))
    held = run(first.receive(queue, 5, SOON))

    run(first.ack(held[:1]))
    begun = time.monotonic()
    run(first.close())

    assert time.monotonic() - begun < 1
    found: list[Delivery] = []
    while len(found) < 9:
        came = run(second.receive(queue, 10, 3))
        assert came
        found += came
    run(second.close())


def test_a_closed_transport_opens_anew(transport: SqsTransport, run: Run, queue: str):
    run(transport.publish(queue, parcels(1), SOON))
    run(transport.close())

    assert len(run(transport.receive(queue, 10, SOON))) == 1


def test_a_delay_is_kept_by_the_queue(transport: SqsTransport, run: Run, queue: str):
    run(transport.publish(queue, [Parcel("1", b"x", delay_ms=900)], SOON))

    assert run(transport.standing(queue)).ready == 1
    assert run(transport.receive(queue, 1, 0.3)) == []
    assert len(run(transport.receive(queue, 1, SOON))) == 1
    assert transport.terms.delays.most_ms == 900_000


def test_a_fifo_queue_keeps_the_order_of_a_group(endpoint: str, run: Run, queue: str):
    transport = open_url(f"{endpoint}?wait=1&fifo=true")
    assert isinstance(transport, SqsTransport)
    sent = [Parcel(str(n), b"x", group="a" if n % 2 else "b") for n in range(24)]

    fates = run(transport.publish(queue, sent, 10))
    came = run(receive_all(transport, queue, 24))

    assert fates == [Fate.CONFIRMED] * 24
    for group in "ab":
        order = [int(it.id or "") for it in came if it.group == group]
        assert order == sorted(order)
    run(transport.close())


def test_a_fifo_queue_takes_a_second_publication(endpoint: str, run: Run, queue: str):
    """The five minutes in which it drops what it knows must not drop what was offered again."""
    transport = open_url(f"{endpoint}?wait=1&fifo=true")
    assert isinstance(transport, SqsTransport)

    for _ in range(2):
        run(transport.publish(queue, parcels(1), SOON))
        assert len(run(receive_all(transport, queue, 1))) == 1
    assert transport.terms.delays.most_ms == 0
    run(transport.close())


def test_a_queue_has_a_dead_one_behind_it(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.standing(queue))

    client = sqs.client(endpoint)
    url = client.get_queue_url(QueueName=sqs_name(queue))["QueueUrl"]
    made = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert dead_name(queue) in made["RedrivePolicy"]
    assert '"maxReceiveCount": 1000' in made["RedrivePolicy"].replace('"1000"', "1000")
    assert made["MessageRetentionPeriod"] == "1209600"


def test_a_queue_that_was_deleted_is_made_again(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.publish(queue, parcels(1), SOON))
    client = sqs.client(endpoint)
    url = client.get_queue_url(QueueName=sqs_name(queue))["QueueUrl"]

    client.delete_queue(QueueUrl=url)
    assert run(transport.publish(queue, parcels(3), SOON)) == [Fate.CONFIRMED] * 3
    client.delete_queue(QueueUrl=url)
    assert run(transport.receive(queue, 1, 0.3)) == []
    assert run(transport.standing(queue)).ready == 0


def test_a_declared_queue_moves_what_was_tried_too_often(
    transport: SqsTransport, run: Run, queue: str
):
    dead = f"{queue}.dead"
    run(transport.declare(queue, Bounds(tries=2, dead=dead)))
    run(transport.publish(queue, parcels(1), SOON))

    for _ in range(2):
        run(transport.release(run(transport.receive(queue, 1, 2))))

    assert run(transport.receive(queue, 1, 0.3)) == []
    assert [it.id for it in run(transport.receive(dead, 1, 2))] == ["id-0"]


def test_a_queue_that_is_there_takes_the_declared_policy(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.standing(queue))

    run(transport.declare(queue, Bounds(tries=7)))

    client = sqs.client(endpoint)
    url = client.get_queue_url(QueueName=sqs_name(queue))["QueueUrl"]
    made = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert '"maxReceiveCount": 7' in made["RedrivePolicy"].replace('"7"', "7")


def test_a_purge_leaves_what_is_held_and_may_follow_another(
    transport: SqsTransport, run: Run, queue: str
):
    run(transport.publish(queue, parcels(25), SOON))
    run(transport.purge(queue))
    assert run(transport.standing(queue)).ready == 0

    run(transport.publish(queue, parcels(25), SOON))
    run(transport.purge(queue))  # within a minute: SQS itself declines
    assert run(transport.standing(queue)).ready == 0

    run(transport.publish(queue, parcels(12), SOON))
    held = run(transport.receive(queue, 1, SOON))
    run(transport.purge(queue))
    assert run(transport.extend(held, 30)) == []
    run(transport.release(held))
    assert len(run(transport.receive(queue, 1, SOON))) == 1


def test_a_foreign_message_comes_as_it_is(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    run(transport.standing(queue))
    client = sqs.client(endpoint)
    url = client.get_queue_url(QueueName=sqs_name(queue))["QueueUrl"]

    sent = client.send_message(QueueUrl=url, MessageBody="bonjour")
    (came,) = run(transport.receive(queue, 1, SOON))

    assert (came.body, came.id, dict(came.headers)) == (b"bonjour", sent["MessageId"], {})
    assert abs((came.sent_ms or 0) / 1000 - time.time()) < 60


def test_the_url_is_told_without_its_secret(transport: SqsTransport, endpoint: str):
    secret = urlsplit(endpoint).password

    assert secret is None or f":{secret}@" not in transport.url
    assert transport.terms.name == "Amazon SQS"
    assert (transport.terms.batch, transport.terms.held_ms) == (10, 30_000)
