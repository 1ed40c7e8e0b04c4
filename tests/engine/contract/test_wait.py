"""append: refused for the wait, or for a deadline that it would miss.

The line here starts ten jobs a second, whatever their priority, on two slots: who
comes to an empty line waits for nothing, who finds n jobs waits for n + 1 tenths.
"""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Tune
from backlane.model.job import Receipt, Refusal
from backlane.model.pressure.pace import NEVER_MS, Pace
from backlane.model.queue import Bounds, Kind

PACE = Pace((10.0,) * 10, slots=2, service_ms=50.0)
SECOND = Bounds(max_wait_ms=1_000)
PARENT = b"p" * 16


def expected(answer: list[Receipt] | Refusal) -> list[int | None]:
    assert isinstance(answer, list), answer
    return [receipt.expected_ms for receipt in answer]


# -- what is foretold --


def test_without_a_pace_no_wait_is_foretold_and_none_is_refused(desk: Desk) -> None:
    desk.add(100)

    assert expected(desk.append(desk.job(), bounds=Bounds(max_wait_ms=1))) == [None]


def test_a_job_that_meets_an_empty_line_and_a_free_slot_waits_for_nothing(desk: Desk) -> None:
    assert expected(desk.append(desk.job(), pace=PACE)) == [0]


def test_a_job_waits_for_all_that_are_ready_before_it(desk: Desk) -> None:
    desk.add(4)

    assert expected(desk.append(desk.job(), pace=PACE)) == [500]


def test_a_job_waits_when_all_slots_are_taken(desk: Desk) -> None:
    desk.add(2)
    desk.claim(2)

    assert expected(desk.append(desk.job(), pace=PACE)) == [100]


def test_less_urgent_and_scheduled_jobs_are_not_waited_for(desk: Desk) -> None:
    desk.add(3, priority=4)
    desk.add(3, delay_ms=60_000)
    desk.add(2, priority=6)

    assert expected(desk.append(desk.job(priority=5), pace=PACE)) == [300]


def test_the_jobs_of_a_batch_wait_for_each_other(desk: Desk) -> None:
    desk.add(1)

    assert expected(desk.append(*(desk.job() for _ in range(3)), pace=PACE)) == [200, 300, 400]


def test_in_a_batch_too_the_more_urgent_go_first(desk: Desk) -> None:
    jobs = [desk.job(priority=priority) for priority in (5, 9, 5, 1)]

    assert expected(desk.append(*jobs, pace=PACE)) == [0, 0, 300, 400]


def test_a_delayed_job_is_told_nothing_and_delays_nobody(desk: Desk) -> None:
    desk.add(1)
    jobs = [desk.job(delay_ms=1_000), desk.job(), desk.job(delay_ms=1), desk.job()]

    assert expected(desk.append(*jobs, pace=PACE)) == [None, 200, None, 300]


def test_a_duplicate_is_told_nothing(desk: Desk) -> None:
    known, new = desk.job(), desk.job()
    desk.append(known)

    assert expected(desk.append(known, new, pace=PACE)) == [None, 200]


def test_the_jobs_of_another_queue_are_not_waited_for(desk: Desk) -> None:
    desk.add(5, "video")

    assert expected(desk.append(desk.job("video"), desk.job(), pace=PACE)) == [None, 0]


def test_each_priority_goes_at_its_own_speed(desk: Desk) -> None:
    pace = Pace((0.0,) * 5 + (4.0,) * 5, slots=2)
    desk.add(1)

    jobs = [desk.job(priority=9), desk.job(priority=5), desk.job(priority=0)]

    assert expected(desk.append(*jobs, pace=pace)) == [0, 750, NEVER_MS]


# -- refused for the wait --


def test_a_job_that_would_wait_for_too_long_is_refused(desk: Desk) -> None:
    desk.add(10)

    refusal = desk.append(desk.job(), bounds=SECOND, pace=PACE)

    assert refusal == Refusal(
        "mail", "wait", depth=1_100, bound=1_000, added=1, jobs=10, expected_ms=1_100
    )
    assert desk.depth().jobs == 10


def test_a_job_that_waits_just_as_long_as_it_may_is_taken(desk: Desk) -> None:
    desk.add(9)

    assert expected(desk.append(desk.job(), bounds=SECOND, pace=PACE)) == [1_000]


def test_the_longest_wait_decides_for_a_whole_batch(desk: Desk) -> None:
    desk.add(8)

    refusal = desk.append(*(desk.job() for _ in range(3)), bounds=SECOND, pace=PACE)

    assert refusal == Refusal(
        "mail", "wait", depth=1_100, bound=1_000, added=3, jobs=8, expected_ms=1_100
    )
    assert desk.depth().jobs == 8


def test_an_urgent_job_passes_a_line_that_is_too_long_for_others(desk: Desk) -> None:
    desk.add(20)

    assert isinstance(desk.append(desk.job(), bounds=SECOND, pace=PACE), Refusal)
    assert expected(desk.append(desk.job(priority=6), bounds=SECOND, pace=PACE)) == [0]


def test_the_least_urgent_of_a_batch_decides(desk: Desk) -> None:
    desk.add(10, priority=2)
    jobs = [desk.job(priority=1), desk.job(priority=7)]

    refusal = desk.append(*jobs, bounds=SECOND, pace=PACE)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth) == ("wait", 1_100)


