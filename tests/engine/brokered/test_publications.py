"""How often a job is published: once, however long it has to wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.engine.brokered.yard import MAIL, QUICK, Process, Yard, until, yard

from backlane.engine.brokered.patience import Patience
from backlane.engine.limiting import Declared
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Tune
from backlane.engine.transport import Delivery
from backlane.engine.transports.memory import MemoryBroker, MemoryTransport
from backlane.model.clock import SystemClock
from backlane.model.limit import Limit, Use

PROVE = os.environ.get("BACKLANE_PROVE") == "1"

# Everything a hundred times as fast: an hour of a slow worker is half a minute.
FAST = Patience(offer=0.3, held=0.1, settled=0.15, unordered=3.0, poll=0.02, cut_off=1.0)


@pytest.fixture
def place() -> Iterator[Yard]:
    with yard() as made:
        yield made


@pytest.fixture
def passing() -> Iterator[Yard]:
    """One in which time passes by itself."""
    clock = SystemClock()
    made = Yard(MemoryEngine(clock), MemoryBroker(), clock, FAST)
    with closing(made):
        yield made


def published(place: Yard) -> float:
    """How often a job was published, in the mean of those that were."""
    counts = place.broker.published
    return sum(counts.values()) / len(counts)


def test_a_backlog_is_published_once_to_fast_workers(place: Yard) -> None:
    number = 20_000 if PROVE else 2_000
    workers = [place.process(), place.process()]
    workers[0].add(number)

    while not place.is_done:
        for worker in workers:
            worker.settle(worker.claim(300))

    assert len(place.broker.published) == number
    assert published(place) <= 1.05
    place.check()


def test_a_backlog_is_published_once_to_slow_workers(passing: Yard) -> None:
    """Each message waits at the broker for many times as long as an offer counts."""
    workers = [passing.process(window_least=50), passing.process(window_least=50)]
    workers[0].add(20_000 if PROVE else 2_000)

    end = time.monotonic() + (30 if PROVE else 3)
    while time.monotonic() < end:
        for worker in workers:
            worker.settle(worker.claim(1))
        time.sleep(0.01)

    assert sum(passing.settled.values()) > 100
    assert published(passing) <= 1.05
    assert max(passing.settled.values()) == 1


def test_the_broker_holds_a_window_and_no_more(place: Yard) -> None:
    """So an urgent job stands behind few others, however long the backlog is."""
    process = place.process(window_least=10)
    process.add(500)
    process.claim(1)
    until(lambda: len(place.broker.published) >= 10, "a window")
    time.sleep(0.05)  # two polls

    assert len(place.broker.published) <= 12


def test_an_urgent_job_stands_behind_a_window_at_most(place: Yard) -> None:
    process = place.process(window_least=10)
    process.add(500)
    process.take(1)
    (urgent,) = process.add(1, priority=9)

    before = 0
    while True:
        leases = process.take(1)
        if urgent in {lease.job for lease in leases}:
            break
        before += len(leases)

    assert before <= 30


def test_what_a_full_worker_has_in_hand_goes_to_others(place: Yard) -> None:
    """All its slots are taken, so it claims no more; nobody waits for it."""
    full, other = place.process(), place.process()
    full.add(100)
    begun = full.take(10)
    full.claim(20)

    got: set[bytes] = set()
    while len(got) < 70:
        got |= {lease.job for lease in other.take()}

    assert not got & {lease.job for lease in begun}


def test_a_paused_queue_is_left_alone_and_goes_on_at_once(place: Yard) -> None:
    process = place.process()
    process.add(1)
    place.ledger.run(place.ledger.tune("mail", Tune(paused=True)))
    assert process.claim() == []
    bell = process.engine.listen(["mail"])

    process.engine.run(process.engine.tune("mail", Tune(paused=False)))

    assert bell.heard(5)
    assert process.take()
    bell.close()


def test_a_limited_queue_is_not_published_in_a_circle(place: Yard) -> None:
    """Nothing is offered that its queue's limit would not let run."""
    limit = Declared(Limit(concurrency=2))
    process = place.process()
    place.ledger.run(place.ledger.regulate("queue:mail", limit))
    process.add(50)
    process.take()

    _claim_for(process, 0.3)

    assert max(place.broker.published.values()) <= 2
    assert sum(place.broker.published.values()) <= 6


def test_jobs_under_a_full_limit_are_not_published_in_a_circle(place: Yard) -> None:
    place.ledger.run(place.ledger.regulate("stripe", Declared(Limit(concurrency=1))))
    process = place.process()
    process.add(50, uses=(Use("stripe"),))
    process.take()

    _claim_for(process, 0.3)

    assert sum(place.broker.published.values()) <= 60


def test_a_queue_that_is_paused_behind_the_relay_is_not_published_in_a_circle(
    place: Yard,
) -> None:
    process = place.process()
    process.add(20)
    until(lambda: place.broker.ready(MAIL) == 20, "messages")
    place.ledger.run(place.ledger.tune("mail", Tune(paused=True)))

    _claim_for(process, 0.3)

    assert max(place.broker.published.values()) == 1
    assert place.broker.ready(MAIL) == 0


def _claim_for(process: Process, seconds: float) -> None:
    """Claim as an impatient worker would."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.claim()
        time.sleep(0.002)


def test_a_receiver_that_nothing_reaches_listens_anew(place: Yard) -> None:
    """The broker has what was offered, or had it, and brings it to nobody here."""
    forgotten: list[str] = []

    class Deaf(MemoryTransport):
        async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
            if forgotten:
                return await super().receive(queue, number, seconds)
            await asyncio.sleep(min(seconds, 0.01))
            return []

        async def forget(self, queue: str) -> None:
            forgotten.append(queue)

    process = place.process(Deaf(place.broker))
    process.claim()
    process.add(3)
    until(lambda: place.broker.ready(MAIL) == 3, "messages")
    place.advance(QUICK.offer + 1)

    process.work()

    assert forgotten[0] == MAIL
    place.check()
