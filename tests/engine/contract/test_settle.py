"""settle: each outcome, each only under the lease that is current."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import (
    BOOM,
    CRASHED,
    CRASHED_ALONE,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    settlement,
    snooze,
)

from backlane.engine.protocol import Settled
from backlane.engine.selection import Cancel, Delete, Redrive
from backlane.model.job import ERRORS_KEPT, Key, Lane, Policy, State
from backlane.model.outcome import (
    POISON_CAP,
    Cancelled,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Settlement,
    Succeeded,
)
from backlane.model.queue import Depth

OUTCOMES = [
    pytest.param(outcome, id=name)
    for name, outcome in [
        ("succeeded", SUCCEEDED),
        ("retry", retry(60)),
        ("snoozed", snooze(60)),
        ("cancelled", STOPPED),
        ("failed", FAILED),
        ("released", RELEASED),
        ("crashed", CRASHED),
    ]
]


def changes_nothing(desk: Desk, job: bytes, late: Settlement) -> bool:
    """Settle, and say whether it was refused and left everything as it was."""
    before = desk.record(job), desk.queue()
    settled = desk.run(desk.engine.settle([late]))
    return settled == Settled(lost=[job]) and (desk.record(job), desk.queue()) == before


# -- outcomes --


def test_a_success_keeps_its_result(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.clock.advance(seconds=2)

    assert desk.settle(lease, Succeeded(b"42")) == Settled()

    record = desk.record(job)
    assert (record.state, record.result, record.attempt) == (State.SUCCEEDED, b"42", 1)
    assert record.ended_ms == desk.clock.wall_ms()
    assert record.started_ms == desk.clock.wall_ms() - 2_000
    assert record.owner == "ann"
    assert record.due_ms is None


def test_a_success_may_keep_no_result(desk: Desk) -> None:
    assert desk.record(desk.finished(Succeeded(None))).result is None
    assert desk.record(desk.finished(Succeeded(b""))).result == b""


def test_a_retry_is_counted_and_due_after_its_delay(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()

    assert desk.settle(lease, retry(60, "no route")) == Settled()

    record = desk.record(job)
    assert (record.state, record.attempt) == (State.SCHEDULED, 1)
    assert record.due_ms == desk.clock.wall_ms() + 60_000
    (kept,) = record.errors
    assert (kept.attempt, kept.at_ms) == (1, desk.clock.wall_ms())
    assert kept.error.message == "no route"
    assert desk.queue().retried == 1


def test_a_retry_without_delay_is_ready_at_once(desk: Desk) -> None:
    job = desk.add_one()

    desk.settle(desk.lease(), retry(0))

    assert desk.state(job) is State.READY
    assert desk.lease().attempt == 1


def test_a_retry_out_of_attempts_is_buried(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=2))
    desk.settle(desk.lease(), retry(0, "first"))

    settled = desk.settle(desk.lease(), retry(0, "second"))

    record = desk.record(job)
    assert settled == Settled(buried=[job])
    assert (record.state, record.reason, record.attempt) == (State.FAILED, Reason.ATTEMPTS, 2)
    assert [(e.attempt, e.error.message) for e in record.errors] == [(1, "first"), (2, "second")]
    assert desk.queue().retried == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_a_failure_is_buried_with_its_reason_and_error(desk: Desk, reason: Reason) -> None:
    job = desk.add_one()

    settled = desk.settle(desk.lease(), Failed(reason, BOOM))

    record = desk.record(job)
    assert settled == Settled(buried=[job])
    assert (record.state, record.reason, record.attempt) == (State.FAILED, reason, 1)
    assert [kept.error for kept in record.errors] == [BOOM]


def test_an_error_is_kept_as_it_was(desk: Desk) -> None:
    error = ErrorRecord("app.Broken", "naïve \x00 '; drop table", "Traceback…\n  line\n", "f00d")
    job = desk.finished(Failed(Reason.ERROR, error))

    assert desk.record(job).errors[0].error == error


def test_a_snooze_counts_nothing(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))

    for _ in range(5):
        desk.settle(desk.lease(), snooze(30))
        desk.clock.advance(seconds=30)

    record = desk.record(job)
    assert (record.state, record.attempt, record.errors) == (State.SCHEDULED, 0, ())
    assert desk.lease().attempt == 0
    assert desk.queue().retried == 0


def test_a_release_counts_nothing(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))

    for _ in range(5):
        desk.settle(desk.lease(), RELEASED)

    assert (desk.state(job), desk.record(job).attempt) == (State.READY, 0)


def test_a_stopped_job_is_cancelled(desk: Desk) -> None:
    job = desk.finished(Cancelled(BOOM))

    record = desk.record(job)
    assert (record.state, record.reason) == (State.CANCELLED, None)
    assert [kept.error for kept in record.errors] == [BOOM]


def test_only_the_newest_errors_are_kept(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1_000))
    runs = ERRORS_KEPT + 5

    for i in range(runs):
        desk.settle(desk.lease(), retry(0, f"error {i + 1}"))

    errors = desk.record(job).errors
    assert [kept.attempt for kept in errors] == list(range(runs - ERRORS_KEPT + 1, runs + 1))
    assert errors[-1].error.message == f"error {runs}"


# -- crashes --


def test_a_crash_is_counted_and_sends_the_job_to_run_alone(desk: Desk) -> None:
    job = desk.add_one()

    settled = desk.settle(desk.lease(), CRASHED)

    record = desk.record(job)
    assert settled == Settled()
    assert (record.state, record.attempt, record.lane) == (State.READY, 1, Lane.EXCLUSIVE)
    assert [kept.error for kept in record.errors] == [BOOM]
    assert desk.claimed_ids(lane=Lane.SHARED) == []
    lease = desk.lease(lane=Lane.EXCLUSIVE)
    assert (lease.attempt, lease.crashes, lease.lane) == (1, 0, Lane.EXCLUSIVE)


def test_a_crash_among_others_never_buries_before_attempts_end(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=10))

    for _ in range(9):
        assert desk.settle(desk.lease(lane=None), CRASHED) == Settled()

    assert desk.settle(desk.lease(lane=None), CRASHED) == Settled(buried=[job])


def test_crashes_alone_bury_at_the_poison_cap(desk: Desk) -> None:
    job = desk.add_one(lane=Lane.EXCLUSIVE)
    for crashes in range(POISON_CAP - 1):
        lease = desk.lease(lane=Lane.EXCLUSIVE)
        assert lease.crashes == crashes
        assert desk.settle(lease, CRASHED_ALONE) == Settled()

    settled = desk.settle(desk.lease(lane=Lane.EXCLUSIVE), CRASHED_ALONE)

    record = desk.record(job)
    assert settled == Settled(buried=[job])
    assert (record.reason, record.attempt) == (Reason.CRASHED, POISON_CAP)


def test_a_crash_of_the_last_attempt_buries(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))

    assert desk.settle(desk.lease(), CRASHED) == Settled(buried=[job])
    assert desk.record(job).reason is Reason.CRASHED


# -- fencing --


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_under_a_lease_given_anew_changes_nothing(desk: Desk, outcome: Outcome) -> None:
    job = desk.add_one()
    late = desk.lose()
    desk.lease(owner="bob")

    assert changes_nothing(desk, job, settlement(late, outcome))


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("first", OUTCOMES)
def test_a_second_outcome_of_a_lease_changes_nothing(
    desk: Desk, first: Outcome, outcome: Outcome
) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.settle(lease, first)

    assert changes_nothing(desk, job, settlement(lease, outcome))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_of_a_lapsed_and_recovered_job_changes_nothing(
    desk: Desk, outcome: Outcome
) -> None:
    job = desk.add_one()
    late = desk.lose()
    desk.sweep()

    assert changes_nothing(desk, job, settlement(late, outcome))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_token_that_was_never_given_changes_nothing(desk: Desk, outcome: Outcome) -> None:
    job = desk.add_one()
    lease = desk.lease()

    assert changes_nothing(desk, job, Settlement(job, lease.token + 1, outcome))
    assert changes_nothing(desk, job, Settlement(job, 0, outcome))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_unknown_or_deleted_job_is_lost(desk: Desk, outcome: Outcome) -> None:
    stranger = desk.job().id
    deleted = desk.add_one()
    lease = desk.lease()
    desk.settle(lease, SUCCEEDED)
    desk.amend(Delete(), deleted)

    settled = desk.run(
        desk.engine.settle([Settlement(stranger, 1, outcome), settlement(lease, outcome)])
    )

    assert settled == Settled(lost=[stranger, deleted])


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_lease_that_lapsed_by_time_alone_still_counts(desk: Desk, outcome: Outcome) -> None:
    """Nobody has the job yet, so what the late worker says is true and settles it."""
    job = desk.add_one()
    late = desk.lose()
    before = desk.record(job).revision

    assert desk.settle(late, outcome).lost == []
    assert desk.record(job).revision > before
    assert desk.state(job) is not State.RUNNING


def test_an_outcome_twice_in_one_settle_counts_once(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()

    settled = desk.run(
        desk.engine.settle([settlement(lease, Succeeded(b"1")), settlement(lease, Succeeded(b"2"))])
    )

    assert settled == Settled(lost=[job])
    assert desk.record(job).result == b"1"
    assert desk.queue().succeeded == 1


def test_one_lost_lease_keeps_no_other_from_being_settled(desk: Desk) -> None:
    desk.add(3)
    first, second, third = desk.claim(3).leases
    desk.settle(second, SUCCEEDED)

    settled = desk.run(
        desk.engine.settle([settlement(lease, SUCCEEDED) for lease in (first, second, third)])
    )

    assert settled == Settled(lost=[second.job])
    assert desk.queue().succeeded == 3


def test_tokens_are_not_repeated_after_a_redrive(desk: Desk) -> None:
    job = desk.add_one()
    old = desk.lease()
    desk.settle(old, FAILED)
    desk.amend(Redrive(), job)

    again = desk.lease()

    assert again.token > old.token
    assert changes_nothing(desk, job, settlement(old, SUCCEEDED))


# -- asked to stop --


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [(retry(60), 1), (retry(0), 1), (snooze(60), 0), (STOPPED, 0), (RELEASED, 0), (CRASHED, 1)],
)
def test_a_job_asked_to_stop_never_runs_again(desk: Desk, outcome: Outcome, attempt: int) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)

    assert desk.settle(lease, outcome) == Settled()

    record = desk.record(job)
    assert (record.state, record.attempt) == (State.CANCELLED, attempt)
    assert not record.cancelling
    assert desk.queue().retried == 0


def test_a_job_that_finished_before_it_stopped_has_succeeded(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)

    desk.settle(lease, Succeeded(b"42"))

    assert (desk.state(job), desk.record(job).result) == (State.SUCCEEDED, b"42")


def test_a_job_that_failed_before_it_stopped_has_failed(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)

    desk.settle(lease, FAILED)

    assert (desk.state(job), desk.record(job).reason) == (State.FAILED, Reason.ERROR)


def test_a_stopped_retry_out_of_attempts_is_cancelled(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))
    lease = desk.lease()
    desk.amend(Cancel(), job)

    assert desk.settle(lease, retry(0)) == Settled()
    assert desk.state(job) is State.CANCELLED


# -- parked --


def test_a_parked_job_knows_how_long_no_worker_knew_its_task(desk: Desk) -> None:
    desk.add()
    desk.settle(desk.lease(), snooze(60, parked=True))
    desk.clock.advance(seconds=60)
    second = desk.lease()
    desk.settle(second, snooze(120, parked=True))
    desk.clock.advance(seconds=120)

    assert (second.parked_ms, desk.lease().parked_ms) == (60_000, 180_000)


@pytest.mark.parametrize("outcome", [retry(0), snooze(0), CRASHED])
def test_a_worker_that_knows_the_task_ends_the_parking(desk: Desk, outcome: Outcome) -> None:
    desk.add()
    desk.settle(desk.lease(), snooze(60, parked=True))
    desk.clock.advance(seconds=60)
    desk.settle(desk.lease(), outcome)

    assert desk.lease(lane=None).parked_ms is None


def test_a_release_leaves_the_parking_as_it_was(desk: Desk) -> None:
    desk.add()
    desk.settle(desk.lease(), snooze(60, parked=True))
    desk.clock.advance(seconds=60)
    desk.settle(desk.lease(), RELEASED)

    assert desk.lease().parked_ms == 60_000


# -- room, keys, counters --


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_an_ended_job_gives_its_room_back(desk: Desk, outcome: Outcome) -> None:
    desk.add(body=b"12345", headers=b"67")

    desk.settle(desk.lease(), outcome)

    assert desk.depth() == Depth()


@pytest.mark.parametrize("outcome", [retry(60), snooze(60), RELEASED, CRASHED])
def test_a_job_that_runs_again_keeps_its_room(desk: Desk, outcome: Outcome) -> None:
    desk.add(body=b"12345", headers=b"67")

    desk.settle(desk.lease(), outcome)

    assert (desk.depth().jobs, desk.depth().bytes) == (1, 7)


def test_ends_are_counted_by_kind(desk: Desk) -> None:
    for outcome in (SUCCEEDED, SUCCEEDED, FAILED, STOPPED):
        desk.finished(outcome)

    queue = desk.queue()
    assert (queue.succeeded, queue.failed, queue.cancelled) == (2, 1, 1)
    assert queue.appended == 4


def test_the_holder_of_a_key_frees_no_other_holders_key(desk: Desk) -> None:
    """The first job is long done; what happens to it later must not free the key."""
    key = Key("send", "7")
    first = desk.add_one(key=key)
    desk.settle(desk.lease(), SUCCEEDED)
    second = desk.add_one(key=key)

    desk.amend(Delete(), first)

    third = desk.job(key=key)
    assert [receipt.first for receipt in desk.append(third)] == [second]


def test_a_large_settle_settles_all(desk: Desk) -> None:
    desk.add(1_000)
    leases = desk.claim(1_000).leases

    settled = desk.run(desk.engine.settle([settlement(one, Succeeded(b"1")) for one in leases]))

    assert settled == Settled()
    assert (desk.queue().succeeded, desk.depth()) == (1_000, Depth())
