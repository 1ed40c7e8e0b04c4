"""Limits: never more at a time than they allow; who waits is out of the way, and is woken."""

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

from backlane.engine.protocol import Wanted
from backlane.model.job import Lane, Policy, State
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Outcome
from backlane.model.queue import Depth, Kind

STRIPE = (Use("stripe"),)
NO_TIME = Limit(concurrency=0)
ONE = Limit(concurrency=1)
TWO = Limit(concurrency=2)
THREE = Limit(concurrency=3)


# -- in line --


def test_of_many_jobs_as_many_are_ready_as_there_is_room(desk: Desk) -> None:
    desk.limits["stripe"] = TWO

    jobs = desk.add(4, uses=STRIPE)

    assert desk.states(jobs) == [State.READY, State.READY, State.BLOCKED, State.BLOCKED]
    assert desk.blocked_on(*jobs) == [None, None, "stripe", "stripe"]
    assert desk.depth() == Depth(ready=2, blocked=2, bytes=8)


def test_a_record_tells_what_a_job_uses_and_waits_for(desk: Desk) -> None:
    desk.limits["stripe"] = NO_TIME

    job = desk.add_one(uses=(Use("mailgun"), Use("stripe", "eu")))

    record = desk.record(job)
    assert record.uses == (Use("mailgun"), Use("stripe", "eu"))
    assert (record.state, record.blocked_on, record.waits_for) == (State.BLOCKED, "stripe", 0)
    assert record.due_ms == desk.clock.wall_ms()


def test_a_limit_that_is_not_known_bounds_nothing(desk: Desk) -> None:
    jobs = desk.add(4, uses=STRIPE)

    assert desk.claimed_ids() == jobs
    assert desk.run(desk.engine.list_limits()) == []


def test_a_limit_without_a_number_bounds_nothing(desk: Desk) -> None:
    desk.limits["stripe"] = Limit()

    jobs = desk.add(4, uses=STRIPE)

    assert desk.claimed_ids() == jobs


