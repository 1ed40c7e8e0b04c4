"""Fair queues: no group waits for the mass of another; each is charged what it ran.

Places are virtual times. A job costs 100 ms while none of its queue has ended.
"""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import CRASHED, RELEASED, SUCCEEDED, Desk, retry

from backlane.engine.protocol import Declare
from backlane.engine.selection import Cancel, Move, Reprioritise
from backlane.model.job import Policy, State
from backlane.model.limit import Limit, Use
from backlane.model.outcome import Awaiting, Settlement
from backlane.model.queue import DEFAULT_BOUNDS, Kind


@pytest.fixture
def fair(desk: Desk) -> Desk:
    desk.fair = {"mail"}
    return desk


def order(desk: Desk, number: int = 100) -> str:
    """The groups of the jobs that are claimed next, by their first letter."""
    leases = desk.claim(number, lane=None).leases
    return "".join((lease.group or "-")[0] for lease in leases)


def run(desk: Desk, group: str, ran_ms: int) -> None:
    """Let a job of this group run so long, while nothing else is there."""
    job = desk.add_one(group=group)
    assert desk.claimed_ids() == [job]
    desk.end(job, ran_ms=ran_ms)


# -- whose turn it is --


def test_a_late_group_does_not_wait_for_the_mass_of_another(fair: Desk) -> None:
    fair.add(6, group="ann")
    fair.add(2, group="bob")

    assert order(fair) == "ababaaaa"


def test_without_fairness_the_mass_goes_first(desk: Desk) -> None:
    desk.add(6, group="ann")
    desk.add(2, group="bob")

    assert order(desk) == "aaaaaabb"


def test_one_append_is_placed_job_by_job(fair: Desk) -> None:
    fair.append(*[fair.job(group=group) for group in ("ann", "ann", "ann", "bob", "eve", "bob")])

    assert order(fair) == "abeaba"


def test_the_jobs_of_a_group_keep_their_order(fair: Desk) -> None:
    ann, bob = fair.add(3, group="ann"), fair.add(3, group="bob")

    assert fair.claimed_ids() == [ann[0], bob[0], ann[1], bob[1], ann[2], bob[2]]


def test_jobs_without_a_group_are_one(fair: Desk) -> None:
    fair.add(4)
    fair.add(2, group="bob")

    assert order(fair) == "-b-b--"


def test_who_comes_while_others_are_served_is_among_the_next(fair: Desk) -> None:
    fair.add(100, group="ann")
    fair.claim(50)

    fair.add(3, group="bob")

    assert order(fair, 8) == "bababaaa"


def test_a_group_that_was_away_has_saved_nothing_up(fair: Desk) -> None:
    fair.add(1, group="bob")
    fair.add(50, group="ann")
    fair.claim(40)

    fair.add(5, group="bob")

    assert order(fair, 12) == "bababababaaa"


def test_priorities_go_before_fairness(fair: Desk) -> None:
    fair.add(2, group="ann", priority=9)
    fair.add(2, group="bob")
    fair.add(1, group="eve", priority=9)

    assert order(fair) == "aeabb"


def test_a_delayed_job_is_placed_when_it_is_due(fair: Desk) -> None:
    fair.add(1, group="bob", delay_ms=1_000)
    fair.add(10, group="ann")
    fair.claim(5)
    fair.clock.advance(seconds=1)

    assert order(fair, 3) == "baa"  # of equal places the one that was appended first


def test_a_record_tells_when_a_job_was_due_and_not_its_place(fair: Desk) -> None:
    fair.add(9, group="ann")

    (last,) = fair.add(1, group="ann")

    assert fair.record(last).due_ms == fair.clock.wall_ms()


# -- what a job costs --


def test_a_group_of_long_jobs_gets_as_much_time_as_one_of_short_ones(fair: Desk) -> None:
    run(fair, "long", 300)
    run(fair, "short", 100)
    fair.clock.advance(seconds=10)

    fair.add(4, group="long")  # at 0, 300, 600, 900 from now
    fair.add(12, group="short")  # at 0, 100, 200, …

    assert order(fair) == "lssslssslssslsss"


def test_what_a_job_ran_longer_than_thought_its_group_makes_good(fair: Desk) -> None:
    ann, _ = fair.add(3, group="ann"), fair.add(3, group="bob")
    assert fair.claimed_ids(1) == ann[:1]
    fair.end(ann[0], ran_ms=1_000)

    fair.add(1, group="ann")  # at 300, and 900 of debt
    fair.add(1, group="bob")  # at 300

    assert order(fair) == "bababba"


