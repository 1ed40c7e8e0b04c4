"""sweep: what a job's own policy says of how long its record is kept."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import move
from tests.engine.contract.desk import FAILED, STOPPED, SUCCEEDED, Desk

from backlane.engine.memory import MemoryEngine
from backlane.engine.retention import Swept
from backlane.engine.selection import Delete, Redrive
from backlane.model.clock import FakeClock
from backlane.model.job import FINAL, Policy, State
from backlane.model.outcome import Outcome

HOUR = Policy(keep_ms=3_600_000)
FOR_EVER = Policy(keep_ms=-1)
NONE = Policy(keep_ms=0)


@pytest.mark.parametrize("outcome", [SUCCEEDED, STOPPED, FAILED])
def test_a_record_is_kept_for_its_own_time_after_its_end(desk: Desk, outcome: Outcome) -> None:
    job = desk.add_one(policy=HOUR)
    desk.clock.advance(hours=5)
    desk.settle(desk.lease(), outcome)
    desk.clock.advance(minutes=59, seconds=59)
    assert desk.sweep() == Swept()

    desk.clock.advance(seconds=1)

    assert desk.sweep() == Swept(pruned=1)
    assert not desk.is_known(job)


def test_an_expired_job_is_kept_for_its_own_time_too(desk: Desk) -> None:
    job = desk.in_state(State.EXPIRED, policy=HOUR)
    desk.clock.advance(minutes=59)
    desk.sweep()
    assert desk.is_known(job)

    desk.clock.advance(minutes=1)
    desk.sweep()

    assert not desk.is_known(job)


def test_a_longer_time_than_the_stores_counts_as_well(desk: Desk) -> None:
    week = desk.finished(policy=Policy(keep_ms=7 * 86_400_000))
    plain = desk.finished()
    desk.clock.advance(days=6)

    assert desk.sweep().pruned == 1

    assert (desk.is_known(week), desk.is_known(plain)) == (True, False)
    desk.clock.advance(days=1)
    assert desk.sweep().pruned == 1


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED])
def test_for_ever_is_for_ever(desk: Desk, outcome: Outcome) -> None:
    job = desk.finished(outcome, policy=FOR_EVER)
    desk.clock.advance(days=4_000)

    assert desk.sweep(done_ms=0, done_jobs=0, failed_ms=0, failed_jobs=0) == Swept()

    assert desk.is_known(job)
    assert desk.amend(Delete(), job).changed == [job]


def test_what_is_kept_for_a_time_counts_to_no_number(desk: Desk) -> None:
    kept = [desk.finished(policy=policy) for policy in (HOUR, FOR_EVER, HOUR)]
    plain = [desk.finished() for _ in range(3)]
    dead = [desk.finished(FAILED, policy=HOUR), *(desk.finished(FAILED) for _ in range(2))]
    desk.clock.advance(minutes=2)

    assert desk.sweep(done_jobs=2, failed_jobs=1).pruned == 2

    assert [job for job in (*kept, *plain, *dead) if not desk.is_known(job)] == [plain[0], dead[1]]


def test_what_is_to_be_kept_not_at_all_stays_for_the_least_time(desk: Desk) -> None:
    """An id that is sent again soon after is still answered with the first job."""
    job = desk.finished(policy=NONE)
    desk.clock.advance(seconds=59)
    assert desk.sweep() == Swept()

    desk.clock.advance(seconds=1)

    assert desk.sweep() == Swept(pruned=1)
    assert not desk.is_known(job)


def test_least_is_as_the_store_says(desk: Desk) -> None:
    desk.finished(policy=NONE)
    desk.clock.advance(minutes=2)

    assert desk.sweep(least_ms=180_000) == Swept()
    assert desk.sweep(least_ms=0) == Swept(pruned=1)


def test_a_redriven_job_is_kept_from_its_new_end(desk: Desk) -> None:
    job = desk.finished(FAILED, policy=HOUR)
    desk.clock.advance(minutes=50)
    desk.amend(Redrive(), job)
    desk.clock.advance(minutes=50)
    assert desk.sweep().pruned == 0
    assert desk.state(job) is State.READY

    desk.settle(desk.lease(), SUCCEEDED)
    desk.clock.advance(minutes=59)
    assert desk.sweep() == Swept()
    desk.clock.advance(minutes=1)

    assert desk.sweep() == Swept(pruned=1)


def test_a_sweep_is_bounded_over_both_kinds(desk: Desk) -> None:
    for _ in range(3):
        desk.finished(policy=HOUR)
        desk.finished()
    desk.clock.advance(days=1)

    first, second = desk.sweep(4), desk.sweep(4)

    assert (first.pruned, first.more) == (4, True)
    assert (second.pruned, second.more) == (2, False)


def test_the_policy_is_told(desk: Desk) -> None:
    policy = Policy(attempts=3, keep_ms=5, keeps_latest=True)
    job = desk.add_one(policy=policy)

    assert desk.record(job).policy == policy
    assert desk.lease().policy == policy


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


def test_a_moved_record_is_kept_as_its_policy_says(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    hour, for_ever = source.finished(policy=HOUR), source.finished(FAILED, policy=FOR_EVER)
    waiting = source.add_one(policy=NONE)

    move(pair, final=tuple(FINAL))

    target.settle(target.lease(), SUCCEEDED)
    target.clock.advance(hours=1)
    assert target.sweep(done_ms=0, failed_ms=0).pruned == 2
    assert [target.is_known(job) for job in (hour, for_ever, waiting)] == [False, True, False]
