"""What ends in one call, and what ends by it, has ended for whom the call lets wait."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, settlement
from tests.engine.contract.tying import after

from backlane.engine.selection import Cancel
from backlane.model.job import State
from backlane.model.outcome import Awaiting, Outcome
from backlane.model.queue import Bounds


def test_what_ends_by_the_end_of_another_is_awaited_no_more(desk: Desk) -> None:
    """The call lets a job wait for one that its own failure of a third one skips."""
    failing = desk.add_one()
    follower = desk.add_one(after=after(failing))
    job = desk.add_one("video")
    lease, waiter = desk.lease(), desk.lease(ids=(job,))

    desk.run(
        desk.engine.settle([settlement(waiter, Awaiting((follower,))), settlement(lease, FAILED)])
    )

    assert desk.state(follower) is State.CANCELLED
    record = desk.record(job)
    assert (record.state, record.waits_for) == (State.READY, 0)
    assert record.revision == 3  # appended, leased, ready: it never waited


def test_what_ends_instead_of_waiting_ends_those_behind_it_first(desk: Desk) -> None:
    """A job that was asked to stop awaits nothing; who comes after it in the call sees that."""
    other = desk.add_one()
    stopped = desk.add_one("stop")
    follower = desk.add_one(after=after(stopped))
    job = desk.add_one("video")
    stopping, waiter = desk.lease(ids=(stopped,)), desk.lease(ids=(job,))
    desk.amend(Cancel(), stopped)

    desk.run(
        desk.engine.settle(
            [settlement(stopping, Awaiting((other,))), settlement(waiter, Awaiting((follower,)))]
        )
    )

    assert desk.states([stopped, follower]) == [State.CANCELLED, State.CANCELLED]
    record = desk.record(job)
    assert (record.state, record.revision) == (State.READY, 3)


@pytest.mark.parametrize("first", [Awaiting(()), SUCCEEDED], ids=["awaiting", "succeeded"])
def test_of_two_outcomes_for_one_lease_the_first_counts(desk: Desk, first: Outcome) -> None:
    other, job = desk.add_one("other"), desk.add_one()
    lease = desk.lease()
    first = Awaiting((other,)) if isinstance(first, Awaiting) else first
    second = SUCCEEDED if isinstance(first, Awaiting) else Awaiting((other,))

    settled = desk.run(desk.engine.settle([settlement(lease, first), settlement(lease, second)]))

    assert settled.lost == [job]
    waits = isinstance(first, Awaiting)
    assert desk.state(job) is (State.BLOCKED if waits else State.SUCCEEDED)
    assert desk.record(job).revision == 3


def test_what_ended_at_once_counts_in_the_pressure_that_its_append_is_told(desk: Desk) -> None:
    failed = desk.finished(FAILED)
    ended, waiting = desk.job(after=after(failed)), desk.job()

    receipts = desk.append(ended, waiting, bounds=Bounds(max_jobs=10))

    assert isinstance(receipts, list)
    assert [receipt.pressure for receipt in receipts] == [0.2, 0.2]
    assert desk.depth().jobs == 1