def test_what_a_job_ran_shorter_than_thought_takes_none_past_its_group(fair: Desk) -> None:
    run(fair, "ann", 100)
    ann, bob = fair.add(3, group="ann"), fair.add(1, group="bob")
    assert fair.claimed_ids(2) == [bob[0], ann[0]]
    fair.end(ann[0], ran_ms=1)

    late = fair.add_one(group="ann")

    assert fair.claimed_ids() == [*ann[1:], late]


@pytest.mark.parametrize(("bobs_ms", "expected"), [(119, "abba"), (120, "abab"), (121, "abab")])
def test_the_latest_attempt_counts_for_a_fifth(fair: Desk, bobs_ms: int, expected: str) -> None:
    run(fair, "ann", 100)
    run(fair, "ann", 200)  # (4 · 100 + 200) / 5 = 120
    run(fair, "bob", bobs_ms)
    fair.clock.advance(seconds=10)

    fair.add(2, group="ann")
    fair.add(2, group="bob")

    assert order(fair) == expected


@pytest.mark.parametrize(("bobs_ms", "expected"), [(139, "nbnb"), (99, "nbbn")])
def test_a_new_group_is_charged_the_mean_of_the_queue(
    fair: Desk, bobs_ms: int, expected: str
) -> None:
    run(fair, "ann", 100)
    run(fair, "ann", 200)  # the queue: 120
    run(fair, "bob", bobs_ms)  # the queue: (4 · 120 + 139) / 5 = 123, or 115
    fair.clock.advance(seconds=10)

    fair.add(2, group="new")
    fair.add(2, group="bob")

    assert order(fair) == expected


def test_an_attempt_that_was_given_back_is_not_counted(fair: Desk) -> None:
    job = fair.add_one(group="ann")
    fair.claim()
    fair.end(job, outcome=RELEASED, ran_ms=500)
    fair.claim()
    fair.end(job, ran_ms=100)
    run(fair, "bob", 101)
    fair.clock.advance(seconds=10)

    fair.add(2, group="bob")
    fair.add(2, group="ann")

    assert order(fair) == "baab"


def test_a_retry_is_placed_behind_what_it_has_cost(fair: Desk) -> None:
    ann = fair.add(2, group="ann")
    fair.add(2, group="bob")
    fair.claim(1)

    fair.end(ann[0], outcome=retry(0), ran_ms=50)

    assert order(fair) == "baba"


@pytest.mark.parametrize("outcome", [RELEASED, CRASHED])
def test_a_job_given_back_keeps_its_place(fair: Desk, outcome) -> None:
    ann = fair.add(3, group="ann")
    fair.add(3, group="bob")
    assert fair.claimed_ids(3)[0] == ann[0]

    fair.end(ann[0], outcome=outcome)

    assert fair.claimed_ids(1, lane=None) == ann[:1]


def test_a_debt_lasts_while_its_time_is_not_over(fair: Desk) -> None:
    run(fair, "ann", 5_000)
    fair.clock.advance(seconds=1)

    fair.add(1, group="ann")
    fair.add(1, group="bob")

    assert order(fair) == "ba"


def test_a_queue_that_was_idle_for_long_has_forgotten_debts(fair: Desk) -> None:
    run(fair, "ann", 5_000)
    fair.clock.advance(seconds=10)

    fair.add(1, group="ann")
    fair.add(1, group="bob")

    assert order(fair) == "ab"


# -- with other rules --


def test_jobs_that_wait_for_a_limit_are_woken_by_their_places(fair: Desk) -> None:
    fair.limits["stripe"] = Limit(concurrency=0)
    fair.add(4, group="ann", uses=(Use("stripe"),))
    fair.add(2, group="bob", uses=(Use("stripe"),))

    fair.tune_limit("stripe", Limit(concurrency=3))

    assert order(fair) == "aba"


def test_a_job_that_is_moved_is_placed_there(fair: Desk) -> None:
    fair.add(3, group="ann")
    job = fair.add_one("sms", group="bob")

    fair.amend(Move("mail"), job)

    assert order(fair) == "abaa"


def test_a_job_that_is_reprioritised_keeps_its_place(fair: Desk) -> None:
    ann = fair.add(3, group="ann")
    fair.add(1, group="bob")

    fair.amend(Reprioritise(6), *ann[1:])
    fair.amend(Reprioritise(5), *ann[1:])

    assert order(fair) == "abaa"


def test_a_job_that_waits_in_a_fair_queue_ages_by_its_time(fair: Desk) -> None:
    fair.add(2, group="ann", priority=2)
    fair.clock.advance(minutes=10)

    assert fair.sweep().aged == 2


