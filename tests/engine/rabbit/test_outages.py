"""Lines that end, nodes that go, alarms: what was confirmed is there, and work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter

import pytest
from tests.engine.rabbit.bench import Bench, parcels, receive, unanswered
from tests.servers import rabbitmq
from tests.servers.faulty import Network
from tests.servers.missing import Missing, give_up
from tests.servers.rabbitmq import Node

from backlane.engine.transport import Blocked, Bounds, Fate, Parcel
from backlane.engine.transports.rabbit import Rabbit
from backlane.errors import EngineUnavailable

CUTS = 8
BACK_SECONDS = 5.0  # after a node takes connections again


@pytest.fixture(scope="module")
def mortal() -> Node:
    """A node to be ended and started again, for the tests of this file."""
    try:
        with rabbitmq.started() as node:
            yield node
    except Missing as why:
        give_up("rabbitmq", why)


async def publish_on(rabbit: Rabbit, queue: str, confirmed: set[str]) -> None:
    """Publish until cancelled, and note what was confirmed."""
    while True:
        batch = parcels(*[b"x"] * 20)
        with contextlib.suppress(EngineUnavailable, Blocked):
            fates = await rabbit.publish(queue, batch, 1)
            confirmed |= {
                it.id for it, fate in zip(batch, fates, strict=True) if fate is Fate.CONFIRMED
            }
        await asyncio.sleep(0.002)


async def grown(got: Counter[str], number: int) -> None:
    """Wait until so many different messages have been received."""
    while len(got) < number:  # noqa: ASYNC110  (a counter tells nobody)
        await asyncio.sleep(0.005)


async def drain(rabbit: Rabbit, queue: str, got: Counter[str]) -> None:
    """Receive and acknowledge until cancelled."""
    while True:
        with contextlib.suppress(EngineUnavailable):
            batch = await rabbit.receive(queue, 50, 0.3)
            await rabbit.ack(batch)
            got.update(it.id or "" for it in batch)


async def arrived(confirmed: set[str], got: Counter[str]) -> bool:
    """Whether all arrives that was confirmed, soon enough."""
    until = asyncio.get_running_loop().time() + 30
    while not confirmed <= got.keys() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return confirmed <= got.keys()


# -- the network --


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_nothing_confirmed_is_lost_when_connections_are_cut(bad: tuple[Bench, Network], how: str):
    bench, network = bad
    got: Counter[str] = Counter()

    confirmed: set[str] = set()

    async def work() -> bool:
        draining = asyncio.ensure_future(drain(bench.rabbit, bench.queue, got))
        publishing = asyncio.ensure_future(publish_on(bench.rabbit, bench.queue, confirmed))
        for number in range(1, CUTS + 1):
            await grown(got, number * 40)
            await asyncio.sleep(random.uniform(0, 0.02))
            getattr(network, how)()
        await grown(got, (CUTS + 1) * 40)
        publishing.cancel()
        has_arrived = await arrived(confirmed, got)
        draining.cancel()
        return has_arrived

    assert bench.run(work())


def test_an_answer_that_is_torn_leaves_messages_unknown_and_the_next_ones_work(
    bad: tuple[Bench, Network],
):
    bench, network = bad
    bench.publish(b"1")
    for after in (1, 7, 12, 20):
        network.torn_answers, network.torn_after = 1, after
        assert bench.publish(b"2") == [Fate.UNKNOWN]
        assert bench.publish(b"3") == [Fate.CONFIRMED]


def test_what_was_held_when_the_connection_went_is_shown_again(bad: tuple[Bench, Network]):
    bench, network = bad
    bench.publish(b"1", b"2", b"3")
    held = bench.receive(2)

    network.reset()
    bench.pass_time(0.1)
    bench.run(bench.rabbit.ack(held))  # passed over
    assert bench.run(bench.rabbit.extend(held, 10)) == held

    assert bench.bodies(3) == [b"1", b"2", b"3"]


def test_a_silent_network_is_noticed_by_its_heartbeats(bad: tuple[Bench, Network]):
    bench, network = bad
    quick = Rabbit(f"{bench.url}&heartbeat=1")
    bench.others.append(quick)
    bench.run(quick.publish(bench.queue, parcels(b"1"), 10))
    held = bench.run(quick.receive(bench.queue, 1, 10))

    network.strand()

    began = time.monotonic()
    got = bench.run(receive(quick, bench.queue, 1, 20))
    assert [it.body for it in got] == [b"1"]
    assert time.monotonic() - began < 15
    assert bench.run(quick.extend(held, 10)) == held


def test_a_publisher_waits_no_longer_than_it_says(bad: tuple[Bench, Network]):
    bench, network = bad
    bench.publish(b"1")
    network.hold()

    began = time.monotonic()
    assert bench.publish(b"2", b"3", seconds=0.3) == [Fate.UNKNOWN] * 2
    assert 0.2 < time.monotonic() - began < 3

    network.resume()
    assert bench.publish(b"4") == [Fate.CONFIRMED]


def test_beats_keep_a_quiet_connection(bench: Bench):
    quick = Rabbit(f"{bench.url}&heartbeat=1")
    bench.others.append(quick)
    bench.run(quick.publish(bench.queue, parcels(b"1"), 10))
    held = bench.run(quick.receive(bench.queue, 1, 10))

    bench.pass_time(4)

    assert bench.run(quick.extend(held, 10)) == []


# -- queues that vanish, channels that end --


def test_a_queue_that_was_deleted_is_made_again_for_what_is_published(bench: Bench, node: Node):
    bench.publish(b"1")
    delete(bench)

    assert bench.publish(b"2", b"3") == [Fate.CONFIRMED] * 2
    assert bench.bodies(2) == [b"2", b"3"]


def test_a_receiver_of_a_deleted_queue_listens_again(bench: Bench):
    bench.publish(b"1")
    bench.receive(1)

    async def work() -> list[bytes]:
        receiving = asyncio.ensure_future(receive(bench.rabbit, bench.queue, 1, 20))
        await asyncio.sleep(0.05)
        await bench.loop.run_in_executor(None, delete, bench)
        # RabbitMQ 3.10 brings nothing to a receiver of old where a queue is made again
        # before it has told that receiver that there is none.
        await asyncio.sleep(0.5)
        other = bench.other()
        await other.publish(bench.queue, parcels(b"2"), 10)
        return [it.body for it in await receiving]

    assert bench.run(work()) == [b"2"]


def test_who_listens_to_nothing_goes_on_when_told_to_listen_anew(bench: Bench):
    """RabbitMQ 3.10 tells no receiver that its queue was deleted, where it is made again at
    once: such a one waits for ever, until somebody doubts it."""

    async def story() -> list[bytes]:
        first = asyncio.ensure_future(bench.rabbit.receive(bench.queue, 5, 30.0))
        await asyncio.sleep(0.2)
        await bench.rabbit.forget(bench.queue)  # as who finds that nothing arrives
        await bench.rabbit.publish(bench.queue, parcels(b"1"), 10)
        got = await first
        await bench.rabbit.ack(got)
        await bench.rabbit.publish(bench.queue, parcels(b"2"), 10)
        again = await bench.rabbit.receive(bench.queue, 5, 10.0)
        assert len(bench.rabbit._consumer._feeds) == 1
        return [it.body for it in [*got, *again]]

    assert bench.run(story()) == [b"1", b"2"]


def test_delays_whose_queues_were_deleted_are_made_again(bench: Bench):
    bench.publish(Parcel("1", b"1", delay_ms=1))
    delete(bench, f"{bench.prefix}.1.~delay.1s")

    fates = [bench.publish(Parcel("2", b"2", delay_ms=1))[0] for _ in range(2)]

    assert fates[-1] is Fate.CONFIRMED
    assert b"2" in bench.bodies(1)


def test_a_receiver_that_takes_too_long_loses_what_it_holds_and_goes_on(own: Bench, node: Node):
    setting = (
        "application:set_env(rabbit, consumer_timeout, {}), "
        "application:set_env(rabbit, channel_tick_interval, {})."
    )
    node.evaluate(setting.format(500, 100))
    try:
        own.publish(b"slow")
        held = own.receive(1)
        again = own.receive(1, seconds=20)
    finally:
        node.evaluate(setting.format(1_800_000, 60_000))

    assert [it.body for it in again] == [b"slow"]
    assert own.run(own.rabbit.extend(held, 10)) == held


def delete(bench: Bench, queue: str | None = None) -> None:
    """Delete a queue behind everybody's back."""

    async def work() -> None:
        from backlane.engine.transports.rabbit import topology
        from backlane.engine.transports.rabbit.address import parse
        from backlane.engine.transports.rabbit.connection import connect

        address = parse(bench.url)
        connection = await connect(address, address.hosts[0], "test")
        await topology.delete(await connection.channel(10), [queue or bench.queue])
        await connection.close()

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(work())


