"""results: what jobs resulted in, read for many at once."""

from __future__ import annotations

from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk

from backlane.engine.recalling import Resulted
from backlane.engine.selection import Redrive
from backlane.model.ids import new_ids
from backlane.model.job import State
from backlane.model.outcome import Cancelled, Succeeded


def results(desk: Desk, *jobs: bytes) -> dict[bytes, Resulted]:
    found = desk.run(desk.engine.results(jobs))
    assert len(found) == len({one.job for one in found})
    return {one.job: one for one in found}


def test_each_job_that_ended_is_told_with_its_result(desk: Desk) -> None:
    sent = desk.finished(Succeeded(b"\x00\xff"))
    empty = desk.finished(Succeeded(b""))
    without = desk.finished(SUCCEEDED)

    assert results(desk, sent, empty, without) == {
        sent: Resulted(sent, State.SUCCEEDED, b"\x00\xff"),
        empty: Resulted(empty, State.SUCCEEDED, b""),
        without: Resulted(without, State.SUCCEEDED, None),
    }


def test_a_job_that_did_not_succeed_has_a_state_alone(desk: Desk) -> None:
    failed, cancelled = desk.finished(FAILED), desk.finished(Cancelled())

    assert results(desk, failed, cancelled) == {
        failed: Resulted(failed, State.FAILED),
        cancelled: Resulted(cancelled, State.CANCELLED),
    }


def test_a_job_that_has_not_ended_has_no_state(desk: Desk) -> None:
    desk.add_one()
    running = desk.lease()
    ready, scheduled = desk.add_one(), desk.add_one(delay_ms=60_000)

    assert results(desk, running.job, ready, scheduled) == {
        job: Resulted(job, None) for job in (running.job, ready, scheduled)
    }


def test_a_job_that_begins_anew_has_none_any_more(desk: Desk) -> None:
    job = desk.finished(FAILED)

    desk.amend(Redrive(), job)

    assert results(desk, job) == {job: Resulted(job, None)}


def test_unknown_jobs_are_left_out_and_none_is_told_twice(desk: Desk) -> None:
    job = desk.finished(Succeeded(b"1"))
    (unknown,) = new_ids(desk.clock.wall_ms(), 1)

    assert list(results(desk, job, unknown, job)) == [job]
    assert results(desk) == {}


def test_a_thousand_are_told_at_once(desk: Desk) -> None:
    jobs = desk.add(3)
    unknown = new_ids(desk.clock.wall_ms(), 997)

    assert results(desk, *jobs, *unknown).keys() == set(jobs)