def test_one_whose_turn_is_far_off_ages_by_the_time_it_was_due(fair: Desk) -> None:
    """Its virtual time may be hours ahead; what it has waited is not."""
    jobs = fair.add(20, group="ann", priority=2)
    for job in jobs[:10]:
        (lease,) = fair.claim(1, ids=(job,)).leases
        fair.run(fair.engine.settle([Settlement(job, lease.token, SUCCEEDED, 600_000)]))
    fair.add(5, group="ann", priority=2)
    fair.clock.advance(minutes=5)

    assert fair.sweep().aged == 15


def test_a_sweep_comes_to_its_end_where_virtual_time_lags(fair: Desk) -> None:
    """Places are older than what is there, which is not to age yet."""
    fair.add_one(group="first")
    fair.claim(1, seconds=3_600)  # virtual time stands still while it runs
    fair.clock.advance(minutes=4)
    for group in "abcdefgh":
        fair.add_one(group=group)
    fair.clock.advance(minutes=1)

    sweeps = [fair.sweep(2) for _ in range(10)]
    fair.clock.advance(minutes=4)
    later = [fair.sweep(2) for _ in range(10)]

    assert not sweeps[-1].more
    assert sum(swept.aged for swept in sweeps) == 0
    assert sum(swept.aged for swept in later) == 8


def test_what_waits_in_a_queue_that_was_fair_ages_by_the_time_it_was_due(desk: Desk) -> None:
    desk.fair = {"mail"}
    desk.add(20, group="ann", priority=2)
    desk.clock.jump(hours=-1)  # virtual time stays ahead
    desk.add(3, group="bob", priority=2)
    desk.fair = set()
    desk.add(1, priority=2)
    desk.clock.advance(minutes=5)

    assert desk.sweep().aged == 4


def test_a_cancelled_job_leaves_the_others_where_they_are(fair: Desk) -> None:
    ann = fair.add(3, group="ann")
    fair.add(2, group="bob")

    fair.amend(Cancel(), ann[0])

    assert order(fair) == "baba"


# -- which queues are fair --


def test_a_queue_is_fair_as_the_latest_append_says(desk: Desk) -> None:
    desk.fair = {"mail"}
    desk.add(3, group="ann")
    assert desk.queue().is_fair

    desk.fair = set()
    desk.add(1, group="bob")

    assert not desk.queue().is_fair
    assert desk.depth().ready == 4


def test_a_queue_is_fair_as_it_was_declared(desk: Desk) -> None:
    desk.run(desk.engine.tune("mail", Declare(Kind.TASKS, DEFAULT_BOUNDS, is_fair=True)))
    assert desk.queue().is_fair

    desk.run(desk.engine.tune("mail", Declare(Kind.TASKS, DEFAULT_BOUNDS)))

    assert not desk.queue().is_fair


def test_other_queues_stay_as_they_are(fair: Desk) -> None:
    fair.add(3, "sms", group="ann")
    fair.add(1, "sms", group="bob")

    leases = fair.claim(10, "sms").leases

    assert [lease.group for lease in leases] == ["ann", "ann", "ann", "bob"]
    assert not fair.queue("sms").is_fair
    assert fair.states([lease.job for lease in leases]) == [State.RUNNING] * 4


def test_how_long_the_head_has_waited_is_told_of_its_due_time(fair: Desk) -> None:
    fair.add(9, group="ann")
    fair.claim(8)  # the place of the last is 800 ms ahead

    fair.clock.advance(milliseconds=300)

    assert fair.queue().oldest_ready_ms == 300
    (sample,) = fair.run(fair.engine.measure(["mail"])).queues
    assert sample.oldest_ready_ms == 300


def test_a_queue_is_not_idle_where_a_lapse_lets_one_of_it_go_on(desk: Desk) -> None:
    """On Redis what came due in the same claim was placed as if it were."""
    desk.fair = {"video"}
    leaf = desk.add_one("sms", policy=Policy(attempts=1))
    assert desk.claimed_ids(1, "sms") == [leaf]
    waits = desk.add_one("video", group="ann")
    (lease,) = desk.claim(1, "video").leases
    desk.settle(lease, Awaiting((leaf,)))
    then = desk.add_one("video", group="bob", delay_ms=20_000)
    desk.clock.advance(seconds=10)
    beside = desk.add_one("mail")

    desk.clock.advance(seconds=21)

    assert desk.claimed_ids(10, "video", "mail") == [waits, then, beside]
