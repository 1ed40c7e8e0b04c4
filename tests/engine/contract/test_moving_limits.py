"""A move carries limits, who waits for them, turns, and which queues are fair."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import dumped, move, seal
from tests.engine.contract.desk import Desk, retry

from backlane.engine.memory import MemoryEngine
from backlane.engine.moving import Settings
from backlane.model.clock import FakeClock
from backlane.model.job import State
from backlane.model.limit import Limit, LimitRecord, Rate, Use

STRIPE = (Use("stripe"),)
TURN = (Use("queue:mail", "ann", turn=True),)
ONE = Limit(concurrency=1)


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    """Where jobs come from, and where they go: the engine is the one or the other."""
    return (desk, other) if request.param == "out" else (other, desk)


def test_a_move_carries_the_settings_of_limits(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    rate = Limit(rate=Rate(10, 1_000, 3), per_group=True)
    source.limit("stripe", ONE)
    source.limit("eu", rate)
    source.tune_limit("stripe", Limit(concurrency=2))

    move(pair)

    assert target.run(target.engine.list_limits()) == [
        LimitRecord(name="eu", limit=rate, declared=rate),
        LimitRecord(
            name="stripe",
            limit=Limit(concurrency=2),
            declared=ONE,
            tuned=Limit(concurrency=2),
        ),
    ]


def test_settings_of_limits_go_before_those_that_were_there(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.limit("stripe", ONE)
    target.limit("stripe", Limit(concurrency=5))
    target.tune_limit("stripe", Limit(concurrency=6))
    target.limit("eu", ONE)

    move(pair)

    assert target.limit("stripe") == LimitRecord(name="stripe", limit=ONE, declared=ONE)
    assert target.limit("eu").limit == ONE


def test_settings_tell_nothing_of_what_runs_and_waits(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add(3, uses=STRIPE)
    desk.claim()

    settings: Settings = desk.run(desk.engine.dump_settings())

    assert settings.limits == [LimitRecord(name="stripe", limit=ONE, declared=ONE)]


def test_jobs_that_wait_for_a_limit_go_on_waiting(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.limits["stripe"] = ONE
    jobs = source.add(3, uses=STRIPE)
    before = [source.record(job) for job in jobs]

    move(pair)

    assert [target.record(job) for job in jobs] == before
    assert target.blocked_on(*jobs) == [None, "stripe", "stripe"]
    assert target.depth().blocked == 2
    assert target.claimed_ids() == jobs[:1]
    target.end(jobs[0])
    assert target.claimed_ids() == [jobs[1]]


def test_a_job_brings_the_turn_that_it_holds(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = source.add(3, uses=TURN)
    source.claim()
    source.end(jobs[0], outcome=retry(60))

    move(pair)

    assert target.states(jobs) == [State.SCHEDULED, State.BLOCKED, State.BLOCKED]
    assert target.claimed_ids() == []
    target.clock.advance(seconds=60)
    assert target.claimed_ids() == [jobs[0]]
    target.end(jobs[0])
    assert target.claimed_ids() == [jobs[1]]


def test_a_dump_tells_the_turns_that_jobs_hold(desk: Desk) -> None:
    first, second = desk.add(2, uses=TURN)
    seal(desk)

    assert [(it.record.id, it.turns) for it in dumped(desk)] == [(first, TURN), (second, ())]


def test_a_job_that_is_discarded_leaves_nothing_behind(desk: Desk, other: Desk) -> None:
    desk.add(2, uses=TURN)
    move((desk, other))
    seal(desk, None)

    again = desk.add(2, uses=TURN)

    assert desk.states(again) == [State.READY, State.BLOCKED]


def test_a_sealed_store_wakes_nothing(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=0)
    jobs = desk.add(2, uses=STRIPE)
    seal(desk)
    desk.tune_limit("stripe", Limit())

    assert desk.claimed_ids() == []

    assert desk.states(jobs) == [State.BLOCKED] * 2


def test_a_fair_queue_is_one_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.fair = target.fair = {"mail"}
    source.add(4, group="ann")
    source.add(2, group="bob")

    move(pair)

    assert target.queue().is_fair
    assert [lease.group for lease in target.claim(4).leases] == ["ann", "bob", "ann", "bob"]
