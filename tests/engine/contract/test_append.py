"""append: all jobs or none, each once."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, STOPPED, SUCCEEDED, Desk, firsts, retry, snooze

from backlane.engine.protocol import Tune
from backlane.engine.selection import Cancel, Delete
from backlane.model.job import Key, Lane, Policy, Refusal, State
from backlane.model.queue import Bounds, Kind, headroom

WELCOME = Key("send", "welcome:7")
PARENT = b"p" * 16


def test_an_appended_job_is_ready_and_keeps_what_it_was_given(desk: Desk) -> None:
    job = desk.job(
        body=b"[7]",
        headers=b"{}",
        priority=8,
        lane=Lane.EXCLUSIVE,
        policy=Policy(attempts=3, soft_ms=500),
        key=WELCOME,
        group="acme",
        parent=PARENT,
    )

    receipts = desk.append(job)

    record = desk.record(job.id)
    assert firsts(receipts) == [(job.id, None)]
    assert (record.state, record.attempt, record.token) == (State.READY, 0, 0)
    assert (record.body, record.headers, record.size) == (b"[7]", b"{}", 5)
    assert (record.queue, record.task, record.priority) == ("mail", "send", 8)
    assert (record.lane, record.policy) == (job.lane, job.policy)
    assert (record.key, record.group, record.parent) == (WELCOME, "acme", job.parent)
    assert record.enqueued_ms == record.due_ms == desk.clock.wall_ms()


def test_a_delayed_job_is_scheduled_for_the_engines_now_plus_its_delay(desk: Desk) -> None:
    job = desk.add_one(delay_ms=60_000)

    record = desk.record(job)
    assert record.state is State.SCHEDULED
    assert record.due_ms == desk.clock.wall_ms() + 60_000


def test_an_expiry_counts_from_the_append(desk: Desk) -> None:
    job = desk.add_one(expires_ms=5_000)

    assert desk.record(job).deadline_ms == desk.clock.wall_ms() + 5_000


def test_an_append_of_nothing_stores_nothing(desk: Desk) -> None:
    assert desk.append() == []
    assert desk.run(desk.engine.list_queues()) == []


def test_jobs_of_several_queues_are_appended_together(desk: Desk) -> None:
    desk.append(desk.job("mail"), desk.job("video"), desk.job("mail"))

    assert (desk.depth("mail").ready, desk.depth("video").ready) == (2, 1)


@pytest.mark.parametrize("number", [1, 1_000, 2_500])
def test_a_large_append_keeps_the_order_it_was_given(desk: Desk, number: int) -> None:
    jobs = desk.add(number)

    assert desk.claimed_ids(number) == jobs


# -- duplicates --


@pytest.mark.parametrize("outcome", [None, SUCCEEDED, FAILED, STOPPED, retry(9), snooze(9)])
def test_an_id_sent_again_is_the_same_job_whatever_became_of_it(desk: Desk, outcome) -> None:
    job = desk.job()
    desk.append(job)
    if outcome:
        desk.settle(desk.lease(), outcome)
    before = desk.record(job.id)

    receipts = desk.append(job)

    assert firsts(receipts) == [(job.id, job.id)]
    assert desk.record(job.id) == before
    assert desk.queue().appended == 1


def test_an_id_twice_in_one_append_is_one_job(desk: Desk) -> None:
    job = desk.job()

    receipts = desk.append(job, job)

    assert firsts(receipts) == [(job.id, None), (job.id, job.id)]
    assert desk.depth().ready == 1


def test_a_taken_key_answers_with_the_job_that_holds_it(desk: Desk) -> None:
    first = desk.add_one(key=WELCOME)
    second = desk.job(key=WELCOME)

    receipts = desk.append(second)

    assert firsts(receipts) == [(second.id, first)]
    assert not desk.is_known(second.id)


def test_a_key_twice_in_one_append_is_one_job(desk: Desk) -> None:
    first, second = desk.job(key=WELCOME), desk.job(key=WELCOME)

    receipts = desk.append(first, second)

    assert firsts(receipts) == [(first.id, None), (second.id, first.id)]


def test_a_key_is_held_across_queues(desk: Desk) -> None:
    first = desk.add_one("mail", key=WELCOME)
    second = desk.job("video", key=WELCOME)

    assert firsts(desk.append(second)) == [(second.id, first)]


def test_equal_names_in_two_scopes_are_two_keys(desk: Desk) -> None:
    desk.add_one(key=Key("send", "7"))
    desk.add_one(key=Key("resize", "7"))

    assert desk.depth().ready == 2


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_a_key_is_free_once_its_job_has_ended(desk: Desk, outcome) -> None:
    first = desk.add_one(key=WELCOME)
    desk.settle(desk.lease(), outcome)

    second = desk.add_one(key=WELCOME)

    assert second != first


@pytest.mark.parametrize("outcome", [retry(60), retry(0), snooze(60)])
def test_a_key_is_held_while_its_job_is_to_run_again(desk: Desk, outcome) -> None:
    first = desk.add_one(key=WELCOME)
    desk.settle(desk.lease(), outcome)
    second = desk.job(key=WELCOME)

    assert firsts(desk.append(second)) == [(second.id, first)]


def test_a_key_is_free_once_its_job_is_deleted(desk: Desk) -> None:
    desk.amend(Delete(), desk.add_one(key=WELCOME))

    desk.add_one(key=WELCOME)


def test_new_jobs_beside_duplicates_are_stored(desk: Desk) -> None:
    known, new = desk.job(), desk.job()
    desk.append(known)

    receipts = desk.append(known, new)

    assert firsts(receipts) == [(known.id, known.id), (new.id, None)]


# -- bounds --


def test_the_bound_by_jobs_is_exact(desk: Desk) -> None:
    bounds = Bounds(max_jobs=3)
    for _ in range(3):
        assert isinstance(desk.append(desk.job(), bounds=bounds), list)

    refusal = desk.append(desk.job(), bounds=bounds)

    assert refusal == Refusal("mail", "jobs", depth=3, bound=3, added=1, jobs=3)
    assert desk.depth().jobs == 3


def test_an_append_that_would_pass_the_bound_stores_none_of_its_jobs(desk: Desk) -> None:
    desk.append(desk.job(), desk.job(), bounds=Bounds(max_jobs=3))

    refusal = desk.append(desk.job("video"), desk.job(), desk.job(), bounds=Bounds(max_jobs=3))

    assert refusal == Refusal("mail", "jobs", depth=2, bound=3, added=2, jobs=2)
    assert desk.depth().jobs == 2
    assert [one.name for one in desk.run(desk.engine.list_queues())] == ["mail"]


def test_the_bound_by_bytes_is_exact_and_counts_headers(desk: Desk) -> None:
    bounds = Bounds(max_bytes=10)
    assert isinstance(desk.append(desk.job(body=b"12345", headers=b"123"), bounds=bounds), list)
    assert isinstance(desk.append(desk.job(body=b"12"), bounds=bounds), list)

    refusal = desk.append(desk.job(body=b"1"), bounds=bounds)

    assert refusal == Refusal("mail", "bytes", depth=10, bound=10, added=1, jobs=2)
    assert isinstance(desk.append(desk.job(body=b""), bounds=bounds), list)


def test_what_an_empty_queue_could_not_take_can_never_fit(desk: Desk) -> None:
    many = desk.append(desk.job(), desk.job(), desk.job(), bounds=Bounds(max_jobs=2))
    large = desk.append(desk.job(body=b"12345"), bounds=Bounds(max_bytes=4))

    assert many == Refusal("mail", "jobs", depth=0, bound=2, added=3, jobs=0, can_fit=False)
    assert large == Refusal("mail", "bytes", depth=0, bound=4, added=5, can_fit=False)
    assert desk.run(desk.engine.list_queues()) == []


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY, State.RUNNING])
def test_jobs_that_are_not_finished_take_room(desk: Desk, state: State) -> None:
    desk.in_state(state)

    assert isinstance(desk.append(desk.job(), bounds=Bounds(max_jobs=1)), Refusal)


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_finished_jobs_take_no_room(desk: Desk, outcome) -> None:
    desk.finished(outcome)

    assert isinstance(desk.append(desk.job(), bounds=Bounds(max_jobs=1)), list)


def test_duplicates_need_no_room(desk: Desk) -> None:
    held, keyed = desk.job(), desk.job(key=WELCOME)
    bounds = Bounds(max_jobs=2, max_bytes=4)
    desk.append(held, keyed, bounds=bounds)

    receipts = desk.append(held, desk.job(key=WELCOME), bounds=bounds)

    assert isinstance(receipts, list)
    assert [receipt.first for receipt in receipts] == [held.id, keyed.id]


def test_work_born_inside_a_job_may_use_headroom_and_no_more(desk: Desk) -> None:
    bounds, parent = Bounds(max_jobs=20), PARENT
    desk.append(*(desk.job() for _ in range(20)), bounds=bounds)
    room = headroom(20)

    children = desk.append(*(desk.job(parent=parent) for _ in range(room)), bounds=bounds)
    one_more = desk.append(desk.job(parent=parent), bounds=bounds)

    assert isinstance(children, list)
    assert one_more == Refusal(
        "mail", "jobs", depth=20 + room, bound=20 + room, added=1, jobs=20 + room
    )


def test_a_job_from_outside_may_not_use_headroom_beside_a_child(desk: Desk) -> None:
    bounds = Bounds(max_jobs=1)
    desk.append(desk.job(), bounds=bounds)

    refusal = desk.append(desk.job(parent=PARENT), desk.job(), bounds=bounds)

    assert isinstance(refusal, Refusal)


def test_headroom_is_of_jobs_and_not_of_bytes(desk: Desk) -> None:
    refusal = desk.append(desk.job(body=b"123", parent=PARENT), bounds=Bounds(max_bytes=2))

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "bytes"


def test_a_tuned_bound_goes_before_the_declared_one(desk: Desk) -> None:
    desk.add()
    desk.run(desk.engine.tune("mail", Tune(max_jobs=1)))

    refusal = desk.append(desk.job(), bounds=Bounds(max_jobs=100))

    assert refusal == Refusal("mail", "jobs", depth=1, bound=1, added=1, jobs=1)


def test_a_queue_that_nobody_declared_has_the_default_bounds(desk: Desk) -> None:
    desk.add()

    assert desk.queue().bounds == Bounds()


def test_each_queue_is_judged_by_its_own_bound(desk: Desk) -> None:
    declared = {"mail": Bounds(max_jobs=1), "video": Bounds(max_jobs=1)}

    both = desk.append(desk.job("mail"), desk.job("video"), declared=declared)

    assert isinstance(both, list)


# -- kinds and stale ids --


def test_the_first_append_fixes_the_kind_of_a_queue(desk: Desk) -> None:
    desk.append(desk.job(task=None), kind=Kind.MESSAGES)

    stray = desk.job()
    refusal = desk.append(stray, kind=Kind.TASKS)

    assert desk.queue().kind is Kind.MESSAGES
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.job, refusal.can_fit) == ("kind", stray.id, False)


def test_an_id_older_than_the_history_is_refused(desk: Desk) -> None:
    """Whether it ran already cannot be told any more, so it must not run."""
    job = desk.job()
    desk.append(job)
    desk.settle(desk.lease(), SUCCEEDED)
    desk.clock.advance(hours=25)
    desk.sweep()

    refusal = desk.append(job)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.job, refusal.can_fit) == ("stale", job.id, False)
    assert not desk.is_known(job.id)


def test_a_stale_id_is_refused_with_all_that_came_along(desk: Desk) -> None:
    stale = desk.job()
    desk.append(stale)
    desk.settle(desk.lease(), SUCCEEDED)
    desk.clock.advance(hours=25)
    desk.sweep()
    fresh = desk.job()

    assert isinstance(desk.append(fresh, stale), Refusal)
    assert not desk.is_known(fresh.id)


def test_a_new_id_is_taken_after_history_was_pruned(desk: Desk) -> None:
    desk.finished()
    desk.clock.advance(hours=25)
    desk.sweep()

    desk.add_one()


def test_an_id_from_a_clock_that_is_ahead_makes_no_other_id_stale(desk: Desk) -> None:
    desk.clock.jump(days=365)
    ahead = desk.new_id()
    desk.clock.jump(days=-365)
    desk.append(desk.job(id=ahead))
    desk.settle(desk.lease(), SUCCEEDED)
    desk.clock.advance(hours=25)
    desk.sweep()
    assert not desk.is_known(ahead)

    desk.add_one()


def test_an_id_made_before_the_clock_was_set_back_makes_no_other_id_stale(desk: Desk) -> None:
    """The job ended at a time before its own id's: its end is what its history reaches to."""
    job = desk.add_one()
    other = desk.job()
    desk.clock.jump(hours=-2)
    desk.amend(Cancel(), job)
    desk.clock.advance(hours=3)
    assert desk.sweep(done_ms=0).pruned == 1

    assert isinstance(desk.append(other), list)
