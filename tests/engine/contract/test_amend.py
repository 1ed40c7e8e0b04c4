"""amend: what people do to jobs, in each state."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    CRASHED_ALONE,
    FAILED,
    REACHABLE,
    STOPPED,
    SUCCEEDED,
    Desk,
    firsts,
    retry,
    snooze,
)

from backlane.engine.protocol import Tune
from backlane.engine.selection import (
    Amended,
    Cancel,
    Change,
    Delete,
    Move,
    Redrive,
    Reprioritise,
    Selection,
)
from backlane.model.job import Key, Lane, Policy, State
from backlane.model.outcome import Reason
from backlane.model.queue import Bounds, Depth, Kind

WAITING = [State.SCHEDULED, State.READY]
FINISHED = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED]
WELCOME = Key("send", "welcome:7")


def is_skipped(desk: Desk, change: Change, job: bytes) -> bool:
    """Amend, and say whether the job was skipped with a reason and left as it was."""
    before = desk.record(job), desk.queue()
    amended = desk.amend(change, job)
    (skipped,) = amended.skipped
    unchanged = amended == Amended(skipped=[skipped]) and skipped.job == job and skipped.why
    return bool(unchanged) and (desk.record(job), desk.queue()) == before


# -- cancel --


@pytest.mark.parametrize("state", WAITING)
def test_a_waiting_job_is_cancelled_at_once(desk: Desk, state: State) -> None:
    job = desk.in_state(state, key=WELCOME)

    assert desk.amend(Cancel(), job) == Amended(changed=[job])

    record = desk.record(job)
    assert (record.state, record.attempt) == (State.CANCELLED, 0)
    assert record.ended_ms == desk.clock.wall_ms()
    assert (desk.depth(), desk.queue().cancelled) == (Depth(), 1)
    desk.clock.advance(hours=1)
    assert desk.claimed_ids() == []
    desk.add_one(key=WELCOME)


def test_a_running_job_is_asked_to_stop(desk: Desk) -> None:
    job = desk.in_state(State.RUNNING)
    before = desk.record(job).revision

    assert desk.amend(Cancel(), job) == Amended(flagged=[job])

    record = desk.record(job)
    assert (record.state, record.cancelling) == (State.RUNNING, True)
    assert record.revision == before + 1


def test_asking_a_job_to_stop_twice_asks_once(desk: Desk) -> None:
    job = desk.in_state(State.RUNNING)
    desk.amend(Cancel(), job)
    before = desk.record(job)

    assert desk.amend(Cancel(), job) == Amended(flagged=[job])
    assert desk.record(job) == before


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_job_is_not_cancelled(desk: Desk, state: State) -> None:
    assert is_skipped(desk, Cancel(), desk.in_state(state))


# -- redrive --


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED])
def test_a_dead_letter_is_redriven_as_new(desk: Desk, state: State) -> None:
    job = desk.in_state(state)
    desk.clock.advance(hours=1)

    assert desk.amend(Redrive(), job) == Amended(changed=[job])

    record = desk.record(job)
    assert (record.state, record.attempt, record.reason) == (State.READY, 0, None)
    assert (record.ended_ms, record.due_ms) == (None, desk.clock.wall_ms())
    assert (desk.depth().ready, desk.depth().bytes) == (1, record.size)
    assert desk.lease().attempt == 0


def test_a_redriven_job_keeps_its_identity_and_old_errors(desk: Desk) -> None:
    job = desk.add_one(body=b"[7]", headers=b"h", group="acme", priority=7)
    desk.settle(desk.lease(), FAILED)

    desk.amend(Redrive(), job)

    record = desk.record(job)
    assert (record.body, record.headers, record.group) == (b"[7]", b"h", "acme")
    assert (record.priority, record.queue) == (7, "mail")
    assert [kept.attempt for kept in record.errors] == [1]


def test_a_redriven_job_has_all_its_attempts_again(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=2))
    for _ in range(2):
        desk.settle(desk.lease(), retry(0))
    desk.amend(Redrive(), job)

    assert desk.settle(desk.lease(), retry(0)).buried == []
    assert desk.settle(desk.lease(), retry(0)).buried == [job]


def test_a_redriven_job_has_no_crashes(desk: Desk) -> None:
    job = desk.add_one(lane=Lane.EXCLUSIVE)
    for _ in range(3):
        desk.settle(desk.lease(lane=Lane.EXCLUSIVE), CRASHED_ALONE)
    assert desk.record(job).reason is Reason.CRASHED

    desk.amend(Redrive(), job)

    assert desk.lease(lane=None).crashes == 0


def test_a_job_buried_by_a_crash_is_redriven_to_run_alone(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))
    desk.settle(desk.lease(), CRASHED)

    desk.amend(Redrive(), job)

    assert desk.claimed_ids(lane=Lane.SHARED) == []
    assert desk.claimed_ids(lane=Lane.EXCLUSIVE) == [job]


def test_a_redriven_expired_job_can_run(desk: Desk) -> None:
    job = desk.in_state(State.EXPIRED)

    desk.amend(Redrive(), job)

    assert desk.record(job).deadline_ms is None
    assert desk.claimed_ids() == [job]


@pytest.mark.parametrize("outcome", [retry(600), snooze(600)])
def test_a_scheduled_job_is_redriven_to_be_due_now(desk: Desk, outcome) -> None:
    job = desk.add_one()
    desk.settle(desk.lease(), outcome)
    attempt = desk.record(job).attempt

    assert desk.amend(Redrive(), job) == Amended(changed=[job])
    assert desk.record(job).due_ms == desk.clock.wall_ms()
    assert desk.lease().attempt == attempt


@pytest.mark.parametrize("state", [State.READY, State.RUNNING, State.SUCCEEDED])
def test_what_is_to_run_or_has_succeeded_is_not_redriven(desk: Desk, state: State) -> None:
    assert is_skipped(desk, Redrive(), desk.in_state(state))


def test_a_redriven_job_holds_its_key_again(desk: Desk) -> None:
    job = desk.finished(FAILED, key=WELCOME)
    desk.amend(Redrive(), job)
    rival = desk.job(key=WELCOME)

    assert firsts(desk.append(rival)) == [(rival.id, job)]


def test_a_job_whose_key_is_taken_by_now_is_not_redriven(desk: Desk) -> None:
    job = desk.finished(FAILED, key=WELCOME)
    desk.add_one(key=WELCOME)

    assert is_skipped(desk, Redrive(), job)


def test_of_two_dead_letters_with_one_key_one_is_redriven(desk: Desk) -> None:
    jobs = {desk.finished(FAILED, key=WELCOME) for _ in range(2)}

    amended = desk.amend(Redrive(), states=(State.FAILED,))

    assert len(amended.changed) == len(amended.skipped) == 1
    assert {amended.changed[0], amended.skipped[0].job} == jobs


def test_a_redrive_does_not_pass_the_bound(desk: Desk) -> None:
    dead = [desk.finished(FAILED) for _ in range(3)]
    desk.run(desk.engine.tune("mail", Tune(max_jobs=2)))

    amended = desk.amend(Redrive(), states=(State.FAILED,))

    assert len(amended.changed) == 2
    assert [one.job in dead and "full" in one.why for one in amended.skipped] == [True]
    assert desk.depth().jobs == 2


# -- reprioritise --


@pytest.mark.parametrize("state", WAITING)
def test_a_waiting_job_gets_the_new_priority(desk: Desk, state: State) -> None:
    job = desk.in_state(state)

    assert desk.amend(Reprioritise(9), job) == Amended(changed=[job])

    assert (desk.record(job).priority, desk.state(job)) == (9, state)
    rival = desk.add_one(priority=8)
    desk.clock.advance(hours=1)
    assert desk.claimed_ids(1) == [job]
    assert desk.claimed_ids(1) == [rival]


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_job_has_no_priority_to_change(desk: Desk, state: State) -> None:
    assert is_skipped(desk, Reprioritise(9), desk.in_state(state))


# -- delete --


@pytest.mark.parametrize("state", [s for s in REACHABLE if s is not State.RUNNING])
def test_a_job_that_does_not_run_is_forgotten(desk: Desk, state: State) -> None:
    job = desk.in_state(state, key=WELCOME)

    assert desk.amend(Delete(), job) == Amended(changed=[job])

    assert not desk.is_known(job)
    assert desk.depth() == Depth()
    desk.clock.advance(hours=1)
    assert desk.claimed_ids() == []
    desk.add_one(key=WELCOME)


def test_a_running_job_is_not_deleted(desk: Desk) -> None:
    assert is_skipped(desk, Delete(), desk.in_state(State.RUNNING))


def test_a_deleted_job_may_be_sent_again(desk: Desk) -> None:
    job = desk.job()
    desk.append(job)
    desk.settle(desk.lease(), FAILED)
    desk.amend(Delete(), job.id)

    assert firsts(desk.append(job)) == [(job.id, None)]
    assert desk.record(job.id).errors == ()


# -- move --


@pytest.mark.parametrize("state", WAITING)
def test_a_waiting_job_moves_to_another_queue(desk: Desk, state: State) -> None:
    job = desk.in_state(state)

    assert desk.amend(Move("slow"), job) == Amended(changed=[job])

    assert (desk.record(job).queue, desk.state(job)) == ("slow", state)
    assert (desk.depth("mail"), desk.depth("slow").jobs) == (Depth(), 1)
    assert desk.depth("slow").bytes == desk.record(job).size
    desk.clock.advance(hours=1)
    assert desk.claimed_ids(10, "mail") == []
    assert desk.claimed_ids(10, "slow") == [job]


def test_a_move_needs_no_room(desk: Desk) -> None:
    desk.append(desk.job("slow"), declared={"slow": Bounds(max_jobs=1)})
    job = desk.add_one()

    assert desk.amend(Move("slow"), job).changed == [job]
    assert desk.depth("slow").jobs == 2


def test_a_moved_job_keeps_its_place_among_others(desk: Desk) -> None:
    job = desk.add_one()
    desk.clock.advance(seconds=1)
    native = desk.add_one("slow")
    desk.clock.advance(seconds=1)

    desk.amend(Move("slow"), job)

    assert desk.claimed_ids(10, "slow") == [job, native]


def test_a_moved_jobs_end_is_counted_where_it_ended(desk: Desk) -> None:
    job = desk.add_one()
    desk.amend(Move("slow"), job)
    desk.settle(desk.claim(1, "slow").leases[0], SUCCEEDED)

    assert (desk.queue("mail").succeeded, desk.queue("slow").succeeded) == (0, 1)
    assert (desk.depth("mail"), desk.depth("slow")) == (Depth(), Depth())


@pytest.mark.parametrize("state", [State.RUNNING, *FINISHED])
def test_what_runs_or_has_ended_does_not_move(desk: Desk, state: State) -> None:
    assert is_skipped(desk, Move("slow"), desk.in_state(state))


def test_a_task_does_not_move_among_messages(desk: Desk) -> None:
    desk.append(desk.job("orders", task=None), kind=Kind.MESSAGES)

    assert is_skipped(desk, Move("orders"), desk.add_one())


# -- selections --


def test_all_given_fields_of_a_selection_must_hold(desk: Desk) -> None:
    wanted = desk.add_one(task="send", group="acme")
    desk.add_one(task="send", group="other")
    desk.add_one(task="resize", group="acme")

    assert desk.amend(Cancel(), task="send", group="acme").changed == [wanted]


def test_an_unknown_job_is_neither_changed_nor_skipped(desk: Desk) -> None:
    assert desk.amend(Cancel(), desk.job().id) == Amended()


def test_an_amend_changes_a_thousand_a_call_and_goes_on_by_its_cursor(desk: Desk) -> None:
    jobs = set(desk.add(2_200))
    changed: list[bytes] = []
    cursor, calls = None, 0

    while calls == 0 or cursor:
        amended = desk.run(desk.engine.amend(Selection(queue="mail"), Cancel(), cursor))
        assert len(amended.changed) <= 1_000
        changed += amended.changed
        cursor, calls = amended.cursor, calls + 1

    assert calls in (3, 4)
    assert len(changed) == 2_200
    assert set(changed) == jobs
    assert desk.queue().cancelled == 2_200


def test_a_delete_by_cursor_reaches_every_job(desk: Desk) -> None:
    desk.add(1_500)
    cursor = desk.amend(Delete(), queue="mail").cursor
    assert cursor
    desk.run(desk.engine.amend(Selection(queue="mail"), Delete(), cursor))

    assert desk.found_ids(queue="mail") == []


def test_a_mixed_selection_is_changed_as_far_as_it_can_be(desk: Desk) -> None:
    running, ready, done = (
        desk.in_state(state) for state in (State.RUNNING, State.READY, State.SUCCEEDED)
    )

    amended = desk.amend(Cancel(), running, ready, done)

    assert (amended.changed, amended.flagged) == ([ready], [running])
    assert [one.job for one in amended.skipped] == [done]


def test_what_was_skipped_is_told_newest_first_whatever_the_reasons(desk: Desk) -> None:
    done = desk.finished()
    dead = desk.finished(FAILED, key=WELCOME)
    holder = desk.add_one(key=WELCOME)
    failed = desk.finished(FAILED)

    amended = desk.amend(Redrive(), done, holder, dead, failed)

    assert amended.changed == [failed]
    assert [one.job for one in amended.skipped] == [holder, dead, done]


def test_a_cancelled_job_can_be_redriven_and_run(desk: Desk) -> None:
    job = desk.finished(STOPPED)
    desk.amend(Redrive(), job)

    assert desk.settle(desk.lease(), SUCCEEDED).lost == []
    assert desk.state(job) is State.SUCCEEDED