def test_jobs_beside_those_of_a_limit_pass_by(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add(3, uses=STRIPE)
    first, others = desk.claimed_ids(1), desk.add(2)

    assert desk.claimed_ids() == others
    assert desk.states(first) == [State.RUNNING]


def test_what_comes_while_others_wait_goes_behind_them(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.claimed_ids()
    desk.end(first)

    third = desk.add_one(uses=STRIPE)

    # The second may be ready: who publishes for a broker lets it in, as a claim does.
    assert desk.states([third]) == [State.BLOCKED]
    assert desk.claimed_ids() == [second]


def test_what_comes_goes_before_those_of_a_lower_priority_that_wait(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.claimed_ids()
    desk.end(first)

    urgent = desk.add_one(uses=STRIPE, priority=9)

    assert desk.states([second, urgent]) == [State.BLOCKED, State.READY]
    assert desk.claimed_ids() == [urgent]


def test_a_delayed_job_gets_in_line_when_it_is_due(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    later = desk.add_one(uses=STRIPE, delay_ms=1_000)
    sooner = desk.add_one(uses=STRIPE)
    assert desk.states([later, sooner]) == [State.SCHEDULED, State.READY]
    assert desk.claimed_ids() == [sooner]

    desk.clock.advance(seconds=1)

    assert desk.claimed_ids() == []
    assert (desk.state(later), desk.blocked_on(later)) == (State.BLOCKED, ["stripe"])


# -- never more --


def test_never_more_run_than_the_limit_allows(desk: Desk) -> None:
    desk.limits["stripe"] = THREE
    jobs, done = desk.add(10, uses=STRIPE), []

    while running := desk.claimed_ids():
        assert len(running) <= 3
        assert desk.claimed_ids(owner="bob") == []
        assert desk.limit("stripe").running == 3 - (len(done) == 9) * 2
        desk.end(*running)
        done += running

    assert done == jobs


def test_a_place_is_free_for_the_next_as_soon_as_one_ended(desk: Desk) -> None:
    desk.limits["stripe"] = TWO
    jobs = desk.add(4, uses=STRIPE)
    assert desk.claimed_ids() == jobs[:2]

    desk.end(jobs[1])

    assert desk.claimed_ids() == [jobs[2]]


def test_a_turn_settles_and_claims_what_that_made_room_for(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    jobs = desk.add(2, uses=STRIPE)
    lease = desk.lease()

    wanted = Wanted("ann", 5, 30_000, ("mail",))
    turn = desk.run(desk.engine.turn([settlement(lease, SUCCEEDED)], [wanted, wanted]))

    assert [[lease.job for lease in claimed.leases] for claimed in turn.claimed] == [[jobs[1]], []]


def test_each_part_of_a_limit_has_its_own_room(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=1, per_group=True)
    jobs = [desk.add_one(uses=(Use("stripe", part),)) for part in ("a", "a", "b", "c", "b")]

    assert desk.claimed_ids() == [jobs[0], jobs[2], jobs[3]]
    assert desk.claimed_ids() == []

    desk.end(jobs[2])
    assert desk.claimed_ids() == [jobs[4]]


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED, retry(60), snooze(60)])
def test_whatever_ends_an_attempt_frees_its_place(desk: Desk, outcome: Outcome) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.claimed_ids()

    desk.end(first, outcome=outcome)

    assert desk.claimed_ids() == [second]


@pytest.mark.parametrize("outcome", [RELEASED, CRASHED, retry(0), snooze(0)])
def test_a_job_that_comes_back_stands_in_line_again(desk: Desk, outcome: Outcome) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.claimed_ids()
    desk.clock.advance(seconds=1)

    desk.end(first, outcome=outcome)

    keeps_place = outcome in (RELEASED, CRASHED)
    assert desk.claimed_ids(lane=None) == [first if keeps_place else second]
    assert desk.claimed_ids(lane=None) == []


def test_a_lapse_frees_the_place_and_the_next_in_line_has_it(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.lose()

    assert desk.claimed_ids(owner="bob") == [first]
    assert desk.states([second]) == [State.BLOCKED]


def test_a_lapse_that_buries_frees_the_place(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add_one(uses=STRIPE, policy=Policy(attempts=1))
    second = desk.add_one(uses=STRIPE)
    desk.lose()

    assert desk.claimed_ids(owner="bob") == [second]


def test_a_lapsed_lease_holds_its_place_until_it_is_reaped(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add(2, uses=STRIPE)
    lease = desk.lose()

    assert desk.limit("stripe").running == 1
    assert desk.settle(lease, SUCCEEDED).lost == []
    assert desk.limit("stripe").running == 0


def test_a_departed_owner_frees_its_places(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)
    desk.claimed_ids()

    assert desk.claimed_ids(owner="bob", departed=("ann",)) == [first]
    assert desk.states([second]) == [State.BLOCKED]


# -- who is woken --


def test_the_first_in_line_is_woken_first(desk: Desk) -> None:
    desk.limits["stripe"] = NO_TIME
    low = desk.add_one(uses=STRIPE, priority=1)
    desk.clock.advance(seconds=1)
    middle = desk.add(2, uses=STRIPE)
    urgent = desk.add_one(uses=STRIPE, priority=9)

    desk.tune_limit("stripe", Limit(concurrency=4))

    assert desk.claimed_ids() == [urgent, *middle, low]


def test_a_job_keeps_what_it_aged_while_it_waits_for_room(desk: Desk) -> None:
    """On PostgreSQL it stood in line by its own priority again, until the next sweep."""
    desk.limits["stripe"] = TWO
    old = desk.add_one(uses=STRIPE)
    desk.clock.advance(minutes=10)
    assert desk.sweep().aged == 1
    desk.tune_limit("stripe", NO_TIME)
    assert desk.claimed_ids() == []
    assert desk.blocked_on(old) == ["stripe"]

    young = desk.add_one(uses=STRIPE, priority=6)
    beside = desk.add_one(priority=6)
    desk.tune_limit("stripe", None)

    assert [desk.claimed_ids(1) for _ in range(3)] == [[old], [young], [beside]]


def test_only_as_many_are_woken_as_there_is_room(desk: Desk) -> None:
    desk.limits["stripe"] = NO_TIME
    jobs = desk.add(5, uses=STRIPE)
    desk.tune_limit("stripe", TWO)

    assert desk.claimed_ids(1) == jobs[:1]

    states = [State.RUNNING, State.READY, *[State.BLOCKED] * 3]
    assert desk.states(jobs) == states
    assert desk.claimed_ids(0) == []
    assert desk.states(jobs) == states


def test_jobs_of_both_lanes_share_a_limit(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    alone = desk.add_one(uses=STRIPE, lane=Lane.EXCLUSIVE)
    shared = desk.add_one(uses=STRIPE)

    assert desk.claimed_ids(lane=Lane.SHARED) == []
    assert desk.claimed_ids(lane=Lane.EXCLUSIVE) == [alone]
    desk.end(alone)
    assert desk.claimed_ids(lane=Lane.SHARED) == [shared]


def test_a_claim_wakes_a_thousand_jobs_at_most(desk: Desk) -> None:
    desk.limits["stripe"] = NO_TIME
    jobs = desk.add(1_500, uses=STRIPE)
    desk.tune_limit("stripe", Limit())

    claimed = desk.claim(1)

    assert [lease.job for lease in claimed.leases] == jobs[:1]
    assert claimed.next_due_ms == 0
    assert desk.depth() == Depth(ready=999, running=1, blocked=500, bytes=3_000)


# -- two at once --


def test_a_job_runs_where_all_its_limits_have_room(desk: Desk) -> None:
    desk.limits |= {"stripe": TWO, "eu": ONE}
    both = desk.add(3, uses=(Use("stripe"), Use("eu")))
    other = desk.add_one(uses=STRIPE)

    assert desk.blocked_on(*both, other) == [None, "eu", "eu", None]
    assert desk.claimed_ids() == [both[0], other]
    desk.end(both[0])
    assert desk.claimed_ids() == [both[1]]
    assert (desk.limit("stripe").running, desk.limit("eu").running) == (2, 1)
    assert (desk.limit("stripe").blocked, desk.limit("eu").blocked) == (0, 1)


def test_who_has_room_in_one_limit_waits_for_the_other_one(desk: Desk) -> None:
    desk.limits |= {"stripe": ONE, "eu": NO_TIME}
    first = desk.add_one(uses=STRIPE)
    both = desk.add_one(uses=(Use("stripe"), Use("eu")))
    assert desk.claimed_ids() == [first]
    assert desk.blocked_on(both) == ["stripe"]

    desk.end(first)
    assert desk.claimed_ids() == []
    assert desk.blocked_on(both) == ["eu"]

    desk.tune_limit("eu", ONE)
    assert desk.claimed_ids() == [both]


def test_jobs_that_wait_for_the_second_leave_room_in_the_first(desk: Desk) -> None:
    desk.limits |= {"stripe": ONE, "eu": NO_TIME}
    desk.add(3, uses=(Use("stripe"), Use("eu")))
    other = desk.add_one(uses=STRIPE)

    assert desk.claimed_ids() == [other]


# -- raw messages --


def test_messages_are_under_limits_as_jobs_are(desk: Desk) -> None:
    desk.limits["queue:sms"] = ONE
    messages = [desk.job("sms", task=None, uses=STRIPE) for _ in range(3)]
    desk.limits["stripe"] = TWO
    desk.append(*messages, kind=Kind.MESSAGES)

    first = desk.claimed_ids(10, "sms", lane=None, kind=Kind.MESSAGES)

    assert first == [messages[0].id]
    assert desk.depth("sms") == Depth(ready=1, running=1, blocked=1, bytes=6)
    desk.end(*first)
    assert desk.claimed_ids(10, "sms", lane=None, kind=Kind.MESSAGES) == [messages[1].id]


# -- what is told of them --


def test_a_limit_is_known_from_the_append_that_declares_it(desk: Desk) -> None:
    desk.limits |= {"stripe": TWO, "eu": ONE}
    desk.add(3, uses=STRIPE)

    assert desk.run(desk.engine.list_limits()) == [
        LimitRecord(name="eu", limit=ONE, declared=ONE),
        LimitRecord(name="stripe", limit=TWO, declared=TWO, blocked=1),
    ]


def test_a_refused_append_declares_nothing(desk: Desk) -> None:
    desk.add()
    desk.limits["stripe"] = ONE

    desk.append(desk.job(), kind=Kind.MESSAGES)

    assert desk.run(desk.engine.list_limits()) == []
