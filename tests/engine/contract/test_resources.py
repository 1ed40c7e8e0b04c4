"""Resources: what depends on one that is down waits, costs nothing, and is tried again."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    settlement,
    snooze,
)

from backlane.engine.protocol import Close, Open, Settled, Wanted
from backlane.engine.selection import Move, Redrive, Reprioritise
from backlane.model.breaker import IN_A_ROW, TRIAL_MS, ResourceRecord
from backlane.model.job import Lane, Lease, State
from backlane.model.outcome import Failed, Outcome, Reason

TIMEOUT = Failed(Reason.TIMEOUT, retry().error)


def resource(desk: Desk, name: str = "stripe") -> ResourceRecord:
    (record,) = [one for one in desk.run(desk.engine.list_resources()) if one.name == name]
    return record


def steer(desk: Desk, change: Open | Close, name: str = "stripe") -> ResourceRecord:
    record = desk.run(desk.engine.steer(name, change))
    assert record is not None
    return record


def settle(desk: Desk, leases: list[Lease], outcome: Outcome) -> Settled:
    return desk.run(desk.engine.settle([settlement(lease, outcome) for lease in leases]))


def trip(desk: Desk, **fields) -> ResourceRecord:
    """Let attempts fail until the breaker opens; their jobs are over."""
    fields = {"resource": "stripe"} | fields
    jobs = desk.add(IN_A_ROW, **fields)
    leases = desk.claim(IN_A_ROW, ids=tuple(jobs), lane=None).leases
    (record,) = settle(desk, leases, TIMEOUT).turned
    return record


def opens_in_ms(desk: Desk) -> int:
    left = resource(desk).opens_in_ms
    assert left is not None
    return left


def wait_for_trial(desk: Desk) -> None:
    desk.clock.advance(milliseconds=opens_in_ms(desk))


def recover(desk: Desk) -> None:
    """Let all trials of a tripped resource succeed."""
    wait_for_trial(desk)
    for number in (1, 2, 4):
        jobs = desk.add(number, resource="stripe")
        settle(desk, desk.claim(10, ids=tuple(jobs)).leases, SUCCEEDED)


# -- what is known of them --


def test_a_resource_is_known_from_the_first_job_that_depends_on_it(desk: Desk) -> None:
    desk.add()
    assert desk.run(desk.engine.list_resources()) == []

    desk.add(2, resource="stripe")
    desk.add(resource="mailgun", delay_ms=1_000)

    names = [one.name for one in desk.run(desk.engine.list_resources())]
    assert names == ["mailgun", "stripe"]
    assert resource(desk) == ResourceRecord(name="stripe", state="closed")


def test_a_job_and_its_lease_tell_their_resource(desk: Desk) -> None:
    job = desk.add_one(resource="stripe", lane=Lane.EXCLUSIVE)
    other = desk.add_one()
    assert (desk.record(job).resource, desk.record(job).lane) == ("stripe", Lane.EXCLUSIVE)
    assert desk.record(other).resource is None

    leases = desk.claim(lane=None).leases

    assert [(lease.job, lease.resource, lease.lane) for lease in leases] == [
        (job, "stripe", Lane.EXCLUSIVE),
        (other, None, Lane.SHARED),
    ]


def test_an_unknown_resource_cannot_be_steered(desk: Desk) -> None:
    desk.add()

    assert desk.run(desk.engine.steer("stripe", Open())) is None
    assert desk.run(desk.engine.list_resources()) == []


# -- while all is well --


def test_jobs_of_resources_stand_in_one_line_with_all_others(desk: Desk) -> None:
    jobs = [
        desk.add_one(resource="stripe"),
        desk.add_one(),
        desk.add_one(resource="mailgun"),
        desk.add_one(resource="stripe"),
    ]
    urgent = desk.add_one(resource="mailgun", priority=9)

    assert desk.claimed_ids(3) == [urgent, *jobs[:2]]
    assert desk.claimed_ids(3) == jobs[2:]


def test_jobs_of_each_kind_of_executor_keep_apart(desk: Desk) -> None:
    shared = desk.add_one(resource="stripe")
    alone = desk.add_one(resource="stripe", lane=Lane.EXCLUSIVE)

    assert desk.claimed_ids(lane=Lane.EXCLUSIVE) == [alone]
    assert desk.claimed_ids(lane=Lane.SHARED) == [shared]


@pytest.mark.parametrize("outcome", [SUCCEEDED, retry(60), TIMEOUT])
def test_an_outcome_that_tells_of_the_resource_is_counted(desk: Desk, outcome) -> None:
    desk.add(resource="stripe")

    settled = settle(desk, desk.claim().leases, outcome)

    record = resource(desk)
    assert settled.turned == []
    assert (record.succeeded, record.failed) == ((1, 0) if outcome == SUCCEEDED else (0, 1))


@pytest.mark.parametrize("outcome", [snooze(9), RELEASED, STOPPED, CRASHED, FAILED])
def test_an_outcome_that_tells_nothing_is_not_counted(desk: Desk, outcome) -> None:
    desk.add(resource="stripe")

    settle(desk, desk.claim().leases, outcome)

    assert resource(desk) == ResourceRecord(name="stripe", state="closed")


def test_a_lost_lease_tells_nothing(desk: Desk) -> None:
    desk.add(resource="stripe")
    lease = desk.lose()
    desk.claim()

    assert settle(desk, [lease], TIMEOUT).lost == [lease.job]
    assert resource(desk).failed == 0


# -- opening --


def test_failures_open_it_and_the_settle_says_so(desk: Desk) -> None:
    record = trip(desk)

    assert (record.name, record.state, record.trips) == ("stripe", "open", 1)
    assert resource(desk) == record
    assert record.opens_in_ms


def test_the_jobs_of_an_open_resource_wait_and_all_others_go_on(desk: Desk) -> None:
    trip(desk)
    waiting = desk.add(3, resource="stripe", priority=9)
    waiting += desk.add(1, resource="stripe", lane=Lane.EXCLUSIVE)
    others = [desk.add_one(), desk.add_one(resource="mailgun")]

    assert desk.claimed_ids(lane=None) == others
    assert desk.states(waiting) == [State.READY] * 4
    assert [desk.record(job).attempt for job in waiting] == [0] * 4


def test_a_job_of_an_open_resource_is_not_claimed_by_its_id_either(desk: Desk) -> None:
    trip(desk)
    job = desk.add_one(resource="stripe")

    assert desk.claimed_ids(ids=(job,), lane=None) == []


def test_what_ends_late_is_told_that_it_is_open(desk: Desk) -> None:
    desk.add(resource="stripe")
    late = desk.claim().leases
    record = trip(desk)

    assert settle(desk, late, retry(60)).turned == [record]


def test_a_turn_that_opens_it_claims_none_of_its_jobs(desk: Desk) -> None:
    desk.add(IN_A_ROW, resource="stripe")
    leases = desk.claim().leases
    desk.add(5, resource="stripe")
    wanted = Wanted(owner="ann", number=9, lease_ms=30_000, queues=("mail",))

    turn = desk.run(desk.engine.turn([settlement(lease, TIMEOUT) for lease in leases], [wanted]))

    assert [one.state for one in turn.settled.turned] == ["open"]
    assert turn.claimed[0].leases == []
    assert turn.claimed[0].next_due_ms == opens_in_ms(desk)


# -- what waits for it --


def test_a_claim_says_when_what_waits_is_to_be_tried(desk: Desk) -> None:
    trip(desk)
    assert desk.claim().next_due_ms is None

    desk.add(resource="stripe")

    assert desk.claim().next_due_ms == opens_in_ms(desk)


def test_a_claim_that_tries_says_when_others_may_try_too(desk: Desk) -> None:
    """On Redis the first trial told of its lease's end alone, however long that was."""
    desk.add(2, resource="stripe")
    steer(desk, Open(1))
    desk.clock.advance(milliseconds=1)

    claimed = desk.claim(seconds=3_600)

    assert len(claimed.leases) == 1
    assert claimed.next_due_ms == TRIAL_MS


