"""RabbitMQ ends, comes back, loses connections and runs out of memory under load.

Before a ledger it loses and repeats nothing, whatever becomes of it. Alone it loses nothing
that was acknowledged, and may show a job twice.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import Fleet, fleet, until_jobs_start, wait_until
from tests.faults.history import judge, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import POSTGRES, SQLITE, Kind
from tests.servers import rabbitmq
from tests.servers.faulty import Network, network
from tests.servers.missing import Missing, give_up
from tests.servers.rabbitmq import Node

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2400)]

WORKERS = 2
RATE = 60.0
BETWEEN = 1.2  # seconds that the broker serves
AGAIN = 5.0  # seconds within which workers consume again
LONGEST_CALL = 15.0
ENDS = ("stop", "kill", "cut")
TIMES = int(os.environ.get("BACKLANE_ENDS", "20"))  # of each, where it is to be proved


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    try:
        with rabbitmq.started() as made:
            yield made
    except Missing as why:
        give_up("rabbitmq", why)


@pytest.fixture
def net(node: Node) -> Iterator[Network]:
    """The way to the node, whose connections can be cut."""
    with network(node.url) as made:
        yield made


@pytest.mark.parametrize("ledger", [SQLITE, POSTGRES], ids=lambda kind: kind.name)
def test_whatever_becomes_of_the_broker_no_job_before_a_ledger_is_lost_or_repeated(
    ledger: Kind,
    node: Node,
    net: Network,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    if ledger is POSTGRES and not proving:
        pytest.skip("the same on SQLite is enough outside `make prove`")

    with (
        ledger.opened(tmp_path) as store,
        fleet(tmp_path, WORKERS, store=_before(store.url, node, net)) as workers,
    ):
        producer = Producer(diarist(workers.url), workers.diary, chance, RATE)
        waits = _troubled(workers, producer, node, net, ENDS * (TIMES if proving else 1))
        wait_until(producer.is_drained, 90, "all jobs are done after the last outage")
        verdict = judge(producer.calls, producer.finished(), read_diary(workers.diary), [])
        producer.work.app.close()

    _record(record_property, f"rabbitmq+{ledger.name}", waits, producer, str(verdict))
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]
    assert not producer.calls.refused
    assert max(waits.values()) <= (AGAIN if proving else 3 * AGAIN), waits
    assert producer.longest_call <= LONGEST_CALL


def test_whatever_becomes_of_the_broker_alone_what_it_acknowledged_runs(
    node: Node,
    net: Network,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    ends = ENDS if proving else ("kill", "cut")
    with fleet(tmp_path, WORKERS, store=_alone(node, net)) as workers:
        producer = Producer(diarist(workers.url), workers.diary, chance, RATE)
        waits = _troubled(workers, producer, node, net, ends * (TIMES if proving else 1))

        def left() -> set[str]:
            ended = {
                job
                for job, attempts in read_diary(workers.diary).items()
                if any(it.has_ended for it in attempts)
            }
            return set(producer.calls.acknowledged) - ended

        wait_until(lambda: not left(), 90, "all that was acknowledged has run")
        repeated = sum(len(it) > 1 for it in read_diary(workers.diary).values())
        producer.work.app.close()

    _record(record_property, "rabbitmq", waits, producer, f"lost=0 repeated={repeated}")
    assert max(waits.values()) <= (AGAIN if proving else 3 * AGAIN), waits
    assert producer.longest_call <= LONGEST_CALL


def test_a_broker_without_memory_delays_jobs_before_a_ledger_and_refuses_none(
    node: Node, net: Network, tmp_path: Path, chance: random.Random
) -> None:
    ledger = f"sqlite:///{tmp_path / 'jobs.db'}"
    with fleet(tmp_path, 1, store=_before(ledger, node, net)) as workers:
        producer = Producer(diarist(workers.url), workers.diary, chance, RATE)
        producer.enqueue()
        wait_until(producer.is_drained, 30, "a first job is done")
        with node.short_of_memory():
            began = time.monotonic()
            for _ in range(50):
                producer.enqueue()
            assert time.monotonic() - began < LONGEST_CALL
        wait_until(producer.is_drained, 60, "all jobs are done when the alarm is over")
        verdict = judge(producer.calls, producer.finished(), read_diary(workers.diary), [])
        producer.work.app.close()

    assert not producer.calls.refused
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]


def test_a_job_that_takes_longer_than_the_broker_allows_runs_once(
    node: Node, net: Network, tmp_path: Path, chance: random.Random
) -> None:
    setting = (
        "application:set_env(rabbit, consumer_timeout, {}), "
        "application:set_env(rabbit, channel_tick_interval, {})."
    )
    node.evaluate(setting.format(1_000, 100))
    ledger = f"sqlite:///{tmp_path / 'jobs.db'}"
    try:
        with fleet(tmp_path, 1, store=_before(ledger, node, net)) as workers:
            producer = Producer(
                diarist(workers.url), workers.diary, chance, RATE, shortest=4_000, longest=4_000
            )
            producer.enqueue()
            wait_until(producer.is_drained, 60, "it is done")
            diary = read_diary(workers.diary)
            producer.work.app.close()
    finally:
        node.evaluate(setting.format(1_800_000, 60_000))

    [attempts] = diary.values()
    assert [it.has_ended for it in attempts] == [True]


def _before(ledger: str, node: Node, net: Network) -> str:
    return f"{_alone(node, net)}&ledger={ledger}"


def _alone(node: Node, net: Network) -> str:
    return f"{net.before(node.url)}?prefix={rabbitmq.prefix()}"


def _troubled(
    workers: Fleet, producer: Producer, node: Node, net: Network, ends: Sequence[str]
) -> dict[str, float]:
    """End the node and cut its connections under load; return the longest waits."""
    producer.enqueue()
    wait_until(lambda: read_diary(workers.diary) if workers.diary.exists() else {}, 30, "it runs")
    producer.start()
    waits = dict.fromkeys(ENDS, 0.0)
    for end in ends:
        time.sleep(BETWEEN)
        if end == "cut":
            net.reset()
        else:
            getattr(node, end)()
            node.start()
        took = until_jobs_start(workers)
        print(f"{end}: jobs start again after {took:.2f} s")
        waits[end] = max(waits[end], took)
    producer.stop()
    return waits


def _record(
    record_property: Callable[[str, object], None],
    name: str,
    waits: dict[str, float],
    producer: Producer,
    verdict: str,
) -> None:
    told = " ".join(f"{end}={wait:.2f}s" for end, wait in waits.items())
    record_property(
        "figure",
        f"{name}: acknowledged={len(producer.calls.acknowledged)} "
        f"unknown={len(producer.calls.unknown)} refused={len(producer.calls.refused)} "
        f"consumed again {told} longest call={producer.longest_call:.2f} s {verdict}",
    )
