"""Turns: the jobs of a part run one at a time, in their order, each until it has ended."""

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
    snooze,
)

from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.job import Policy, State
from backlane.model.limit import Limit, Use
from backlane.model.outcome import Awaiting, Outcome


def turn(group: str = "ann") -> tuple[Use, ...]:
    return (Use("queue:mail", group, turn=True),)


def test_the_jobs_of_a_group_run_one_at_a_time_in_their_order(desk: Desk) -> None:
    jobs, done = desk.add(4, uses=turn()), []
    assert desk.states(jobs) == [State.READY, *[State.BLOCKED] * 3]
    assert desk.blocked_on(*jobs) == [None, *["queue:mail"] * 3]

    while running := desk.claimed_ids():
        assert len(running) == 1
        assert desk.claimed_ids(owner="bob") == []
        desk.end(*running)
        done += running

    assert done == jobs


def test_groups_do_not_wait_for_each_other(desk: Desk) -> None:
    jobs = [desk.add_one(uses=turn(group)) for group in ("ann", "bob", "ann", "eve", "bob")]

    assert desk.claimed_ids() == [jobs[0], jobs[1], jobs[3]]
    desk.end(jobs[1])
    assert desk.claimed_ids() == [jobs[4]]


def test_a_turn_needs_no_limit_and_makes_none(desk: Desk) -> None:
    desk.add(2, uses=turn())

    assert desk.run(desk.engine.list_limits()) == []


def test_what_waits_for_a_turn_is_not_counted_with_the_limit_of_its_name(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(concurrency=3, per_group=True)
    jobs = desk.add(3, uses=(Use("queue:mail", "ann"), *turn()))
    assert desk.claimed_ids() == jobs[:1]

    limit = desk.limit("queue:mail")

    assert (limit.running, limit.blocked) == (1, 0)


def test_no_priority_overtakes_an_earlier_job_of_its_group(desk: Desk) -> None:
    first, second = desk.add(2, uses=turn())
    urgent = desk.add_one(uses=turn(), priority=9)
    desk.amend(Reprioritise(7), second)
    done = []

    while running := desk.claimed_ids():
        desk.end(*running)
        done += running

    assert done == [first, second, urgent]


def test_no_limit_lets_a_later_job_of_its_group_overtake(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=0)
    first = desk.add_one(uses=(Use("stripe"), *turn()))
    urgent = desk.add_one(uses=(Use("stripe"), *turn()), priority=9)
    assert desk.blocked_on(first, urgent) == ["stripe", "queue:mail"]

    desk.tune_limit("stripe", Limit())

    assert desk.claimed_ids() == [first]
    assert desk.blocked_on(urgent) == ["queue:mail"]


def test_a_delayed_job_has_its_turn_when_it_is_due(desk: Desk) -> None:
    later = desk.add_one(uses=turn(), delay_ms=1_000)
    first, second = desk.add(2, uses=turn())
    assert desk.claimed_ids() == [first]
    desk.clock.advance(seconds=2)

    desk.end(first)

    assert desk.claimed_ids() == [second]
    desk.end(second)
    assert desk.claimed_ids() == [later]


# -- kept --


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (RELEASED, State.READY),
        (CRASHED, State.READY),
        (retry(0), State.READY),
        (retry(60), State.SCHEDULED),
        (snooze(0), State.READY),
        (snooze(60), State.SCHEDULED),
    ],
)
def test_a_job_that_comes_back_keeps_its_turn(desk: Desk, outcome: Outcome, state: State) -> None:
    first, second = desk.add(2, uses=turn())
    desk.claimed_ids()

    desk.end(first, outcome=outcome)

    assert desk.states([first, second]) == [state, State.BLOCKED]
    desk.clock.advance(seconds=60)
    assert desk.claimed_ids(lane=None) == [first]
    desk.end(first)
    assert desk.claimed_ids(lane=None) == [second]


def test_a_job_that_waits_for_others_keeps_its_turn(desk: Desk) -> None:
    other = desk.add_one()
    first, second = desk.add(2, uses=turn())
    desk.claimed_ids(1, ids=(first,))

    desk.end(first, outcome=Awaiting((other,)))

    assert (desk.state(first), desk.record(first).waits_for) == (State.BLOCKED, 1)
    assert desk.claimed_ids() == [other]
    desk.end(other)
    assert desk.claimed_ids() == [first]
    assert desk.state(second) is State.BLOCKED