def test_nobody_is_told_to_wake_for_what_waits_until_told(desk: Desk) -> None:
    desk.add(resource="stripe")
    steer(desk, Open())

    assert desk.claim().next_due_ms is None


def test_nobody_is_kept_awake_by_a_trial_that_is_not_for_them(desk: Desk) -> None:
    trip(desk)
    desk.add(resource="stripe")
    wait_for_trial(desk)

    assert desk.claim(9, "video").next_due_ms is None


def test_what_waits_for_a_resource_is_in_no_line(desk: Desk) -> None:
    desk.add(2, resource="stripe")
    desk.add(1)
    desk.clock.advance(seconds=60)
    steer(desk, Open())
    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.lines[0].ready, desk.depth().ready) == (1, 3)

    desk.claim()

    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.lines[0].ready, sample.oldest_ready_ms) == (0, None)
    assert (desk.queue().oldest_ready_ms, desk.depth().ready) == (None, 2)


def test_the_oldest_of_a_line_may_depend_on_a_resource(desk: Desk) -> None:
    desk.add(resource="stripe")
    desk.clock.advance(seconds=60)
    desk.add()

    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.oldest_ready_ms, desk.queue().oldest_ready_ms) == (60_000, 60_000)


# -- trials --


def test_after_its_time_one_job_tries_it(desk: Desk) -> None:
    trip(desk)
    first, *_ = desk.add(3, resource="stripe")
    wait_for_trial(desk)

    claimed = desk.claim()

    assert [lease.job for lease in claimed.leases] == [first]
    assert [(one.name, one.state) for one in claimed.turned] == [("stripe", "trying")]
    again = desk.claim()
    assert (again.leases, again.turned) == ([], [])