# -- alarms --


def test_a_broker_short_of_memory_is_blocked_and_goes_on_where_it_stopped(own: Bench, node: Node):
    own.publish(b"1")
    with node.short_of_memory():
        own.pass_time(1.1)
        began = time.monotonic()
        with pytest.raises(Blocked, match="memory"):
            own.publish(b"2")
        with pytest.raises(Blocked):
            own.run(own.other().publish(own.queue, parcels(b"3"), 10))
        assert time.monotonic() - began < 5

        assert own.bodies(1) == [b"1"]  # whoever consumes goes on
        [subject] = [it for it in own.run(own.rabbit.diagnose()) if it.state != "ok"]
        assert subject.subject == "alarms"

    assert taken_again(own)


def taken_again(bench: Bench) -> bool:
    """Whether messages are taken within a few seconds."""
    limit = time.monotonic() + BACK_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(Blocked):
            return bench.publish(b"4") == [Fate.CONFIRMED]
        bench.pass_time(0.05)
    return False


def test_what_is_in_flight_when_an_alarm_comes_is_given_up_soon(own: Bench, node: Node):
    async def flood() -> list[Fate]:
        known: list[Fate] = []
        with contextlib.suppress(Blocked):
            while len(known) < 200_000:
                known += await own.rabbit.publish(own.queue, parcels(*[b"x" * 100] * 500), 30)
        return known

    alarm = threading.Thread(target=node.control, args=("set_vm_memory_high_watermark", "0"))
    alarm.start()
    try:
        began = time.monotonic()
        known = own.run(flood())
        assert time.monotonic() - began < 25
    finally:
        alarm.join()
        node.control("set_vm_memory_high_watermark", "absolute", "2GB")
    assert unanswered(known) <= 1_000
    assert Fate.CONFIRMED in known
    own.run(own.rabbit.purge(own.queue))


