"""A process dies at each point of a job's way: nothing is lost, nothing is settled twice.

The rows of the table in docs/engines/brokers.md, on the broker of this process, with what
brokers do to messages besides: double them, mix them, lose them, keep answers to themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.engine.brokered.stops import Stop, Stopping
from tests.engine.brokered.yard import LEASE_SECONDS, MAIL, QUICK, Process, Yard, until, yard

from backlane.engine.protocol import Admission
from backlane.engine.transport import Parcel
from backlane.engine.transports.memory import Incident, MemoryBroker
from backlane.model.job import State

NUMBER = 20
VOID_SECONDS = QUICK.offer + 1  # of the ledger's clock


@dataclass(frozen=True)
class Manners:
    """How a broker treats messages."""

    name: str
    fate: Callable[[random.Random], Incident] | None = None
    mixes: bool = False


def _sometimes(incident: Incident) -> Callable[[random.Random], Incident]:
    return lambda dice: incident if dice.random() < 0.3 else Incident.ARRIVED


MANNERS = [
    Manners("well"),
    Manners("doubled", _sometimes(Incident.DOUBLED)),
    Manners("mixed", mixes=True),
    Manners("refused", _sometimes(Incident.REFUSED)),
    Manners("unanswered", _sometimes(Incident.UNANSWERED)),
    Manners("lost", _sometimes(Incident.LOST)),
    Manners("swallowed", _sometimes(Incident.SWALLOWED)),
    Manners("late", _sometimes(Incident.LATE)),
]


@pytest.fixture(params=MANNERS, ids=lambda manners: manners.name)
def place(request: pytest.FixtureRequest) -> Iterator[Yard]:
    dice = random.Random(request.node.name)
    broker = MemoryBroker(dice if request.param.mixes else None)
    fate = request.param.fate
    if fate is not None:
        broker.fate = lambda queue, parcel: fate(dice)
    with yard(broker=broker) as made:
        yield made


def dying(place: Yard, stop: Stop) -> tuple[Process, Stopping]:
    transport = Stopping(place.broker.connect(), stop)
    return place.process(transport), transport


def finish(place: Yard, survivor: Process | None = None) -> None:
    """Let another process do the rest, with the broker well again and time passing."""
    place.broker.fate = lambda queue, parcel: Incident.ARRIVED
    survivor = survivor or place.process()
    for _ in range(3):  # what is lost shows itself once its offer is old
        _work_a_while(survivor)
        place.advance(VOID_SECONDS)
        place.broker.let_in()
    survivor.work()
    _work_a_while(survivor, 3)  # what comes late finds its job done
    until(lambda: not place.broker.ready(MAIL), "an empty queue")


def _work_a_while(process: Process, turns: int = 50) -> None:
    for _ in range(turns):
        process.settle(process.claim())


def test_dead_after_the_append_and_before_the_relay_looked(place: Yard) -> None:
    """Ready in the ledger: the relay of any other process publishes it."""
    jobs = place.jobs(NUMBER)
    place.ledger.run(place.ledger.append(jobs, Admission()))

    finish(place)

    place.check()


@pytest.mark.parametrize("stop", [Stop.BEFORE_PUBLISH, Stop.AFTER_PUBLISH])
def test_dead_in_publishing(place: Yard, stop: Stop) -> None:
    """Offered: the message arrives, or the offer becomes void and is made again."""
    first, transport = dying(place, stop)
    first.add(NUMBER)
    assert transport.is_there.wait(5)
    first.die()

    finish(place)

    place.check()


def test_dead_with_messages_in_hand(place: Yard) -> None:
    """Not acknowledged: the broker shows them again."""
    first, transport = dying(place, Stop.AFTER_RECEIVE)
    first.add(NUMBER)
    first.claim()
    until(transport.is_there.is_set, "a delivery")
    first.die()

    finish(place)

    place.check()


@pytest.mark.parametrize("stop", [Stop.BEFORE_ACK, Stop.AFTER_ACK])
def test_dead_after_the_claim_and_before_the_ack(place: Yard, stop: Stop) -> None:
    """Running: the message comes again, finds a living lease, and is acknowledged."""
    first, transport = dying(place, stop)
    first.add(NUMBER)
    leases = first.take()
    until(transport.is_there.is_set, "an ack")
    first.die()
    survivor = place.process()
    _work_a_while(survivor)
    assert not place.settled.keys() & {lease.job for lease in leases}  # these leases live

    place.advance(LEASE_SECONDS + 1)
    finish(place, survivor)

    place.check(attempts=2)


def test_dead_while_the_function_runs(place: Yard) -> None:
    """Leased to a worker: the lease ends, the attempt counts, and it is offered again."""
    first = place.process()
    first.add(NUMBER)
    first.take()
    first.die()

    place.advance(LEASE_SECONDS + 1)
    finish(place)

    place.check(attempts=2)


def test_an_outcome_that_comes_after_all_is_not_counted(place: Yard) -> None:
    """The function was done and its process could not say so before its lease ended."""
    first = place.process()
    first.add(NUMBER)
    leases = first.take()
    place.advance(LEASE_SECONDS + 1)
    finish(place)

    lost = first.settle(leases)

    assert sorted(lost) == sorted(lease.job for lease in leases)
    place.check(attempts=2)


def test_a_broker_that_loses_all_it_has_loses_no_job(place: Yard) -> None:
    first = place.process()
    first.add(NUMBER)
    until(lambda: place.broker.published.total() >= NUMBER, "messages")
    first.engine.depot.background.run(first.engine.transport.purge(MAIL), 5)

    finish(place, first)

    place.check()


def test_nothing_is_published_again_while_it_may_still_arrive(place: Yard) -> None:
    """Those whose publish was never answered wait until their offer is void."""
    published: list[str] = []
    fate = place.broker.fate

    def note(queue: str, parcel: Parcel) -> Incident:
        incident = fate(queue, parcel)
        if incident is not Incident.REFUSED:
            published.append(parcel.id)
        return incident

    place.broker.fate = note
    first = place.process()
    first.add(NUMBER)
    _work_a_while(first, 100)

    assert len(published) == len(set(published))
    states = {record.state for record in place.records()}
    assert states <= {State.READY, State.SUCCEEDED}
