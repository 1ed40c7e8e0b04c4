"""The brokered engine as its callers see it: from any thread and loop, with any broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from tests.engine.brokered.stops import Stop, Stopping
from tests.engine.brokered.yard import EXCLUSIVE, MAIL, Process, Yard, until, yard

from backlane.engine.protocol import Admission, Engine, Tune
from backlane.engine.selection import Cancel, Move, Selection
from backlane.engine.transports.memory import Incident
from backlane.engine.transports.name import physical
from backlane.errors import EngineUnavailable
from backlane.model.job import Lane, State
from backlane.model.outcome import Crashed, ErrorRecord
from backlane.model.queue import Kind

LOOKS_ONLY = """
import threading
from backlane.engine.connect import connect
from backlane.model.clock import SystemClock
engine = connect("amqp://127.0.0.1:1?ledger=memory://", SystemClock())
assert engine.run(engine.list_queues()) == []
print(*(thread.name for thread in threading.enumerate()))
"""


@pytest.fixture
def place() -> Iterator[Yard]:
    with yard() as made:
        yield made


@pytest.fixture
def process(place: Yard) -> Process:
    return place.process()


def test_it_is_an_engine(process: Process) -> None:
    engine: Engine = process.engine

    assert engine.capabilities == process.yard.ledger.capabilities
    assert engine.url == "memory-broker://?ledger=memory://"


def test_nothing_opens_before_first_use() -> None:
    """In a process of its own: this one may have talked to a broker in another test."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_ONLY], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["MainThread"]


def test_a_lone_job_waits_for_no_poll(process: Process) -> None:
    process.claim()
    bell = process.engine.listen(["mail"])
    until(lambda: not bell.heard(0.05), "silence")
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        process.add()
        while not (leases := process.claim()):
            assert bell.heard(5)
        seconds.append(time.perf_counter() - began)
        process.settle(leases)

    assert sorted(seconds)[10] < 0.02  # polls are 20 ms apart here, and 1 s elsewhere
    bell.close()


def test_the_relay_of_another_process_hears_of_an_append(place: Yard, process: Process) -> None:
    """One that appended and died at once, or that has no transport at all."""
    process.claim()
    bell = process.engine.listen(["mail"])

    place.ledger.run(place.ledger.append(place.jobs(1), Admission()))

    assert bell.heard(5)
    assert process.take()
    bell.close()


def test_a_cancelled_job_rings_its_worker(place: Yard, process: Process) -> None:
    (job,) = process.add()
    process.take()
    bell = process.engine.listen(["mail"])
    until(lambda: not bell.heard(0.05), "silence")

    place.ledger.run(place.ledger.amend(Selection(ids=(job,)), Cancel()))

    assert bell.heard(5)
    claimed = process.engine.run(process.engine.claim(process.wanted()))
    assert claimed.cancelled == [job]
    bell.close()


def test_coroutines_of_two_loops_and_threads_use_one_engine(process: Process) -> None:
    engine, got = process.engine, set[bytes]()
    jobs = process.add(200)

    async def work() -> None:
        while len(got) < 200:
            claimed = await engine.arun(engine.claim(process.wanted(7)))
            got.update(lease.job for lease in claimed.leases)
            await asyncio.sleep(0.001)

    def work_in_thread() -> None:
        while len(got) < 200:
            got.update(it.job for it in engine.run(engine.claim(process.wanted(7))).leases)
            time.sleep(0.001)

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
    threads.append(threading.Thread(target=work_in_thread))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert got == set(jobs)


