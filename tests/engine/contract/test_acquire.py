"""acquire and release: places under a limit outside of jobs."""

from __future__ import annotations

from tests.engine.contract.desk import Desk

from backlane.engine.limiting import Acquired
from backlane.model.job import State
from backlane.model.limit import Limit, Rate, Use

STRIPE = (Use("stripe"),)
GIVEN = Acquired(is_given=True)
SOON = 5.0


def not_given(wait_ms: int | None = None) -> Acquired:
    return Acquired(is_given=False, wait_ms=wait_ms)


def test_as_many_hold_a_place_as_the_limit_allows(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=2))

    answers = [desk.acquire("stripe", holder) for holder in (b"a", b"b", b"c")]

    assert answers == [GIVEN, GIVEN, not_given()]
    assert desk.limit("stripe").running == 2


def test_a_place_given_back_is_free(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", b"a")

    assert desk.release("stripe", b"a")

    assert desk.acquire("stripe", b"b") == GIVEN


def test_who_has_no_place_cannot_give_it_back(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", b"a")

    assert not desk.release("stripe", b"b")
    assert desk.release("stripe", b"a")
    assert not desk.release("stripe", b"a")


def test_a_place_is_free_when_its_lease_has_ended(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", b"a", seconds=30)
    desk.clock.advance(seconds=29)
    assert desk.acquire("stripe", b"b") == not_given()

    desk.clock.advance(seconds=1)

    assert desk.limit("stripe").running == 0
    assert desk.acquire("stripe", b"b") == GIVEN
    assert not desk.release("stripe", b"a")


def test_a_wall_clock_that_jumps_ends_no_lease(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", b"a")

    desk.clock.jump(hours=2)

    assert desk.acquire("stripe", b"b") == not_given()


def test_a_holder_that_asks_again_keeps_its_place_for_longer(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", b"a", seconds=30)
    desk.clock.advance(seconds=20)

    assert desk.acquire("stripe", b"a", seconds=30) == GIVEN

    desk.clock.advance(seconds=20)
    assert desk.acquire("stripe", b"b") == not_given()
    assert desk.limit("stripe").running == 1


def test_a_rate_says_how_long_to_wait(desk: Desk) -> None:
    desk.limit("stripe", Limit(rate=Rate(3, 1_000, burst=2)))

    answers = [desk.acquire("stripe", holder) for holder in (b"a", b"b", b"c")]

    assert answers == [GIVEN, GIVEN, not_given(334)]
    desk.clock.advance(milliseconds=334)
    assert desk.acquire("stripe", b"c") == GIVEN


def test_keeping_a_place_takes_no_token(desk: Desk) -> None:
    desk.limit("stripe", Limit(rate=Rate(1, 1_000, burst=2)))
    desk.acquire("stripe", b"a")

    assert [desk.acquire("stripe", b"a") for _ in range(3)] == [GIVEN] * 3
    assert desk.acquire("stripe", b"b") == GIVEN
    assert desk.acquire("stripe", b"c") == not_given(1_000)


def test_a_full_limit_does_not_say_how_long_to_wait(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1, rate=Rate(1, 1_000, burst=5)))
    desk.acquire("stripe", b"a")

    assert desk.acquire("stripe", b"b") == not_given()


def test_each_part_is_acquired_for_itself(desk: Desk) -> None:
    desk.limit("stripe", Limit(concurrency=1, per_group=True))

    assert desk.acquire("stripe", b"a", part="ann") == GIVEN
    assert desk.acquire("stripe", b"b", part="bob") == GIVEN
    assert desk.acquire("stripe", b"c", part="ann") == not_given()
    assert desk.limit("stripe").running == 2


def test_an_unknown_limit_is_made_as_it_is_declared(desk: Desk) -> None:
    use, two = Use("stripe"), Limit(concurrency=2)

    assert desk.run(desk.engine.acquire(use, two, b"a", 30_000)) == GIVEN
    assert desk.run(desk.engine.acquire(use, Limit(concurrency=1), b"b", 30_000)) == GIVEN

    assert desk.limit("stripe").declared == two


def test_an_unknown_limit_that_nobody_declares_bounds_nothing(desk: Desk) -> None:
    assert [desk.acquire("stripe", holder) for holder in (b"a", b"b")] == [GIVEN, GIVEN]
    assert desk.release("stripe", b"a")
    assert desk.run(desk.engine.list_limits()) == []


# -- beside jobs --


def test_jobs_and_holders_share_a_limit(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=2)
    jobs = desk.add(3, uses=STRIPE)
    desk.acquire("stripe", b"a")

    assert desk.claimed_ids() == jobs[:1]
    assert desk.acquire("stripe", b"b") == not_given()
    assert desk.limit("stripe").running == 2
    desk.end(jobs[0])
    assert desk.acquire("stripe", b"b") == GIVEN
    assert desk.claimed_ids() == []


def test_a_ready_job_whose_place_was_taken_waits_blocked(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=1)
    job = desk.add_one(uses=STRIPE)
    desk.acquire("stripe")

    assert desk.claimed_ids() == []
    assert desk.state(job) is State.BLOCKED


def test_a_place_given_back_rings_the_queues_that_wait(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=1)
    desk.acquire("stripe")
    desk.limit("stripe", Limit(concurrency=1))
    desk.add(1, uses=STRIPE)
    desk.claim()
    bell = desk.engine.listen(["mail"])
    while bell.heard(0):
        pass

    desk.release("stripe")

    assert bell.heard(SOON)
    bell.close()
    assert len(desk.claim().leases) == 1


def test_a_lease_that_ended_frees_the_place_for_jobs(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=1)
    desk.limit("stripe", Limit(concurrency=1))
    desk.acquire("stripe", seconds=30)
    job = desk.add_one(uses=STRIPE)
    assert desk.claimed_ids() == []

    desk.clock.advance(seconds=30)

    assert desk.claimed_ids() == [job]


def test_the_limit_of_a_queue_can_be_acquired(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(concurrency=2)
    jobs = desk.add(3)
    desk.acquire("queue:mail", b"a")

    assert desk.claimed_ids() == jobs[:1]
    assert desk.acquire("queue:mail", b"b") == not_given()
    desk.release("queue:mail", b"a")
    assert desk.claimed_ids() == [jobs[1]]