def test_delayed_jobs_and_work_born_inside_a_job_are_not_refused_for_the_wait(desk: Desk) -> None:
    desk.add(20)

    later = desk.append(desk.job(delay_ms=1), bounds=SECOND, pace=PACE)
    child = desk.append(desk.job(parent=PARENT), bounds=SECOND, pace=PACE)

    assert expected(later) == [None]
    assert expected(child) == [2_100]


def test_a_child_in_a_batch_does_not_speak_for_the_others(desk: Desk) -> None:
    desk.add(8)
    jobs = [desk.job(), desk.job(parent=PARENT), desk.job(parent=PARENT)]

    assert expected(desk.append(*jobs, bounds=SECOND, pace=PACE)) == [900, 1_000, 1_100]


@pytest.mark.parametrize("number", [12, 1_000])
def test_a_batch_that_an_empty_line_could_not_start_in_time_can_never_fit(
    desk: Desk, number: int
) -> None:
    refusal = desk.append(*(desk.job() for _ in range(number)), bounds=SECOND, pace=PACE)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth, refusal.can_fit) == ("wait", number * 100, False)


def test_a_line_that_stands_still_may_take_a_job_another_time(desk: Desk) -> None:
    desk.add(1)

    refusal = desk.append(desk.job(), bounds=SECOND, pace=Pace((0.0,) * 10, slots=0))

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.expected_ms, refusal.can_fit) == ("wait", NEVER_MS, True)


def test_duplicates_are_not_refused_for_the_wait(desk: Desk) -> None:
    known = desk.job()
    desk.append(known)
    desk.add(20)

    assert expected(desk.append(known, bounds=SECOND, pace=PACE)) == [None]


def test_messages_are_judged_by_their_wait_too(desk: Desk) -> None:
    for _ in range(10):
        desk.append(desk.job(task=None), kind=Kind.MESSAGES)

    refusal = desk.append(desk.job(task=None), bounds=SECOND, pace=PACE, kind=Kind.MESSAGES)

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "wait"


def test_a_refusal_by_number_tells_the_wait_as_well(desk: Desk) -> None:
    desk.add(3)

    refusal = desk.append(desk.job(), bounds=Bounds(max_jobs=3), pace=PACE)

    assert refusal == Refusal("mail", "jobs", depth=3, bound=3, added=1, jobs=3, expected_ms=400)


def test_a_tuned_wait_goes_before_the_declared_one(desk: Desk) -> None:
    desk.add(5)
    desk.run(desk.engine.tune("mail", Tune(max_wait_ms=500)))

    refusal = desk.append(desk.job(), bounds=SECOND, pace=PACE)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.bound) == ("wait", 500)


def test_a_wait_tuned_to_0_is_not_bounded(desk: Desk) -> None:
    desk.add(50)
    desk.run(desk.engine.tune("mail", Tune(max_wait_ms=0)))

    assert expected(desk.append(desk.job(), bounds=SECOND, pace=PACE)) == [5_100]


def test_a_wait_that_the_first_append_declared_bounds_those_who_declare_nothing(
    desk: Desk,
) -> None:
    desk.append(desk.job(), bounds=SECOND)
    desk.add(10)

    assert isinstance(desk.append(desk.job(), pace=PACE), Refusal)


# -- refused for a deadline --


def test_a_job_that_could_not_be_done_in_time_is_refused(desk: Desk) -> None:
    """It would start after 600 ms and run for 50."""
    desk.add(5)

    refusal = desk.append(desk.job(expires_ms=649), pace=PACE)

    assert refusal == Refusal(
        "mail", "deadline", depth=600, bound=599, added=1, jobs=5, expected_ms=600
    )


def test_a_job_that_is_done_just_in_time_is_taken(desk: Desk) -> None:
    desk.add(5)

    assert expected(desk.append(desk.job(expires_ms=650), pace=PACE)) == [600]


def test_an_empty_line_never_refuses_a_deadline(desk: Desk) -> None:
    assert expected(desk.append(desk.job(expires_ms=1), pace=PACE)) == [0]


def test_without_a_pace_no_deadline_is_refused(desk: Desk) -> None:
    desk.add(50)

    assert expected(desk.append(desk.job(expires_ms=1))) == [None]


def test_a_delayed_job_is_not_refused_for_its_deadline(desk: Desk) -> None:
    desk.add(50)

    assert expected(desk.append(desk.job(expires_ms=1, delay_ms=10), pace=PACE)) == [None]


def test_the_deadline_that_is_missed_by_most_decides(desk: Desk) -> None:
    desk.add(5)
    jobs = [desk.job(), desk.job(expires_ms=10_000), desk.job(expires_ms=400), desk.job()]

    refusal = desk.append(*jobs, pace=PACE)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth, refusal.bound) == ("deadline", 800, 350)
    assert refusal.can_fit


def test_a_batch_whose_last_job_is_always_late_can_never_fit(desk: Desk) -> None:
    jobs = [desk.job(expires_ms=500) for _ in range(10)]

    refusal = desk.append(*jobs, pace=PACE)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.can_fit) == ("deadline", False)
