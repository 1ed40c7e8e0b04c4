"""Rates: tokens to the microsecond, and how long until the next one."""

from __future__ import annotations

from tests.engine.contract.desk import RELEASED, Desk, retry

from backlane.model.job import Lane, State
from backlane.model.limit import Limit, Rate, Use

STRIPE = (Use("stripe"),)


def rate(number: int, per_ms: int = 1_000, burst: int = 1) -> Limit:
    return Limit(rate=Rate(number, per_ms, burst))


def test_a_burst_begins_at_once_and_no_more(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=3)
    jobs = desk.add(5, uses=STRIPE)
    assert desk.states(jobs) == [State.READY] * 3 + [State.BLOCKED] * 2

    claimed = desk.claim()

    assert [lease.job for lease in claimed.leases] == jobs[:3]
    assert claimed.next_due_ms == 100


def test_a_token_comes_each_interval(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=3)
    jobs = desk.add(6, uses=STRIPE)
    desk.claim()

    desk.clock.advance(milliseconds=99)
    early = desk.claim()
    desk.clock.advance(milliseconds=1)
    on_time = desk.claim()
    desk.clock.advance(milliseconds=250)
    late = desk.claim()

    assert ([lease.job for lease in early.leases], early.next_due_ms) == ([], 1)
    assert [lease.job for lease in on_time.leases] == [jobs[3]]
    assert [lease.job for lease in late.leases] == jobs[4:]


def test_an_interval_is_not_rounded_to_milliseconds(desk: Desk) -> None:
    """3 a second is one in 333,334 µs: three of them come to 1,001 ms, not to 999."""
    desk.limits["stripe"] = rate(3, burst=2)
    jobs = desk.add(6, uses=STRIPE)
    begun_ms: list[int] = []
    start_ms = desk.clock.wall_ms()

    while len(begun_ms) < 5:
        claimed = desk.claim()
        begun_ms += [desk.clock.wall_ms() - start_ms for _ in claimed.leases]
        desk.clock.advance(milliseconds=1)

    assert begun_ms == [0, 0, 334, 667, 1_001]
    assert desk.states(jobs[5:]) == [State.BLOCKED]


def test_many_tokens_come_within_a_millisecond(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10_000, burst=5)
    desk.add(100, uses=STRIPE)
    given = len(desk.claim().leases)
    for _ in range(4):
        desk.clock.advance(milliseconds=1)
        given += len(desk.claim().leases)

    # The burst of 5, then all that fit into a bucket of 5 each millisecond: the rest is lost.
    assert given == 5 + 4 * 5


def test_what_waits_is_told_to_the_millisecond_above(desk: Desk) -> None:
    desk.limits["stripe"] = rate(3)
    desk.add(2, uses=STRIPE)

    assert desk.claim().next_due_ms == 334


def test_a_rate_that_nobody_waits_for_is_not_waited_for(desk: Desk) -> None:
    desk.limits["stripe"] = rate(3)
    desk.add(1, uses=STRIPE)

    assert desk.claim(seconds=30).next_due_ms == 30_000  # the lapse


def test_a_rate_of_queues_not_wanted_need_not_be_waited_for(desk: Desk) -> None:
    desk.limits["stripe"] = rate(3)
    desk.add(2, uses=STRIPE)
    desk.claim(1)

    claimed = desk.claim(1, "sms")

    assert claimed.leases == []
    assert claimed.next_due_ms is not None


def test_a_queue_begins_no_faster_than_its_rate(desk: Desk) -> None:
    desk.limits["queue:mail"] = rate(60, per_ms=60_000, burst=2)
    jobs = desk.add(4)

    claimed = desk.claim()

    assert [lease.job for lease in claimed.leases] == jobs[:2]
    assert claimed.next_due_ms == 1_000
    assert desk.states(jobs[2:]) == [State.READY] * 2
    desk.clock.advance(seconds=1)
    assert desk.claimed_ids() == [jobs[2]]