def test_one_claim_tries_it_once_whatever_the_queues_and_kinds(desk: Desk) -> None:
    trip(desk)
    jobs = [
        desk.add_one(queue=queue, lane=lane, resource="stripe")
        for queue in ("mail", "video")
        for lane in Lane
    ]
    other = desk.add_one()
    wait_for_trial(desk)

    assert desk.claimed_ids(9, "mail", "video", lane=None) == [jobs[0], other]
    assert desk.claimed_ids(9, ids=tuple(jobs), lane=None) == []


def test_a_claim_by_ids_is_a_trial_too(desk: Desk) -> None:
    trip(desk)
    jobs = desk.add(3, resource="stripe")
    wait_for_trial(desk)

    assert desk.claimed_ids(9, ids=tuple(jobs)) == jobs[:1]
    assert resource(desk).state == "trying"


def test_an_expired_job_is_no_trial(desk: Desk) -> None:
    trip(desk)
    expired = desk.add_one(resource="stripe", expires_ms=1)
    job = desk.add_one(resource="stripe")
    wait_for_trial(desk)

    assert desk.claimed_ids() == [job]
    assert desk.state(expired) is State.EXPIRED


def test_a_trial_in_place_of_an_expired_one_is_at_its_place_in_line(desk: Desk) -> None:
    """On PostgreSQL it came after jobs that were behind it in line."""
    desk.add(resource="stripe", expires_ms=1)
    first = desk.add_one(resource="stripe")
    then = desk.add_one("video")
    steer(desk, Open(1))

    desk.clock.advance(milliseconds=1)

    assert desk.claimed_ids(10, "mail", "video") == [first, then]


def test_trials_that_succeed_close_it_round_by_round(desk: Desk) -> None:
    trip(desk)
    desk.add(30, resource="stripe")
    wait_for_trial(desk)

    numbers, turned = [], []
    for _ in range(4):
        leases = desk.claim(20).leases
        numbers.append(len(leases))
        turned += settle(desk, leases, SUCCEEDED).turned

    assert numbers == [1, 2, 4, 20]
    assert [(one.state, one.trips) for one in turned] == [("closed", 1)]
    assert resource(desk).state == "closed"


def test_a_trial_that_fails_opens_it_for_longer(desk: Desk) -> None:
    first = trip(desk)
    desk.add(resource="stripe")
    wait_for_trial(desk)

    (second,) = settle(desk, desk.claim().leases, retry(0)).turned

    assert (second.state, second.trips) == ("open", 2)
    assert second.opens_in_ms > first.opens_in_ms
    assert desk.claimed_ids() == []


@pytest.mark.parametrize("outcome", [RELEASED, STOPPED, CRASHED])
def test_a_trial_that_tells_nothing_makes_place_for_another(desk: Desk, outcome) -> None:
    trip(desk)
    desk.add(2, resource="stripe")
    wait_for_trial(desk)

    settle(desk, desk.claim().leases, outcome)

    assert resource(desk).state == "trying"
    assert len(desk.claim(lane=None).leases) == 1


