"""append: a receipt says how full the queue is, by the fullest of its bounds."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Tune
from backlane.model.job import Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

PACE = Pace((10.0,) * 10, slots=2)


def pressures(answer: list[Receipt] | Refusal) -> list[float]:
    assert isinstance(answer, list), answer
    return [receipt.pressure for receipt in answer]


def test_pressure_is_the_part_of_the_places_taken_after_the_append(desk: Desk) -> None:
    desk.add(2)

    assert pressures(desk.append(desk.job(), bounds=Bounds(max_jobs=4))) == [0.75]


def test_pressure_is_the_part_of_the_bytes_if_that_is_more(desk: Desk) -> None:
    bounds = Bounds(max_jobs=4, max_bytes=10)

    assert pressures(desk.append(desk.job(body=b"12345678"), bounds=bounds)) == [0.8]


def test_pressure_is_the_part_of_the_wait_if_that_is_more(desk: Desk) -> None:
    desk.add(8)

    receipts = desk.append(desk.job(), bounds=Bounds(max_wait_ms=1_000), pace=PACE)

    assert pressures(receipts) == [0.9]


def test_all_jobs_of_a_batch_tell_the_pressure_after_it(desk: Desk) -> None:
    jobs = [desk.job() for _ in range(3)]

    assert pressures(desk.append(*jobs, bounds=Bounds(max_jobs=4))) == [0.75] * 3


def test_each_job_tells_the_pressure_of_its_own_queue(desk: Desk) -> None:
    declared = {"mail": Bounds(max_jobs=4), "video": Bounds(max_jobs=2)}

    receipts = desk.append(desk.job("mail"), desk.job("video"), declared=declared)

    assert pressures(receipts) == [0.25, 0.5]


def test_a_duplicate_tells_the_pressure_too(desk: Desk) -> None:
    job = desk.job()
    desk.append(job)

    assert pressures(desk.append(job, bounds=Bounds(max_jobs=4))) == [0.25]


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_pressure_never_passes_1(desk: Desk, max_jobs: int) -> None:
    """A tuned bound may be below what is there, and work born inside a job above it."""
    desk.add(2)
    desk.run(desk.engine.tune("mail", Tune(max_jobs=max_jobs)))

    assert pressures(desk.append(desk.job(parent=b"p" * 16))) == [1.0]


def test_one_job_of_each_append_is_held_against_what_it_was_told(desk: Desk) -> None:
    """The last that waits from now on: it was told 300 ms, and waited for 2 s."""
    desk.add(1)
    jobs = [desk.job(), desk.job(), desk.job(delay_ms=60_000)]
    desk.append(*jobs, pace=PACE)
    desk.clock.advance(seconds=2)
    desk.claim(10)

    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.foretold, sample.foretold_ms, sample.waited_ms) == (1, 300, 2_000)


def test_an_append_without_a_pace_is_held_against_nothing(desk: Desk) -> None:
    desk.add(3)
    desk.clock.advance(seconds=2)
    desk.claim(10)

    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.foretold, sample.foretold_ms, sample.waited_ms) == (0, 0, 0)


def test_a_wait_of_days_is_no_promise_to_hold_anything_against(desk: Desk) -> None:
    """The sum of a thousand waits without end is more than a store can count, and a claim
    that could not count took nothing any more."""
    stands = Pace((0.0,) * 10, slots=0)
    for _ in range(1_100):
        desk.append(desk.job(), pace=stands)

    assert len(desk.claim(2_000).leases) == 1_100
    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    assert (sample.foretold, sample.foretold_ms, sample.waited_ms) == (0, 0, 0)