def test_each_part_has_a_rate_of_its_own(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(rate=Rate(1, 1_000), per_group=True)
    ann = desk.add(2, uses=(Use("stripe", "ann"),))
    bob = desk.add(2, uses=(Use("stripe", "bob"),))

    assert desk.claimed_ids() == [ann[0], bob[0]]
    desk.clock.advance(seconds=1)
    assert desk.claimed_ids() == [ann[1], bob[1]]


def test_each_lease_takes_a_token_whatever_becomes_of_it(desk: Desk) -> None:
    desk.limits["stripe"] = rate(1)
    (job,) = desk.add(1, uses=STRIPE)
    desk.claim()
    desk.end(job, outcome=RELEASED)
    assert (desk.state(job), desk.claimed_ids()) == (State.BLOCKED, [])

    desk.clock.advance(seconds=1)
    assert desk.claimed_ids() == [job]
    desk.end(job, outcome=retry(0))
    assert desk.claimed_ids() == []
    desk.clock.advance(seconds=1)
    assert desk.claimed_ids() == [job]


def test_concurrency_and_rate_both_hold(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=2, rate=Rate(10, 1_000, 3))
    jobs = desk.add(5, uses=STRIPE)
    assert desk.claimed_ids() == jobs[:2]
    desk.end(*jobs[:2])

    assert desk.claimed_ids() == [jobs[2]]  # the third token of the burst
    assert desk.claimed_ids() == []
    desk.clock.advance(milliseconds=100)
    assert desk.claimed_ids() == [jobs[3]]


def test_a_slow_rate_that_is_raised_is_not_waited_for_any_more(desk: Desk) -> None:
    desk.limits["stripe"] = rate(1, per_ms=60_000)
    jobs = desk.add(4, uses=STRIPE)
    assert desk.claimed_ids() == jobs[:1]

    desk.tune_limit("stripe", rate(1_000, burst=2))

    assert desk.claimed_ids() == jobs[1:3]
    desk.clock.advance(milliseconds=1)
    assert desk.claimed_ids() == [jobs[3]]


def test_a_clock_set_back_makes_nobody_wait_for_as_long(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=2)
    jobs = desk.add(5, uses=STRIPE)
    desk.claim()

    desk.clock.jump(hours=-2)

    assert desk.claimed_ids() == jobs[2:4]
    desk.clock.advance(milliseconds=100)
    assert desk.claimed_ids() == [jobs[4]]


def test_a_clock_a_little_behind_gives_nothing_twice(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=2)
    jobs = desk.add(3, uses=STRIPE)
    desk.claim()

    desk.clock.jump(milliseconds=-500)
    claimed = desk.claim()

    assert (claimed.leases, claimed.next_due_ms) == ([], 600)
    desk.clock.advance(milliseconds=600)
    assert desk.claimed_ids() == [jobs[2]]


def test_tokens_that_another_queue_took_are_waited_for(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=2)
    desk.add(2, uses=STRIPE)
    desk.claim(2, seconds=3_600)
    desk.add(1, "sms", uses=STRIPE)
    desk.clock.advance(milliseconds=200)
    mail = desk.add(2, uses=STRIPE)

    claimed = desk.claim(2, "mail", "sms", seconds=3_600)

    assert [lease.job for lease in claimed.leases] == mail
    assert claimed.next_due_ms == 100


def test_jobs_that_may_be_woken_wait_for_a_token_of_their_queue(desk: Desk) -> None:
    desk.limits |= {"queue:mail": rate(1), "stripe": Limit(concurrency=1)}
    desk.add(1, "mail")
    desk.acquire("stripe", b"me")
    [waiting] = desk.add(1, "mail", uses=STRIPE)
    desk.claim(1, seconds=3_600)
    desk.release("stripe", b"me")

    assert desk.claim(1, seconds=3_600).next_due_ms == 1_000
    desk.clock.advance(seconds=1)
    assert desk.claimed_ids() == [waiting]


def test_behind_a_ready_job_that_nobody_takes_the_next_token_is_for_others(desk: Desk) -> None:
    desk.limits["stripe"] = rate(10, burst=2)
    desk.add(2, uses=STRIPE)
    desk.claim(2, seconds=3_600)
    desk.clock.advance(milliseconds=100)
    desk.add_one(uses=STRIPE, lane=Lane.EXCLUSIVE)
    waiting = desk.add_one(uses=STRIPE)

    assert desk.claimed_ids() == []
    desk.clock.advance(milliseconds=100)
    assert desk.claimed_ids() == [waiting]