def test_a_trial_whose_worker_died_does_not_stop_the_trying(desk: Desk) -> None:
    trip(desk)
    desk.add(2, resource="stripe")
    wait_for_trial(desk)
    (lost,) = desk.claim(seconds=600).leases

    claimed = desk.claim(owner="bob")
    assert (claimed.leases, claimed.next_due_ms) == ([], TRIAL_MS)
    desk.clock.advance(milliseconds=TRIAL_MS)

    (second,) = desk.claim(owner="bob").leases
    assert second.job != lost.job
    settle(desk, [second], SUCCEEDED)
    assert len(desk.claim().leases) == 0  # the second round has two, and there is no other job


# -- by hand --


def test_opened_by_hand_it_waits_for_so_long(desk: Desk) -> None:
    desk.add(2, resource="stripe")

    record = steer(desk, Open(for_ms=90_000))

    assert (record.state, record.opens_in_ms) == ("open", 90_000)
    assert desk.claimed_ids() == []
    desk.clock.advance(seconds=90)
    assert len(desk.claimed_ids()) == 1


def test_opened_by_hand_without_an_end_it_waits_until_it_is_closed(desk: Desk) -> None:
    jobs = desk.add(2, resource="stripe")

    assert steer(desk, Open()).opens_in_ms is None
    desk.clock.advance(days=30)
    assert desk.claimed_ids() == []

    assert steer(desk, Close()).state == "closed"
    assert desk.claimed_ids() == jobs


# -- bells --


@pytest.mark.parametrize("change", [Open(for_ms=1_000), Close()])
def test_who_listens_hears_that_it_was_steered(desk: Desk, change) -> None:
    desk.add(resource="stripe")
    steer(desk, Open())
    with_bell = desk.engine.listen(["mail"])
    other = desk.engine.listen(["video"])
    while with_bell.heard(0) or other.heard(0):
        pass

    steer(desk, change)

    assert with_bell.heard(5)
    assert not other.heard(0)
    with_bell.close()
    other.close()


def test_who_listens_hears_that_it_closed(desk: Desk) -> None:
    trip(desk)
    desk.add(queue="video", resource="stripe")
    bell = desk.engine.listen(["video"])

    recover(desk)

    assert resource(desk).state == "closed"
    assert bell.heard(5)
    bell.close()


# -- what else becomes of jobs --


def test_a_job_keeps_its_resource_whatever_becomes_of_it(desk: Desk) -> None:
    job = desk.add_one(resource="stripe", delay_ms=1_000)
    desk.clock.advance(seconds=1)
    desk.settle(desk.lease(), snooze(1))
    desk.clock.advance(seconds=1)
    desk.settle(desk.lease(), CRASHED)
    desk.lose()
    desk.sweep()
    desk.amend(Reprioritise(1), job)
    desk.amend(Move("video"), job)
    desk.clock.advance(hours=1)
    desk.sweep()
    desk.settle(desk.claim(1, "video", lane=None).leases[0], FAILED)
    desk.amend(Redrive(), job)
    steer(desk, Open())

    record = desk.record(job)
    assert (record.state, record.resource, record.lane) == (
        State.READY,
        "stripe",
        Lane.EXCLUSIVE,  # since its process died
    )
    assert desk.claimed_ids(9, "video", lane=None) == []
    steer(desk, Close())
    assert desk.claimed_ids(9, "video", lane=None) == [job]


def test_what_waits_for_a_resource_grows_older_with_all_others(desk: Desk) -> None:
    job = desk.add_one(resource="stripe", priority=4)
    desk.clock.advance(minutes=11)
    desk.add(priority=5)

    assert desk.sweep().aged == 1
    assert desk.claimed_ids(1) == [job]


def test_what_waits_for_a_resource_still_ends_at_its_deadline(desk: Desk) -> None:
    job = desk.add_one(resource="stripe", expires_ms=5_000)
    steer(desk, Open())
    desk.clock.advance(seconds=6)

    assert desk.sweep().expired == 1
    assert desk.state(job) is State.EXPIRED
