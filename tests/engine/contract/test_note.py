"""note: progress of a running job, fenced."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import RELEASED, SUCCEEDED, Desk

from backlane.engine.selection import Cancel
from backlane.model.job import Note, Progress, State


def test_progress_is_kept_for_a_running_job(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    before = desk.record(job).revision

    lost = desk.run(desk.engine.note([Note(job, lease.token, Progress(0.4, "rendering"))]))

    record = desk.record(job)
    assert lost == []
    assert record.progress == Progress(0.4, "rendering")
    assert record.revision == before + 1
    assert record.state is State.RUNNING


def test_newer_progress_replaces_older(desk: Desk) -> None:
    job = desk.add_one()
    token = desk.lease().token

    desk.run(
        desk.engine.note([Note(job, token, Progress(0.4, "a")), Note(job, token, Progress(0.5))])
    )

    assert desk.record(job).progress == Progress(0.5)


def test_progress_under_an_old_lease_is_refused(desk: Desk) -> None:
    job = desk.add_one()
    old = desk.lose()
    new = desk.lease(owner="bob")
    desk.run(desk.engine.note([Note(job, new.token, Progress(0.1))]))

    lost = desk.run(desk.engine.note([Note(job, old.token, Progress(0.9))]))

    assert lost == [job]
    assert desk.record(job).progress == Progress(0.1)


@pytest.mark.parametrize("outcome", [SUCCEEDED, RELEASED])
def test_progress_after_the_end_is_refused(desk: Desk, outcome) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.settle(lease, outcome)
    before = desk.record(job)

    lost = desk.run(desk.engine.note([Note(job, lease.token, Progress(0.9))]))

    assert lost == [job]
    assert desk.record(job) == before


def test_one_lost_lease_keeps_no_other_progress_away(desk: Desk) -> None:
    first, second = desk.add(2)
    one, two = desk.claim(2).leases
    desk.settle(one, SUCCEEDED)

    lost = desk.run(
        desk.engine.note(
            [Note(first, one.token, Progress(0.1)), Note(second, two.token, Progress(0.2))]
        )
    )

    assert lost == [first]
    assert desk.record(second).progress == Progress(0.2)


def test_a_new_attempt_starts_without_progress(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.run(desk.engine.note([Note(job, lease.token, Progress(0.9))]))
    desk.settle(lease, RELEASED)

    desk.lease()

    assert desk.record(job).progress is None


def test_a_job_asked_to_stop_may_still_say_how_far_it_is(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)

    assert desk.run(desk.engine.note([Note(job, lease.token, Progress(0.9))])) == []
    assert desk.record(job).progress == Progress(0.9)