# -- the node --


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_confirmed_is_lost_when_the_node_ends(mortal: Node, end: str):
    bench = Bench(mortal.url)
    confirmed: set[str] = set()
    got: Counter[str] = Counter()

    async def work() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        draining = asyncio.ensure_future(drain(bench.rabbit, bench.queue, got))
        publishing = asyncio.ensure_future(publish_on(bench.rabbit, bench.queue, confirmed))
        await grown(got, 200)
        # RabbitMQ 3.10 writes down what a new queue is called after half a second: one that is
        # killed before never serves that queue again.
        await asyncio.sleep(1.5)
        await loop.run_in_executor(None, getattr(mortal, end))
        await asyncio.sleep(0.5)
        before = len(got)
        await loop.run_in_executor(None, mortal.start)
        served = loop.time()
        await grown(got, before + 200)
        took = loop.time() - served
        publishing.cancel()
        has_arrived = await arrived(confirmed, got)
        draining.cancel()
        return has_arrived, took

    try:
        has_arrived, took = bench.run(work())
    finally:
        bench.close()

    assert has_arrived
    assert took < BACK_SECONDS


def test_while_there_is_no_node_every_call_says_so_in_time(mortal: Node):
    bench = Bench(mortal.url)
    bench.publish(b"1")
    mortal.kill()
    bench.pass_time(0.1)
    try:
        for call in (
            lambda: bench.publish(b"2", seconds=3),
            lambda: bench.receive(1, seconds=3),
            bench.ready,
        ):
            began = time.monotonic()
            with pytest.raises(EngineUnavailable, match=r"does not answer|lost|no connection"):
                call()
            assert time.monotonic() - began < 7
    finally:
        mortal.start()
    bench.run(bench.rabbit.declare(bench.queue, Bounds()))
    bench.close()