def test_a_claim_that_fails_gives_its_messages_to_the_next(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.add(10)
    process.claim()
    belt = process.engine.depot.belts["mail", Lane.SHARED]
    until(lambda: len(belt.stock) == 10, "ten messages")
    ledger = process.engine.ledger
    run = ledger.run

    def fail(plan: object) -> object:
        raise EngineUnavailable("the ledger is away")

    monkeypatch.setattr(ledger, "run", fail)
    with pytest.raises(EngineUnavailable):
        process.engine.run(process.engine.claim(process.wanted()))
    monkeypatch.setattr(ledger, "run", run)

    assert len(process.claim()) == 10


def test_lanes_are_lines_of_their_own(place: Yard, process: Process) -> None:
    (shared,) = process.add()
    (alone,) = process.add(lane=Lane.EXCLUSIVE)

    assert [lease.job for lease in process.take(lane=EXCLUSIVE)] == [alone]
    assert [lease.job for lease in process.take()] == [shared]
    assert place.broker.published.total() == 2


def test_a_job_that_crashed_comes_by_the_other_lane(process: Process) -> None:
    (job,) = process.add()
    (lease,) = process.take()

    process.settle([lease], Crashed(alone=False, error=ErrorRecord("x", "killed")))
    process.yard.begun.clear()
    process.yard.settled.clear()

    assert [it.job for it in process.take(lane=EXCLUSIVE)] == [job]


def test_raw_messages_come_by_a_queue_of_their_kind(process: Process) -> None:
    (job,) = process.add(1, "orders", task=None, body=b"\x00not a letter")

    leases = process.take(1, "orders", lane=None, kind=Kind.MESSAGES)

    assert [(it.job, it.body) for it in leases] == [(job, b"\x00not a letter")]


def test_who_asks_for_a_message_once_gets_what_is_there(place: Yard, process: Process) -> None:
    """Its process has never received from this queue, so nothing has arrived yet."""
    process.add(3, "orders", task=None)
    other = place.process()

    got = other.claim(2, "orders", lane=None, kind=Kind.MESSAGES)

    assert got
    assert other.claim(2, "nothing", lane=None, kind=Kind.MESSAGES) == []


def test_a_coroutine_that_asks_once_gets_it_too(place: Yard, process: Process) -> None:
    process.add(3, "orders", task=None)
    engine = place.process().engine
    wanted = process.wanted(2, "orders", lane=None, kind=Kind.MESSAGES)

    claimed = asyncio.run(engine.arun(engine.claim(wanted)))

    assert claimed.leases


def test_a_worker_gets_jobs_of_its_queues_alone(place: Yard, process: Process) -> None:
    process.add(3)
    other = process.add(3, "video")
    video = place.process()

    leases = video.take(50, "video")

    assert [lease.job for lease in leases] == other
    assert place.broker.ready(physical("backlane", "video")) == 0
    assert place.broker.ready(MAIL) == 3


def test_a_job_moved_while_its_message_travelled_runs_where_it_is_now(
    place: Yard, process: Process
) -> None:
    (job,) = process.add()
    until(lambda: place.broker.ready(MAIL), "a message")

    place.ledger.run(place.ledger.amend(Selection(ids=(job,)), Move("video")))

    for _ in range(50):
        assert process.claim() == []
    place.begun.clear()  # what came by the old message was given back
    assert [lease.job for lease in process.take(50, "video")] == [job]


def test_a_thousand_queues_cost_those_that_are_claimed_from(process: Process) -> None:
    for number in range(1_000):
        process.add(1, f"queue-{number}")

    got = process.take(50, "queue-1", "queue-999")

    assert got
    assert len(process.engine.depot._pumps) == 2
    until(lambda: len(process.yard.broker.published) == 1_000, "all published")


def test_a_broker_that_is_away_stops_nobody(place: Yard, process: Process) -> None:
    """Appends go on, and a worker claims from the ledger once it has been away for a while."""
    place.broker.go_away()
    jobs = process.add(10)

    assert sorted(lease.job for lease in process.take()) == sorted(jobs)
    (relay,) = [one for one in process.engine.diagnose() if one.subject == "relay"]
    assert relay.state == "warning"
    assert "the memory broker is told to be away" in relay.text


def test_a_broker_that_comes_back_is_used_again(place: Yard, process: Process) -> None:
    place.broker.go_away()
    process.add(10)
    process.settle(process.take())
    place.broker.come_back()

    process.add(10)
    until(lambda: place.broker.published.total() >= 10, "messages", 10)
    process.work()

    place.check()
    assert max(place.broker.published.values()) == 1


def test_a_blocked_broker_stops_nobody(place: Yard, process: Process) -> None:
    place.broker.is_blocked = True
    process.add(10)
    leases = process.take()
    assert len(leases) == 10

    place.broker.is_blocked = False
    process.settle(leases)
    process.add(10)
    process.work()

    place.check()


def test_a_queue_that_refuses_messages_stops_no_other(place: Yard, process: Process) -> None:
    refuse, arrive = Incident.REFUSED, Incident.ARRIVED
    place.broker.fate = lambda queue, parcel: refuse if queue == MAIL else arrive
    refused = process.add(5)
    until(lambda: place.broker.published.total() >= 5, "refusals")

    others = process.add(5, "video")

    assert sorted(it.job for it in process.take(50, "video")) == sorted(others)
    assert sorted(it.job for it in process.take()) == sorted(refused)  # from the ledger


def test_what_a_broker_refuses_is_offered_again(place: Yard, process: Process) -> None:
    place.broker.fate = lambda queue, parcel: Incident.REFUSED
    process.add(10)
    until(lambda: place.broker.published.total() >= 10, "refusals")
    place.broker.fate = lambda queue, parcel: Incident.ARRIVED

    process.work()

    place.check()


def test_connections_cut_under_load_lose_nothing(place: Yard) -> None:
    workers = [place.process(), place.process()]
    workers[0].add(1_000)

    for turn in range(100_000):
        for worker in workers:
            worker.settle(worker.claim(10))
        if turn % 20 == 0:
            place.broker.go_away()
            place.broker.come_back()
        if place.is_done:
            break

    place.check()


def test_a_tuned_queue_goes_on_at_once(place: Yard, process: Process) -> None:
    place.ledger.run(place.ledger.append(place.jobs(1), Admission()))
    place.ledger.run(place.ledger.tune("mail", Tune(paused=True)))
    process.claim()
    bell = process.engine.listen(["mail"])
    until(lambda: not bell.heard(0.05), "silence")

    place.ledger.run(place.ledger.tune("mail", Tune(paused=False)))

    assert bell.heard(5)
    assert process.take()
    bell.close()


def test_closing_gives_back_what_is_in_hand(place: Yard, process: Process) -> None:
    process.add(10)
    process.claim()
    belt = process.engine.depot.belts["mail", Lane.SHARED]
    until(lambda: len(belt.stock) == 10, "ten messages")
    began = time.monotonic()

    process.engine.close()

    assert time.monotonic() - began < 2
    assert place.broker.ready(MAIL) == 10
    assert len(process.take()) == 10  # the next use opens anew


def test_what_a_closing_process_did_not_publish_is_offered_by_others(place: Yard) -> None:
    transport = Stopping(place.broker.connect(), Stop.BEFORE_PUBLISH)
    leaving = place.process(transport)
    jobs = leaving.add(10)
    assert transport.is_there.wait(5)

    leaving.engine.close()

    assert sorted(lease.job for lease in place.process().take()) == sorted(jobs)


def test_closing_is_quick_while_the_broker_is_away(place: Yard, process: Process) -> None:
    process.add(10)
    process.claim()
    place.broker.go_away()
    began = time.monotonic()

    process.engine.close()

    assert time.monotonic() - began < 2
    assert place.counts() == {State.READY: 10}


def test_a_child_of_a_fork_has_a_relay_of_its_own(process: Process) -> None:
    process.add(1)
    process.settle(process.take())
    depot = process.engine.depot

    child = os.fork()
    if child == 0:
        try:
            own = process.engine.depot
            good = own is not depot and own.is_own and not depot.is_own
            process.add(1)
            until(lambda: process.claim(), "a lease", 5)
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process.add(1)
    assert process.take()
