"""note and recall: steps of a running job, kept across its attempts."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import dumped, restore, wire
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

from backlane.engine.memory import MemoryEngine
from backlane.engine.selection import Cancel, Delete, Move, Redrive
from backlane.model.clock import FakeClock
from backlane.model.job import Lane, Lease, Note, Progress, State, Step

CHARGE = Step("charge", b"\x01")
MAIL = Step("mail", b"\x02")


def keep(desk: Desk, lease: Lease, *steps: Step) -> list[bytes]:
    return desk.run(desk.engine.note([Note(lease.job, lease.token, steps=steps)]))


def recalled(desk: Desk, job: bytes) -> list[Step]:
    return desk.run(desk.engine.recall(job))


def test_a_step_is_recalled(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()

    lost = keep(desk, lease, CHARGE)

    assert lost == []
    assert recalled(desk, job) == [CHARGE]


def test_a_job_without_steps_has_none(desk: Desk) -> None:
    job = desk.add_one()

    assert recalled(desk, job) == []
    assert recalled(desk, desk.new_id()) == []


def test_steps_come_in_the_order_of_their_first_note(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()

    keep(desk, lease, MAIL, CHARGE)
    keep(desk, lease, Step("a", b"\x03"))
    keep(desk, lease, Step("mail", b"\x04"))

    assert recalled(desk, job) == [Step("mail", b"\x04"), CHARGE, Step("a", b"\x03")]


def test_one_name_twice_in_a_note_counts_last(desk: Desk) -> None:
    job = desk.add_one()

    keep(desk, desk.lease(), CHARGE, Step("charge", b"\x09"))

    assert recalled(desk, job) == [Step("charge", b"\x09")]


def test_a_step_is_a_change_of_its_job(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    before = desk.record(job)
    bell = desk.engine.watch([job])
    while bell.heard(0):
        pass

    keep(desk, lease, CHARGE)

    assert desk.record(job).revision == before.revision + 1
    assert bell.heard(5)
    bell.close()


def test_a_note_of_steps_leaves_the_progress_as_it_was(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    half = Progress(0.5, "half")
    desk.run(desk.engine.note([Note(job, lease.token, half)]))

    keep(desk, lease, CHARGE)

    assert desk.record(job).progress == half


def test_a_note_of_progress_leaves_the_steps_as_they_were(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)

    desk.run(desk.engine.note([Note(job, lease.token, Progress(0.5))]))

    assert recalled(desk, job) == [CHARGE]


def test_one_note_may_bring_both(desk: Desk) -> None:
    job = desk.add_one()
    token = desk.lease().token

    desk.run(desk.engine.note([Note(job, token, Progress(0.5), (CHARGE, MAIL))]))

    assert desk.record(job).progress == Progress(0.5)
    assert recalled(desk, job) == [CHARGE, MAIL]


def test_a_step_under_an_old_lease_is_refused(desk: Desk) -> None:
    job = desk.add_one()
    old = desk.lose()
    new = desk.lease(owner="bob")
    keep(desk, new, CHARGE)

    lost = keep(desk, old, MAIL, Step("charge", b"late"))

    assert lost == [job]
    assert recalled(desk, job) == [CHARGE]


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, RELEASED, STOPPED, retry(0)])
def test_a_step_after_the_end_of_the_attempt_is_refused(desk: Desk, outcome) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.settle(lease, outcome)

    assert keep(desk, lease, CHARGE) == [job]
    assert recalled(desk, job) == []


def test_steps_of_several_jobs_in_one_call(desk: Desk) -> None:
    first, second, third = desk.add(3)
    one, two, three = desk.claim(3).leases
    desk.settle(two, SUCCEEDED)
    notes = [Note(it.job, it.token, steps=(Step("n", it.job),)) for it in (one, two, three)]

    lost = desk.run(desk.engine.note(notes))

    assert lost == [second]
    assert recalled(desk, first) == [Step("n", first)]
    assert recalled(desk, second) == []
    assert recalled(desk, third) == [Step("n", third)]


@pytest.mark.parametrize(
    "outcome",
    [retry(0), retry(60), snooze(60), RELEASED, CRASHED, SUCCEEDED, FAILED, STOPPED],
    ids=lambda outcome: type(outcome).__name__,
)
def test_steps_stay_however_the_attempt_ends(desk: Desk, outcome) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE, MAIL)

    desk.settle(lease, outcome)

    assert recalled(desk, job) == [CHARGE, MAIL]


def test_steps_stay_when_the_lease_lapses(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.clock.advance(seconds=31)

    again = desk.lease()

    assert again.token == lease.token + 1
    assert recalled(desk, job) == [CHARGE]


def test_the_next_attempt_adds_to_the_steps(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.settle(lease, retry(0))

    keep(desk, desk.lease(), MAIL)

    assert recalled(desk, job) == [CHARGE, MAIL]


def test_steps_stay_through_a_redrive(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.settle(lease, FAILED)

    desk.amend(Redrive(), job)

    assert desk.state(job) is State.READY
    assert recalled(desk, job) == [CHARGE]


def test_steps_stay_with_a_job_that_moves_to_another_queue(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.settle(lease, RELEASED)

    desk.amend(Move("video"), job)

    assert recalled(desk, job) == [CHARGE]


def test_a_job_asked_to_stop_may_still_keep_a_step(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)

    assert keep(desk, lease, CHARGE) == []
    assert recalled(desk, job) == [CHARGE]


def test_steps_go_with_their_job_when_it_is_deleted(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.settle(lease, SUCCEEDED)

    desk.amend(Delete(), job)

    assert recalled(desk, job) == []


def test_steps_go_with_their_job_when_it_is_pruned(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, CHARGE)
    desk.settle(lease, SUCCEEDED)
    desk.clock.advance(hours=25)

    desk.sweep()

    assert not desk.is_known(job)
    assert recalled(desk, job) == []


def test_large_and_odd_steps_come_back_as_they_were(desk: Desk) -> None:
    job = desk.add_one(lane=Lane.SHARED)
    lease = desk.lease()
    steps = [Step("é ü '\" \\ \n", bytes(range(256))), Step("large", b"x" * 1_000_000)]
    many = [Step(f"step {n}", b"%d" % n) for n in range(300)]

    keep(desk, lease, *steps, *many)

    assert recalled(desk, job) == [*steps, *many]


def test_a_job_is_dumped_and_restored_with_its_steps(desk: Desk, clock: FakeClock) -> None:
    job = desk.add_one()
    lease = desk.lease()
    keep(desk, lease, MAIL, CHARGE)
    desk.settle(lease, RELEASED)
    other = Desk(MemoryEngine(clock), clock, first=1_000)

    (whole,) = dumped(desk)
    restore(other, [wire(whole)])
    (back,) = dumped(other)
    desk.amend(Delete(), job)
    restore(desk, [back])

    assert whole.steps == (MAIL, CHARGE)
    assert recalled(other, job) == [MAIL, CHARGE]
    assert recalled(desk, job) == [MAIL, CHARGE]