def test_a_job_whose_lease_lapsed_keeps_its_turn(desk: Desk) -> None:
    first, second = desk.add(2, uses=turn())
    desk.lose()

    assert desk.claimed_ids(owner="bob") == [first]
    assert desk.state(second) is State.BLOCKED


# -- freed --


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_a_job_that_ended_leaves_its_turn_to_the_next(desk: Desk, outcome: Outcome) -> None:
    first, second = desk.add(2, uses=turn())
    desk.claimed_ids()
    bell = desk.engine.listen(["mail"])
    while bell.heard(0):
        pass

    desk.end(first, outcome=outcome)

    assert bell.heard(5.0)
    bell.close()
    assert desk.claimed_ids() == [second]


def test_a_job_out_of_attempts_leaves_its_turn(desk: Desk) -> None:
    first = desk.add_one(uses=turn(), policy=Policy(attempts=1))
    second = desk.add_one(uses=turn())
    desk.claimed_ids()

    desk.end(first, outcome=retry(0))

    assert (desk.state(first), desk.claimed_ids()) == (State.FAILED, [second])


def test_a_buried_job_leaves_its_turn(desk: Desk) -> None:
    desk.add_one(uses=turn(), policy=Policy(attempts=1))
    second = desk.add_one(uses=turn())
    desk.lose()

    assert desk.claimed_ids(owner="bob") == [second]


@pytest.mark.parametrize("change", [Cancel(), Delete()])
@pytest.mark.parametrize("was", [State.READY, State.SCHEDULED])
def test_a_waiting_job_that_is_gone_leaves_its_turn(desk: Desk, change, was: State) -> None:
    first, second = desk.add(2, uses=turn())
    if was is State.SCHEDULED:
        desk.claimed_ids()
        desk.end(first, outcome=retry(60))
    assert desk.states([first, second]) == [was, State.BLOCKED]

    desk.amend(change, first)

    assert desk.claimed_ids() == [second]


def test_an_expired_job_leaves_its_turn(desk: Desk) -> None:
    first = desk.add_one(uses=turn(), expires_ms=1_000)
    second = desk.add_one(uses=turn())
    desk.clock.advance(seconds=1)

    desk.sweep()

    assert desk.state(first) is State.EXPIRED
    assert desk.claimed_ids() == [second]


def test_a_blocked_job_that_is_cancelled_is_passed_over(desk: Desk) -> None:
    first, second, third = desk.add(3, uses=turn())
    desk.claimed_ids()
    desk.amend(Cancel(), second)

    desk.end(first)

    assert desk.claimed_ids() == [third]


def test_a_redriven_job_takes_its_turn_behind_those_that_wait(desk: Desk) -> None:
    first, second, third = desk.add(3, uses=turn())
    desk.claimed_ids()
    desk.clock.advance(seconds=1)
    desk.end(first, outcome=FAILED)
    desk.amend(Redrive(), first)
    done = []

    while running := desk.claimed_ids():
        desk.end(*running)
        done += running

    assert done == [second, third, first]


def test_a_scheduled_job_that_is_made_due_has_its_turn_still(desk: Desk) -> None:
    first, second = desk.add(2, uses=turn())
    desk.claimed_ids()
    desk.end(first, outcome=retry(60))

    desk.amend(Redrive(), first)

    assert desk.states([first, second]) == [State.READY, State.BLOCKED]


def test_a_job_that_is_moved_keeps_its_turn(desk: Desk) -> None:
    first, second = desk.add(2, uses=turn())

    desk.amend(Move("sms"), first)

    assert desk.claimed_ids() == []
    assert desk.claimed_ids(1, "sms") == [first]
    desk.end(first)
    assert desk.claimed_ids() == [second]


def test_a_claim_wakes_the_heads_of_many_groups(desk: Desk) -> None:
    heads, seconds = [], []
    for i in range(20):
        head, second = desk.add(2, uses=turn(f"group-{i}"))
        heads, seconds = [*heads, head], [*seconds, second]
    assert desk.claimed_ids() == heads
    desk.end(*heads)

    assert desk.claimed_ids(5) == seconds[:5]
    assert desk.depth().ready == 15
