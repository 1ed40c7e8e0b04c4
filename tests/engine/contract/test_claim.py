"""claim: who gets which job, in which order, and what is mended on the way."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import CRASHED, RELEASED, SUCCEEDED, Desk, retry, snooze

from backlane.engine.selection import Cancel, Reprioritise
from backlane.model.job import Lane, Policy, State
from backlane.model.outcome import Reason
from backlane.model.queue import Kind

ONCE = Policy(attempts=1)


# -- what a lease says --


def test_a_lease_carries_what_an_attempt_needs(desk: Desk) -> None:
    policy = Policy(attempts=3, hard_ms=9_000)
    job = desk.add_one(body=b"[7]", headers=b"h", policy=policy, group="acme", expires_ms=90_000)
    enqueued = desk.clock.wall_ms()
    desk.clock.advance(seconds=5)

    lease = desk.lease()

    assert (lease.job, lease.token, lease.attempt) == (job, 1, 0)
    assert (lease.queue, lease.task, lease.body, lease.headers) == ("mail", "send", b"[7]", b"h")
    assert (lease.policy, lease.priority, lease.lane) == (policy, 5, Lane.SHARED)
    assert (lease.group, lease.crashes, lease.cancelled) == ("acme", 0, False)
    assert (lease.enqueued_ms, lease.deadline_ms) == (enqueued, enqueued + 90_000)
    assert lease.parked_ms is None


def test_a_claimed_job_is_running_under_its_owner(desk: Desk) -> None:
    job = desk.add_one()
    desk.clock.advance(seconds=5)

    desk.lease(owner="bob")

    record = desk.record(job)
    assert (record.state, record.owner, record.token) == (State.RUNNING, "bob", 1)
    assert record.started_ms == desk.clock.wall_ms()


def test_a_job_is_given_once(desk: Desk) -> None:
    desk.add(3)

    assert len(desk.claimed_ids(2, owner="ann")) == 2
    assert len(desk.claimed_ids(2, owner="bob")) == 1
    assert desk.claimed_ids(2, owner="cid") == []


def test_a_claim_of_none_gives_none(desk: Desk) -> None:
    desk.add()

    assert desk.claim(0).leases == []


def test_every_lease_of_a_job_has_a_higher_token(desk: Desk) -> None:
    desk.add()
    tokens = []

    for outcome in (RELEASED, retry(0), snooze(0), RELEASED):
        lease = desk.lease()
        tokens.append(lease.token)
        desk.settle(lease, outcome)
    desk.lose()
    tokens.append(desk.lease().token)

    assert tokens == sorted(set(tokens))


def test_a_claim_of_an_unknown_queue_gives_nothing(desk: Desk) -> None:
    assert desk.claim(10, "nowhere").leases == []


# -- order --


def test_a_higher_priority_goes_first(desk: Desk) -> None:
    low, high, middle = (desk.add_one(priority=p) for p in (0, 9, 5))

    assert desk.claimed_ids() == [high, middle, low]


def test_equals_go_by_the_time_they_became_due(desk: Desk) -> None:
    late = desk.add_one(delay_ms=2_000)
    soon = desk.add_one(delay_ms=1_000)
    desk.clock.advance(milliseconds=500)
    at_once = desk.add_one()
    desk.clock.advance(seconds=10)

    assert desk.claimed_ids() == [at_once, soon, late]


def test_equals_of_one_moment_go_in_order_of_append(desk: Desk) -> None:
    jobs = desk.add(20)

    assert desk.claimed_ids() == jobs


def test_several_queues_are_one_line(desk: Desk) -> None:
    video = desk.add_one("video")
    mail = desk.add_one("mail")
    urgent = desk.add_one("mail", priority=9)

    assert desk.claimed_ids(10, "mail", "video") == [urgent, video, mail]


def test_other_queues_are_left_alone(desk: Desk) -> None:
    other = desk.add_one("video")

    assert desk.claimed_ids(10, "mail") == []
    assert desk.state(other) is State.READY


def test_a_released_job_keeps_its_place(desk: Desk) -> None:
    first = desk.add_one()
    desk.clock.advance(seconds=1)
    second = desk.add_one()
    desk.settle(desk.lease(), RELEASED)

    assert desk.claimed_ids() == [first, second]


def test_a_crashed_job_keeps_its_place(desk: Desk) -> None:
    first = desk.add_one(lane=Lane.EXCLUSIVE)
    desk.clock.advance(seconds=1)
    second = desk.add_one(lane=Lane.EXCLUSIVE)
    desk.settle(desk.lease(lane=Lane.EXCLUSIVE), CRASHED)

    assert desk.claimed_ids(lane=Lane.EXCLUSIVE) == [first, second]


def test_a_lapsed_job_keeps_its_place(desk: Desk) -> None:
    first = desk.add_one()
    desk.clock.advance(seconds=1)
    second = desk.add_one()
    desk.lose()

    assert desk.claimed_ids() == [first, second]


@pytest.mark.parametrize("outcome", [retry(5), snooze(5)])
def test_a_job_put_off_goes_by_its_new_due_time(desk: Desk, outcome) -> None:
    first = desk.add_one()
    desk.settle(desk.lease(), outcome)
    desk.clock.advance(seconds=1)
    second = desk.add_one()
    desk.clock.advance(seconds=5)

    assert desk.claimed_ids() == [second, first]


def test_a_new_priority_rules_at_once(desk: Desk) -> None:
    first, second = desk.add(2)

    desk.amend(Reprioritise(9), second)

    assert desk.claimed_ids() == [second, first]


# -- lanes, kinds, ids, pauses --


def test_a_lane_meets_only_its_own_jobs(desk: Desk) -> None:
    shared, exclusive = desk.add_one(), desk.add_one(lane=Lane.EXCLUSIVE)

    assert desk.claimed_ids(lane=Lane.EXCLUSIVE) == [exclusive]
    assert desk.claimed_ids(lane=Lane.SHARED) == [shared]


def test_no_lane_means_both(desk: Desk) -> None:
    shared, exclusive = desk.add_one(), desk.add_one(lane=Lane.EXCLUSIVE)

    assert desk.claimed_ids(lane=None) == [shared, exclusive]


def test_workers_never_claim_messages(desk: Desk) -> None:
    message = desk.job("orders", task=None)
    desk.append(message, kind=Kind.MESSAGES)

    assert desk.claimed_ids(10, "orders") == []
    assert desk.claimed_ids(ids=(message.id,)) == []
    assert desk.claimed_ids(10, "orders", kind=Kind.MESSAGES) == [message.id]


def test_a_claim_by_id_takes_that_job_and_no_other(desk: Desk) -> None:
    _, second, _ = desk.add(3)

    assert desk.claimed_ids(ids=(second,)) == [second]


@pytest.mark.parametrize("state", [s for s in State if s not in (State.READY, State.BLOCKED)])
def test_a_claim_by_id_gives_nothing_that_may_not_run_now(desk: Desk, state: State) -> None:
    job = desk.in_state(state)

    assert desk.claimed_ids(ids=(job,)) == []
    assert desk.state(job) is state


def test_a_claim_by_an_unknown_id_gives_nothing(desk: Desk) -> None:
    assert desk.claimed_ids(ids=(desk.job().id,)) == []


def test_a_paused_queue_gives_nothing_until_it_is_resumed(desk: Desk) -> None:
    job = desk.add_one()
    other = desk.add_one("video")
    desk.pause("mail")

    assert desk.claimed_ids(10, "mail", "video") == [other]
    assert desk.claimed_ids(ids=(job,)) == []
    desk.resume("mail")
    assert desk.claimed_ids() == [job]


# -- due jobs --


def test_a_scheduled_job_is_given_from_its_due_time_on(desk: Desk) -> None:
    job = desk.add_one(delay_ms=1_000)

    desk.clock.advance(milliseconds=999)
    assert desk.claimed_ids() == []
    desk.clock.advance(milliseconds=1)
    assert desk.claimed_ids() == [job]


def test_a_wall_clock_set_back_makes_scheduled_jobs_wait_for_the_wall(desk: Desk) -> None:
    desk.add_one(delay_ms=1_000)
    desk.clock.jump(hours=-1)
    desk.clock.advance(seconds=2)

    assert desk.claimed_ids() == []
    desk.clock.jump(hours=1)
    assert len(desk.claimed_ids()) == 1


def test_a_claim_brings_in_a_thousand_due_jobs_at_most(desk: Desk) -> None:
    desk.add(1_500, delay_ms=1_000)
    desk.clock.advance(seconds=1)

    assert len(desk.claimed_ids(1)) == 1
    assert (desk.depth().scheduled, desk.depth().ready) == (500, 999)
    assert len(desk.claimed_ids(2_000)) == 1_499


def test_a_claim_gives_a_thousand_at_once(desk: Desk) -> None:
    jobs = desk.add(1_000)

    assert desk.claimed_ids(1_000) == jobs


def test_a_claim_says_when_the_next_scheduled_job_is_due(desk: Desk) -> None:
    desk.add(delay_ms=60_000)
    desk.add(delay_ms=20_000)
    desk.clock.advance(seconds=5)

    assert desk.claim().next_due_ms == 15_000


def test_a_claim_says_when_the_next_lease_lapses(desk: Desk) -> None:
    desk.add()
    desk.claim(seconds=30)
    desk.clock.advance(seconds=10)

    assert desk.claim().next_due_ms == 20_000


def test_with_nothing_to_come_nothing_is_said(desk: Desk) -> None:
    """An engine may look once more where a lease would have lapsed, and no more than that."""
    desk.finished()
    desk.clock.advance(seconds=30)

    assert desk.claim().next_due_ms is None


# -- lapses and departed owners --


def test_a_lapsed_lease_is_claimed_by_the_next_worker(desk: Desk) -> None:
    job = desk.add_one()
    first = desk.lose()

    second = desk.lease(owner="bob")

    assert (second.job, second.token, second.attempt) == (job, first.token + 1, 1)


def test_a_lease_holds_to_its_last_millisecond(desk: Desk) -> None:
    desk.add()
    desk.lease(seconds=30)

    desk.clock.advance(milliseconds=29_999)
    assert desk.claimed_ids(owner="bob") == []
    desk.clock.advance(milliseconds=1)
    assert len(desk.claimed_ids(owner="bob")) == 1


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_wall_clock_that_jumps_lapses_no_lease(desk: Desk, hours: int) -> None:
    desk.add()
    lease = desk.lease(seconds=30)

    desk.clock.jump(hours=hours)

    assert desk.claimed_ids(owner="bob") == []
    assert desk.settle(lease, SUCCEEDED).lost == []


def test_a_lapse_out_of_attempts_buries_the_job_as_crashed(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=2))
    desk.lose()
    desk.lose()

    claimed = desk.claim()

    record = desk.record(job)
    assert claimed.leases == []
    assert [(one.id, one.reason) for one in claimed.buried] == [(job, Reason.CRASHED)]
    assert (record.state, record.reason, record.attempt) == (State.FAILED, Reason.CRASHED, 2)
    assert record.ended_ms == desk.clock.wall_ms()


def test_a_lapsed_job_that_was_to_stop_is_cancelled(desk: Desk) -> None:
    job = desk.add_one()
    desk.lease()
    desk.amend(Cancel(), job)
    desk.clock.advance(seconds=31)

    claimed = desk.claim(owner="bob")

    assert (claimed.leases, claimed.buried) == ([], [])
    assert desk.state(job) is State.CANCELLED


def test_a_departed_owners_jobs_run_again_at_once(desk: Desk) -> None:
    mine, theirs = desk.add(2)
    desk.lease(owner="ann")
    desk.lease(owner="bob")

    claimed = desk.claim(owner="cid", departed=("bob",))

    assert [(lease.job, lease.attempt) for lease in claimed.leases] == [(theirs, 1)]
    assert desk.record(mine).owner == "ann"


def test_a_departed_owners_last_attempt_is_buried(desk: Desk) -> None:
    job = desk.add_one(policy=ONCE)
    desk.lease(owner="bob")

    claimed = desk.claim(owner="cid", departed=("bob",))

    assert [record.id for record in claimed.buried] == [job]


def test_an_owner_that_holds_nothing_departs_without_effect(desk: Desk) -> None:
    job = desk.add_one()

    assert desk.claimed_ids(departed=("nobody",)) == [job]


def test_lapsed_jobs_of_other_queues_are_freed_too(desk: Desk) -> None:
    job = desk.add_one("video")
    desk.claim(1, "video")
    desk.clock.advance(seconds=31)

    desk.claim(1, "mail")

    assert desk.state(job) is State.READY


def test_a_paused_queues_lapsed_jobs_wait(desk: Desk) -> None:
    job = desk.add_one()
    desk.lose()
    desk.pause()

    assert desk.claimed_ids() == []
    assert desk.state(job) is State.READY


# -- expiry --


def test_an_expired_job_ends_unrun_and_the_next_is_given(desk: Desk) -> None:
    late = desk.add_one(expires_ms=1_000)
    good = desk.add_one()
    desk.clock.advance(seconds=1)

    assert desk.claimed_ids(1) == [good]
    record = desk.record(late)
    assert (record.state, record.attempt, record.token) == (State.EXPIRED, 0, 0)
    assert record.ended_ms == desk.clock.wall_ms()


def test_a_job_runs_until_the_millisecond_before_its_deadline(desk: Desk) -> None:
    job = desk.add_one(expires_ms=1_000)
    desk.clock.advance(milliseconds=999)

    assert desk.claimed_ids() == [job]


def test_a_job_that_becomes_due_after_its_deadline_never_runs(desk: Desk) -> None:
    job = desk.add_one(delay_ms=2_000, expires_ms=1_000)
    desk.clock.advance(seconds=2)

    assert desk.claimed_ids() == []
    assert desk.state(job) is State.EXPIRED


def test_a_running_job_is_not_ended_by_its_deadline(desk: Desk) -> None:
    job = desk.add_one(expires_ms=1_000)
    lease = desk.lease()
    desk.clock.advance(seconds=5)
    desk.claim(owner="bob")

    assert desk.settle(lease, SUCCEEDED).lost == []
    assert desk.state(job) is State.SUCCEEDED


def test_any_number_of_expired_jobs_hide_no_good_one(desk: Desk) -> None:
    desk.add(300, expires_ms=1)
    good = desk.add_one()
    desk.clock.advance(seconds=1)

    assert desk.claimed_ids(1) == [good]
    assert desk.queue().expired == 300


# -- asked to stop --


def test_a_claim_tells_its_owner_which_of_its_jobs_are_to_stop(desk: Desk) -> None:
    mine, theirs = desk.add(2)
    desk.lease(owner="ann")
    desk.lease(owner="bob")
    desk.amend(Cancel(), mine, theirs)

    assert desk.claim(owner="ann").cancelled == [mine]
    assert desk.claim(owner="bob").cancelled == [theirs]
    assert desk.claim(owner="cid").cancelled == []
