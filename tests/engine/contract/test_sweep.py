"""sweep: lapses, expiry, ageing and history, in bounded batches."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, RELEASED, STOPPED, SUCCEEDED, Desk, retry

from backlane.engine.retention import Swept
from backlane.engine.selection import Cancel, Move, Redrive
from backlane.model.job import Policy, State
from backlane.model.outcome import Reason
from backlane.model.queue import Depth

DAY_MS = 86_400_000


def test_a_sweep_with_nothing_to_do_does_nothing(desk: Desk) -> None:
    for state in (State.SCHEDULED, State.READY, State.RUNNING, State.SUCCEEDED, State.FAILED):
        desk.in_state(state)

    assert desk.sweep() == Swept()


# -- lapses --


def test_a_lapsed_lease_is_taken_back_and_counted(desk: Desk) -> None:
    job = desk.add_one()
    desk.lose()

    assert desk.sweep() == Swept(lapsed=1)

    record = desk.record(job)
    assert (record.state, record.attempt) == (State.READY, 1)
    assert desk.depth().ready == 1


def test_a_living_lease_is_left(desk: Desk) -> None:
    desk.add()
    desk.lease(seconds=30)
    desk.clock.advance(seconds=29)

    assert desk.sweep() == Swept()


def test_a_lapse_out_of_attempts_is_buried(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))
    desk.lose()

    assert desk.sweep() == Swept(lapsed=1, buried=[job])

    record = desk.record(job)
    assert (record.state, record.reason, record.attempt) == (State.FAILED, Reason.CRASHED, 1)
    assert (desk.depth(), desk.queue().failed) == (Depth(), 1)


def test_a_lapsed_job_that_was_to_stop_is_cancelled(desk: Desk) -> None:
    job = desk.add_one()
    desk.lease()
    desk.amend(Cancel(), job)
    desk.clock.advance(seconds=31)

    assert desk.sweep() == Swept(lapsed=1)
    assert desk.state(job) is State.CANCELLED


# -- expiry --


@pytest.mark.parametrize("delay_ms", [0, 60_000])
def test_a_waiting_job_past_its_deadline_ends_as_expired(desk: Desk, delay_ms: int) -> None:
    job = desk.add_one(expires_ms=1_000, delay_ms=delay_ms)
    desk.clock.advance(seconds=1)

    assert desk.sweep() == Swept(expired=1)

    assert desk.state(job) is State.EXPIRED
    assert (desk.depth(), desk.queue().expired) == (Depth(), 1)


def test_expired_jobs_of_a_paused_queue_end_too(desk: Desk) -> None:
    desk.add(expires_ms=1_000)
    desk.pause()
    desk.clock.advance(seconds=1)

    assert desk.sweep().expired == 1


def test_a_running_job_does_not_expire(desk: Desk) -> None:
    desk.add(expires_ms=1_000)
    desk.lease(seconds=30)
    desk.clock.advance(seconds=5)

    assert desk.sweep() == Swept()


def test_a_job_that_came_back_after_its_deadline_expires(desk: Desk) -> None:
    """A sweep that met the job while it ran must not have forgotten the deadline."""
    job = desk.add_one(expires_ms=1_000)
    desk.lease(seconds=30)
    desk.clock.advance(seconds=5)
    desk.sweep()
    desk.clock.advance(seconds=30)

    assert desk.sweep() == Swept(lapsed=1, expired=1)
    assert desk.state(job) is State.EXPIRED


def test_a_retry_past_its_deadline_expires(desk: Desk) -> None:
    job = desk.add_one(expires_ms=10_000)
    desk.settle(desk.lease(), retry(60))
    desk.clock.advance(seconds=10)

    desk.sweep()

    assert desk.state(job) is State.EXPIRED


# -- ageing --


def test_five_minutes_of_waiting_are_one_level_of_priority(desk: Desk) -> None:
    old = desk.add_one(priority=3)
    desk.clock.advance(minutes=10)
    fresh = desk.add_one(priority=5)
    fresher = desk.add_one(priority=6)

    assert desk.sweep().aged == 1

    assert desk.claimed_ids() == [fresher, old, fresh]


def test_less_than_five_minutes_are_no_level(desk: Desk) -> None:
    old = desk.add_one(priority=3)
    desk.clock.advance(minutes=4, seconds=59)
    fresh = desk.add_one(priority=4)

    assert desk.sweep().aged == 0
    assert desk.claimed_ids() == [fresh, old]


def test_an_aged_job_is_raised_once_a_level(desk: Desk) -> None:
    desk.add(priority=3)
    desk.clock.advance(minutes=5)

    assert [desk.sweep().aged for _ in range(3)] == [1, 0, 0]


def test_no_job_ages_beyond_the_highest_priority(desk: Desk) -> None:
    old = desk.add_one(priority=0)
    desk.clock.advance(hours=5)
    urgent = desk.add_one(priority=9)
    desk.sweep()

    assert desk.claimed_ids() == [old, urgent]
    assert desk.sweep().aged == 0


def test_scheduled_time_is_not_waiting(desk: Desk) -> None:
    desk.add(priority=3, delay_ms=3_600_000)
    desk.clock.advance(hours=1)
    desk.claim(0)

    assert desk.sweep().aged == 0


def test_a_retried_job_starts_from_its_own_priority(desk: Desk) -> None:
    old = desk.add_one(priority=3)
    desk.clock.advance(hours=1)
    desk.sweep()
    desk.settle(desk.lease(), retry(0))
    rival = desk.add_one(priority=4)

    assert desk.claimed_ids() == [rival, old]


def test_a_record_shows_the_priority_that_was_given(desk: Desk) -> None:
    job = desk.add_one(priority=3)
    desk.clock.advance(hours=1)
    desk.sweep()

    assert desk.record(job).priority == 3
    assert desk.lease().priority == 3


# -- history --


@pytest.mark.parametrize("outcome", [SUCCEEDED, STOPPED])
def test_finished_jobs_are_kept_for_a_day(desk: Desk, outcome) -> None:
    job = desk.finished(outcome)

    desk.clock.advance(hours=23, minutes=59)
    assert desk.sweep() == Swept()
    desk.clock.advance(minutes=1)
    assert desk.sweep() == Swept(pruned=1)
    assert not desk.is_known(job)


def test_dead_letters_are_kept_for_thirty_days(desk: Desk) -> None:
    job = desk.finished(FAILED)

    desk.clock.advance(days=29)
    assert desk.sweep() == Swept()
    desk.clock.advance(days=1)
    assert desk.sweep() == Swept(pruned=1)
    assert not desk.is_known(job)


def test_expired_jobs_are_kept_like_finished_ones(desk: Desk) -> None:
    desk.in_state(State.EXPIRED)
    desk.clock.advance(days=1)

    assert desk.sweep().pruned == 1


def test_age_counts_from_the_end_of_a_job(desk: Desk) -> None:
    job = desk.add_one()
    desk.clock.advance(days=3)
    desk.settle(desk.lease(), SUCCEEDED)

    assert desk.sweep().pruned == 0
    assert desk.is_known(job)


def test_beyond_their_number_the_oldest_go_first(desk: Desk) -> None:
    jobs = []
    for _ in range(5):
        jobs.append(desk.finished())
        desk.clock.advance(seconds=1)
    desk.clock.advance(minutes=2)

    swept = desk.sweep(done_jobs=3)

    assert swept.pruned == 2
    assert [desk.is_known(job) for job in jobs] == [False, False, True, True, True]


def test_the_number_is_a_queues_own(desk: Desk) -> None:
    jobs = [desk.finished(queue=name) for name in ("mail", "video") for _ in range(2)]
    desk.clock.advance(minutes=2)

    assert desk.sweep(done_jobs=2).pruned == 0
    assert all(desk.is_known(job) for job in jobs)


def test_dead_letters_have_a_number_of_their_own(desk: Desk) -> None:
    done = [desk.finished() for _ in range(3)]
    dead = [desk.finished(FAILED) for _ in range(3)]
    desk.clock.advance(minutes=2)

    assert desk.sweep(failed_jobs=1).pruned == 2
    assert sum(desk.is_known(job) for job in dead) == 1
    assert all(desk.is_known(job) for job in done)


def test_nothing_young_is_pruned_whatever_its_number(desk: Desk) -> None:
    job = desk.finished()
    desk.clock.advance(seconds=59)

    assert desk.sweep(done_jobs=0, done_ms=0).pruned == 0
    desk.clock.advance(seconds=1)
    assert desk.sweep(done_jobs=0).pruned == 1
    assert not desk.is_known(job)


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY, State.RUNNING])
def test_what_is_not_finished_is_never_pruned(desk: Desk, state: State) -> None:
    job = desk.in_state(state)

    desk.sweep(done_jobs=0, failed_jobs=0, done_ms=0, failed_ms=0, least_ms=0)

    assert desk.is_known(job)


def test_pruned_jobs_leave_the_totals(desk: Desk) -> None:
    desk.finished()
    desk.clock.advance(days=2)
    before = desk.queue()

    desk.sweep()

    assert desk.queue() == before


def test_a_moved_or_redriven_job_is_kept_by_its_new_life(desk: Desk) -> None:
    job = desk.finished(FAILED)
    desk.clock.advance(days=29)
    desk.amend(Redrive(), job)
    desk.amend(Move("slow"), job)
    desk.clock.advance(days=5)

    assert desk.sweep().pruned == 0
    assert desk.is_known(job)


# -- batches --


def test_a_sweep_stops_at_its_limit_and_says_that_there_is_more(desk: Desk) -> None:
    for _ in range(7):
        desk.finished()
    desk.clock.advance(days=2)

    swept = [desk.sweep(limit=3) for _ in range(3)]

    assert [one.pruned for one in swept] == [3, 3, 1]
    assert [one.more for one in swept] == [True, True, False]


def test_a_sweep_repeated_until_done_does_all_kinds_of_work(desk: Desk) -> None:
    lapsing = desk.add(30)
    desk.claim(30, seconds=1)
    desk.add(30, expires_ms=1_000)
    history = [desk.finished() for _ in range(30)]
    desk.clock.advance(days=2)

    done, rounds = [desk.sweep(limit=20)], 1
    while done[-1].more:
        done.append(desk.sweep(limit=20))
        rounds += 1
        assert rounds < 50

    assert sum(one.lapsed for one in done) == 30
    assert sum(one.expired for one in done) == 30
    assert sum(one.pruned for one in done) == 30
    assert desk.states(lapsing) == [State.READY] * 30
    assert not any(desk.is_known(job) for job in history)


def test_a_released_job_that_waited_long_is_aged_again(desk: Desk) -> None:
    old = desk.add_one(priority=3)
    desk.clock.advance(hours=1)
    desk.sweep()
    desk.settle(desk.lease(), RELEASED)
    desk.sweep()
    desk.add_one(priority=8)

    assert desk.claimed_ids(1) == [old]
