"""What all processes of a file share beside its jobs: breakers, clocks, and one secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import BOOM, Desk, settlement
from tests.engine.sqlite.disk import RecordingDisk
from tests.engine.sqlite.test_processes import Others, heard

from backlane.engine.protocol import Admission, Measured, Open, Presence, Wanted
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.store.migrations import available
from backlane.model.breaker import IN_A_ROW, ResourceRecord
from backlane.model.clock import FakeClock
from backlane.model.outcome import Failed, Reason, RetryAfter
from backlane.model.queue import LineSample

Started = Callable[[], Desk]


@pytest.fixture
def started(path: Path, clock: FakeClock) -> Iterator[Started]:
    """Opens the file once more, as another process would."""
    desks: list[Desk] = []

    def start() -> Desk:
        desks.append(Desk(SqliteEngine(path, clock=clock), clock))
        return desks[-1]

    yield start
    for desk in desks:
        desk.engine.close()


@pytest.fixture
def others(path: Path) -> Iterator[Others]:
    made = Others(path)
    yield made
    made.end()


def stripe(desk: Desk) -> ResourceRecord:
    (record,) = desk.run(desk.engine.list_resources())
    return record


def measured(desk: Desk) -> Measured:
    return desk.run(desk.engine.measure(["mail"]))


def trip(desk: Desk) -> None:
    jobs = desk.add(IN_A_ROW, resource="stripe")
    leases = desk.claim(IN_A_ROW, ids=tuple(jobs)).leases
    outcome = Failed(Reason.TIMEOUT, BOOM)
    desk.run(desk.engine.settle([settlement(lease, outcome) for lease in leases]))


def test_a_restart_keeps_how_a_breaker_stands(started: Started) -> None:
    before = started()
    trip(before)
    record = stripe(before)
    before.add(3, resource="stripe")
    before.engine.close()

    after = started()

    assert (record.state, stripe(after)) == ("open", record)
    assert after.claimed_ids() == []


def test_a_trial_of_one_is_the_trial_of_all(started: Started) -> None:
    ann, bob = started(), started()
    trip(ann)
    ann.add(3, resource="stripe")
    left = stripe(bob).opens_in_ms
    assert left is not None
    ann.clock.advance(milliseconds=left)

    first, second = ann.claimed_ids(owner="ann"), bob.claimed_ids(owner="bob")

    assert (len(first), second) == (1, [])
    assert stripe(bob).state == "trying"


def test_another_process_opens_a_resource_for_all(path: Path, others: Others) -> None:
    """And what it counted while closed counts for all."""
    desk = Desk(SqliteEngine(path), FakeClock(datetime.now(UTC)))
    half = IN_A_ROW // 2
    desk.add(IN_A_ROW + 1, resource="stripe")
    leases = desk.claim(half).leases
    desk.run(desk.engine.settle([settlement(lease, RetryAfter(60_000, BOOM)) for lease in leases]))

    other = others.start(
        f"""
        from backlane.model.outcome import ErrorRecord, RetryAfter, Settlement
        wanted = Wanted(owner="bob", number={half}, lease_ms=30_000, queues=("mail",))
        leases = engine.run(engine.claim(wanted)).leases
        outcome = RetryAfter(60_000, ErrorRecord("TimeoutError", "late"))
        outcomes = [Settlement(it.job, it.token, outcome) for it in leases]
        settled = engine.run(engine.settle(outcomes))
        say(settled.turned[0].state)
        """
    )

    assert heard(other) == "open"
    assert stripe(desk).state == "open"
    assert desk.claimed_ids() == []
    desk.engine.close()


def test_a_damaged_breaker_reads_as_closed(desk: Desk, path: Path) -> None:
    job = desk.add_one(resource="stripe")
    connection = apsw.Connection(str(path))
    connection.execute("update backlane_resource set state = 'open', breaker = x'00'")

    assert stripe(desk).state == "closed"
    assert desk.claimed_ids() == [job]


# -- clocks and the secret --


def test_a_restart_keeps_the_secret_and_the_virtual_clock(started: Started) -> None:
    before = started()
    before.add()
    before.run(before.engine.reserve("mail", 5_000, 1_000_000, 3))
    secret = measured(before).secret
    before.engine.close()

    after = started()

    assert measured(after).secret == secret
    assert measured(after).queues[0].reserved_ms == 8_000


def test_processes_share_out_the_slots_of_a_queue(path: Path, others: Others) -> None:
    desk = Desk(SqliteEngine(path), FakeClock(datetime.now(UTC)))
    desk.add()
    script = """
        say("ready")
        sys.stdin.readline()
        for _ in range(100):
            engine.run(engine.reserve("mail", 60_000, 100_000, 1))
        say("done")
        """
    started = [others.start(script) for _ in range(3)]
    assert [heard(one) for one in started] == ["ready"] * 3
    began = time.time()
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    assert [heard(one) for one in started] == ["done"] * 3

    ahead_ms = measured(desk).queues[0].reserved_ms
    took_ms = (time.time() - began) * 1000

    assert 90_000 - took_ms - 1 <= ahead_ms <= 90_000
    desk.engine.close()


def test_a_reservation_does_not_wait_for_the_disk(path: Path, clock: FakeClock) -> None:
    disk = RecordingDisk()
    engine = SqliteEngine(path, clock=clock, vfs=disk.name)
    desk = Desk(engine, clock)
    desk.add()
    disk.events.clear()

    for _ in range(20):
        desk.run(engine.reserve("mail", 0, 1_000, 1))

    kinds = [event.kind for event in disk.events]
    assert ("write" in kinds, "sync" in kinds) == (True, False)
    engine.close()


# -- counters --


def test_a_store_of_the_first_version_is_measured_from_then_on(path: Path, clock: FakeClock):
    """Its counters of what was before are unknown, not wrong."""
    connection = apsw.Connection(str(path))
    connection.execute(available()[0][2])
    connection.execute("insert into backlane_meta (name, value) values ('schema', 1)")
    connection.execute(
        "insert into backlane_queue (name, kind, declared_jobs, declared_bytes) "
        "values ('mail', 'tasks', 10, 1000)"
    )
    connection.execute(
        "insert into backlane_counter (queue, priority, appended, succeeded, kept_done) "
        "values (1, 5, 7, 7, 7)"
    )
    connection.close()
    engine = SqliteEngine(path, clock=clock)
    desk = Desk(engine, clock)

    desk.run(
        engine.announce(
            Presence(owner="ann", host="h", pid=1, queues=("mail",), slots=4, running=0)
        )
    )
    desk.run(engine.append([desk.job()], Admission()))
    (lease,) = desk.run(
        engine.claim(Wanted(owner="ann", number=5, lease_ms=30_000, queues=("mail",)))
    ).leases

    (sample,) = measured(desk).queues
    assert sample.lines == (LineSample(5, 0, 1, 8, 1),)
    assert (sample.ended, sample.slots, lease.resource) == (0, 4, None)
    assert desk.run(engine.steer("stripe", Open())) is None
    engine.close()
