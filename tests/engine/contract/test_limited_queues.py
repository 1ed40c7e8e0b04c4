"""Limits of queues, limits that queues share, and what people do about limits and jobs."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk

from backlane.engine.protocol import Open
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.job import State
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.queue import Bounds, Depth

STRIPE = (Use("stripe"),)
NO_TIME = Limit(concurrency=0)
ONE = Limit(concurrency=1)
TWO = Limit(concurrency=2)
SOON = 5.0  # real seconds that a ring may take on a busy machine; it is heard at once


def rings(desk: Desk, act, *queues: str) -> bool:
    """Whether it rings who listens to these queues, and has heard all before."""
    bell = desk.engine.listen(queues or ["mail"])
    while bell.heard(0):
        pass
    act()
    heard = bell.heard(SOON)
    bell.close()
    return heard


# -- a queue's own limit --


def test_a_queue_gives_no_more_than_its_own_limit_allows(desk: Desk) -> None:
    desk.limits["queue:mail"] = TWO
    jobs = desk.add(4)

    assert desk.claimed_ids() == jobs[:2]
    assert desk.claimed_ids(owner="bob") == []
    assert desk.depth() == Depth(ready=2, running=2, bytes=8)

    desk.end(jobs[0])
    assert desk.claimed_ids() == [jobs[2]]
    assert desk.limit("queue:mail").running == 2


def test_a_full_queue_is_passed_by_for_others(desk: Desk) -> None:
    desk.limits["queue:mail"] = ONE
    mail, sms = desk.add(2, priority=9), desk.add(2, "sms")

    assert desk.claimed_ids(10, "mail", "sms") == [mail[0], *sms]


def test_leases_of_several_queues_are_in_line_though_some_had_to_wait(desk: Desk) -> None:
    desk.limits |= {"queue:mail": Limit(concurrency=1), "eu": Limit()}
    desk.add_one(uses=(Use("eu"),))
    first, others = desk.add_one(), desk.add(2, "sms")
    desk.tune_limit("eu", Limit(concurrency=0))

    assert desk.claimed_ids(3, "mail", "sms") == [first, *others]


@pytest.mark.parametrize("by_ids", [False, True])
def test_who_goes_instead_of_one_that_has_to_wait_goes_before_those_behind(
    desk: Desk, by_ids: bool
) -> None:
    """On SQLite and Redis a job of another queue took the one place of a limit before it."""
    desk.limits |= {"queue:mail": ONE, "eu": ONE, "stripe": ONE}
    eu = desk.add_one(uses=(Use("eu"),))
    first, then = desk.add_one(uses=STRIPE), desk.add_one("sms", uses=STRIPE)
    last = desk.add_one("sms")
    desk.acquire("eu")

    ids = (eu, first, then, last) if by_ids else ()
    claimed = desk.claimed_ids(10, "mail", "sms", ids=ids)

    assert claimed == [first, last]
    assert desk.blocked_on(eu, then) == ["eu", "stripe"]


def test_a_trial_in_place_of_an_expired_one_has_the_place_of_a_limit(desk: Desk) -> None:
    """On PostgreSQL a job behind it had taken that already."""
    desk.limits["eu"] = ONE
    eu = (Use("eu"),)
    desk.add_one(resource="mailgun", expires_ms=1)
    first = desk.add_one(resource="mailgun", uses=eu)
    then, last = desk.add_one("sms", uses=eu), desk.add_one("sms")
    desk.run(desk.engine.steer("mailgun", Open(1)))

    desk.clock.advance(milliseconds=1)

    assert desk.claimed_ids(10, "mail", "sms") == [first, last]
    assert desk.blocked_on(then) == ["eu"]


def test_nothing_is_moved_in_a_full_queue(desk: Desk) -> None:
    desk.limits |= {"queue:mail": ONE, "stripe": ONE}
    first, second, third = desk.add(1) + desk.add(2, uses=STRIPE)
    assert desk.claimed_ids() == [first]
    desk.tune_limit("stripe", Limit())
    states = [State.RUNNING, State.READY, State.BLOCKED]

    assert desk.claimed_ids() == []

    assert desk.states([first, second, third]) == states


def test_a_queue_limit_per_group_is_for_those_that_use_it_alone(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(concurrency=1, per_group=True)
    mine = desk.add(2, uses=(Use("queue:mail", "ann"),), group="ann")
    others = desk.add(3)

    assert desk.claimed_ids() == [mine[0], *others]
    assert desk.limit("queue:mail").blocked == 1


def test_a_claim_by_ids_keeps_to_the_limit_of_their_queue(desk: Desk) -> None:
    desk.limits["queue:mail"] = ONE
    jobs = desk.add(2)

    assert desk.claimed_ids(5, ids=tuple(jobs)) == jobs[:1]
    assert desk.claimed_ids(5, ids=tuple(jobs)) == []


def test_a_claim_by_ids_wakes_what_waits_in_their_queues(desk: Desk) -> None:
    desk.limits["stripe"] = NO_TIME
    jobs = desk.add(3, uses=STRIPE)
    desk.tune_limit("stripe", TWO)

    assert desk.claimed_ids(5, ids=(jobs[1],)) == [jobs[1]]
    assert desk.states(jobs) == [State.READY, State.RUNNING, State.BLOCKED]


# -- limits that queues share --


def test_jobs_of_two_queues_share_a_limit(desk: Desk) -> None:
    desk.limits["stripe"] = TWO
    mail, sms = desk.add(3, uses=STRIPE), desk.add(3, "sms", uses=STRIPE)
    assert [desk.depth("mail").ready, desk.depth("sms").ready] == [2, 2]

    assert desk.claimed_ids(10, "mail") == mail[:2]
    assert desk.claimed_ids(10, "sms") == []
    assert desk.states(sms) == [State.BLOCKED] * 3

    desk.end(*mail[:2])
    assert desk.claimed_ids(1, "sms") == sms[:1]
    assert desk.claimed_ids(10, "mail", "sms") == [sms[1]]  # which was woken before
    assert desk.states(mail[2:]) == [State.BLOCKED]


@pytest.mark.parametrize("paused", [True, False])
def test_a_queue_that_gives_nothing_starves_no_other(desk: Desk, paused: bool) -> None:
    """It is paused, or has no worker."""
    desk.limits["stripe"] = TWO
    desk.add(5, "idle", uses=STRIPE)
    mail = desk.add(5, uses=STRIPE)
    if paused:
        desk.pause("idle")
    queues = ("mail", "idle") if paused else ("mail",)
    done = []

    while running := desk.claimed_ids(1, *queues):
        desk.end(*running)
        done += running

    assert done == mail
    assert desk.depth("idle") == Depth(ready=2, blocked=3, bytes=10)


def test_a_freed_place_rings_the_queues_that_wait_for_it(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add(1, uses=STRIPE)
    first = desk.claimed_ids()
    desk.add(2, "sms", uses=STRIPE)

    assert rings(desk, lambda: desk.end(*first), "sms")


def test_a_freed_place_rings_the_queue_whose_limit_it_is(desk: Desk) -> None:
    desk.limits["queue:mail"] = ONE
    desk.add(2)
    first = desk.claimed_ids()

    assert rings(desk, lambda: desk.end(*first))


def test_a_ready_job_that_goes_rings_those_that_wait_behind_it(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)

    assert rings(desk, lambda: desk.amend(Cancel(), first))
    assert desk.claimed_ids() == [second]


# -- changed live --


def test_a_raised_limit_lets_more_run_at_once(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    jobs = desk.add(4, uses=STRIPE)
    assert desk.claimed_ids() == jobs[:1]

    assert rings(desk, lambda: desk.tune_limit("stripe", Limit(concurrency=3)))

    assert desk.claimed_ids() == jobs[1:3]
    assert desk.limit("stripe") == LimitRecord(
        name="stripe",
        limit=Limit(concurrency=3),
        declared=ONE,
        tuned=Limit(concurrency=3),
        running=3,
        blocked=1,
    )


def test_below_a_lowered_limit_the_next_one_starts(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=3)
    jobs = desk.add(6, uses=STRIPE)
    desk.claimed_ids()
    desk.tune_limit("stripe", ONE)
    assert desk.limit("stripe").running == 3

    desk.end(*jobs[:2])
    assert desk.claimed_ids() == []

    desk.end(jobs[2])
    assert desk.claimed_ids() == [jobs[3]]


def test_ready_jobs_beyond_a_lowered_limit_wait_blocked(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=3)
    jobs = desk.add(3, uses=STRIPE)
    desk.tune_limit("stripe", ONE)

    assert desk.claimed_ids() == jobs[:1]
    assert desk.states(jobs) == [State.RUNNING, State.BLOCKED, State.BLOCKED]


def test_what_was_tuned_goes_before_the_code_until_it_is_forgotten(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    desk.add(3, uses=STRIPE)
    desk.tune_limit("stripe", TWO)
    desk.limits["stripe"] = Limit(concurrency=3)
    desk.add(uses=STRIPE)

    assert desk.limit("stripe").limit == TWO
    assert len(desk.claimed_ids()) == 2
    reset = desk.tune_limit("stripe", None)
    assert reset is not None
    assert (reset.limit, reset.tuned) == (Limit(concurrency=3), None)
    assert len(desk.claimed_ids()) == 1


def test_a_limit_that_nobody_declared_cannot_be_tuned(desk: Desk) -> None:
    desk.add()

    assert desk.tune_limit("stripe", ONE) is None
    assert desk.tune_limit("queue:sms", ONE) is None
    assert desk.run(desk.engine.list_limits()) == []


def test_a_known_queue_can_be_limited_at_run_time(desk: Desk) -> None:
    jobs = desk.add(3)

    made = desk.tune_limit("queue:mail", TWO)

    assert made == LimitRecord(name="queue:mail", limit=TWO, declared=Limit(), tuned=TWO)
    assert desk.claimed_ids() == jobs[:2]
    desk.tune_limit("queue:mail", None)
    assert desk.claimed_ids() == jobs[2:]


def test_a_limit_declared_again_is_as_the_latest_says(desk: Desk) -> None:
    assert desk.limit("stripe", ONE) == LimitRecord(name="stripe", limit=ONE, declared=ONE)
    assert desk.limit("stripe", TWO).limit == TWO


def test_what_runs_already_counts_under_a_new_limit(desk: Desk) -> None:
    jobs = desk.add(3, uses=STRIPE)
    assert desk.claimed_ids(1) == jobs[:1]

    desk.limit("stripe", TWO)

    assert desk.limit("stripe").running == 1
    assert desk.claimed_ids() == [jobs[1]]


# -- jobs that wait --


def waiting(desk: Desk, number: int = 3, **fields) -> list[bytes]:
    """Jobs that wait for a limit without room."""
    desk.limits["stripe"] = NO_TIME
    return desk.add(number, uses=STRIPE, **fields)


def test_a_blocked_job_is_cancelled_at_once(desk: Desk) -> None:
    first, second = waiting(desk, 2)

    assert desk.amend(Cancel(), first).changed == [first]

    assert desk.state(first) is State.CANCELLED
    assert (desk.blocked_on(first), desk.depth().blocked) == ([None], 1)
    desk.tune_limit("stripe", TWO)
    assert desk.claimed_ids() == [second]


def test_a_blocked_job_can_be_deleted(desk: Desk) -> None:
    first, second = waiting(desk, 2)

    desk.amend(Delete(), first)

    assert desk.depth() == Depth(blocked=1, bytes=2)
    desk.tune_limit("stripe", TWO)
    assert desk.claimed_ids() == [second]


def test_a_blocked_job_is_not_redriven(desk: Desk) -> None:
    (job,) = waiting(desk, 1)

    assert [it.why for it in desk.amend(Redrive(), job).skipped] == ["it is blocked"]


def test_a_blocked_job_that_is_reprioritised_is_woken_before_others(desk: Desk) -> None:
    jobs = waiting(desk)

    desk.amend(Reprioritise(9), jobs[2])
    desk.tune_limit("stripe", ONE)

    assert desk.claimed_ids() == [jobs[2]]


def test_a_blocked_job_that_is_moved_waits_there(desk: Desk) -> None:
    first, second = waiting(desk, 2)

    desk.amend(Move("sms"), first)

    assert desk.blocked_on(first) == ["stripe"]
    assert (desk.depth("mail").blocked, desk.depth("sms").blocked) == (1, 1)
    desk.tune_limit("stripe", Limit(concurrency=5))
    assert desk.claimed_ids(5, "sms") == [first]
    assert desk.claimed_ids() == [second]


def test_a_ready_job_that_is_moved_gets_in_line_there(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    there = desk.add_one("sms", uses=STRIPE)
    job = desk.add_one(uses=STRIPE)

    desk.amend(Move("sms"), job)

    assert desk.states([there, job]) == [State.READY, State.BLOCKED]


def test_a_blocked_job_expires(desk: Desk) -> None:
    first, second = waiting(desk, 1, expires_ms=1_000) + waiting(desk, 1)
    desk.clock.advance(seconds=1)

    assert desk.sweep().expired == 1

    assert desk.states([first, second]) == [State.EXPIRED, State.BLOCKED]
    assert desk.depth().blocked == 1


def test_a_job_that_is_woken_too_late_ends_unrun(desk: Desk) -> None:
    first, second = waiting(desk, 1, expires_ms=1_000) + waiting(desk, 1)
    desk.clock.advance(seconds=1)
    desk.tune_limit("stripe", ONE)

    assert rings(desk, lambda: desk.claimed_ids())

    assert desk.state(first) is State.EXPIRED
    assert desk.claimed_ids() == [second]


def test_a_redriven_job_stands_in_line(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    failed = desk.finished(FAILED, uses=STRIPE)
    other = desk.add_one(uses=STRIPE)

    desk.amend(Redrive(), failed)

    assert desk.states([other, failed]) == [State.READY, State.BLOCKED]
    assert desk.claimed_ids() == [other]
    desk.end(other)
    assert desk.claimed_ids() == [failed]


def test_of_jobs_that_are_redriven_together_the_newest_gets_in_line_first(desk: Desk) -> None:
    """On PostgreSQL those that were scheduled did, before all that had ended."""
    desk.limits["stripe"] = ONE
    scheduled = desk.add_one(uses=STRIPE, delay_ms=60_000)
    ended = desk.add_one(uses=STRIPE)
    desk.amend(Cancel(), ended)

    desk.amend(Redrive(), scheduled, ended)

    assert desk.states([scheduled, ended]) == [State.BLOCKED, State.READY]


def test_ageing_passes_blocked_jobs_by(desk: Desk) -> None:
    waiting(desk)
    desk.clock.advance(minutes=30)

    assert desk.sweep().aged == 0


def test_blocked_jobs_take_up_room_in_the_queue(desk: Desk) -> None:
    waiting(desk, 3)

    refusal = desk.append(desk.job(uses=STRIPE), bounds=Bounds(max_jobs=3))

    assert not isinstance(refusal, list)
    assert (refusal.limit, refusal.depth) == ("jobs", 3)


def test_blocked_jobs_are_found_by_their_state(desk: Desk) -> None:
    jobs = waiting(desk)
    desk.finished(SUCCEEDED)

    assert desk.found_ids(states=(State.BLOCKED,)) == jobs[::-1]
