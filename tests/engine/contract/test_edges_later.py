"""Edges and all else: fences, delays, bounds, changes by hand, history, bells, limits."""

from __future__ import annotations

import uuid

from tests.engine.contract.desk import (
    FAILED,
    SUCCEEDED,
    Desk,
)
from tests.engine.contract.tying import ON_FAILURE, after, end, took

from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.job import (
    Key,
    Refusal,
    State,
)
from backlane.model.limit import Limit, Use
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

# -- fencing --


def test_a_late_settle_follows_no_edge(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first))
    old = desk.lose()
    new = desk.lease(owner="bob")

    late = desk.settle(old, SUCCEEDED)
    state = desk.state(second)
    desk.settle(new, FAILED)

    assert late.lost == [first]
    assert state is State.BLOCKED
    assert desk.state(second) is State.CANCELLED


def test_a_settle_sent_again_follows_nothing_again(desk: Desk) -> None:
    first, other = desk.add(2)
    second = desk.add_one("video", after=after(first, other))
    leases = desk.claim().leases
    one = next(lease for lease in leases if lease.job == first)

    desk.settle(one, SUCCEEDED)
    again = desk.settle(one, SUCCEEDED)

    assert again.lost == [first]
    assert desk.record(second).waits_for == 1


# -- delays, places, deadlines --


def test_a_delay_counts_from_the_append_on(desk: Desk) -> None:
    first = desk.add_one()
    soon = desk.add_one("video", after=after(first), delay_ms=5_000)
    late = desk.add_one("video", after=after(first), delay_ms=60_000)
    due = desk.clock.wall_ms() + 60_000
    desk.clock.advance(seconds=10)

    states = desk.states([soon, late])
    end(desk, first)

    assert states == [State.BLOCKED, State.BLOCKED]
    assert desk.states([soon, late]) == [State.READY, State.SCHEDULED]
    assert desk.record(late).due_ms == due
    desk.clock.advance(seconds=50)
    assert desk.claimed_ids(10, "video") == [soon, late]


def test_who_waited_has_the_place_of_his_append(desk: Desk) -> None:
    first = desk.add_one("video")
    waited = desk.add_one(after=after(first))
    enqueued = desk.record(waited).enqueued_ms
    desk.clock.advance(seconds=1)
    later = desk.add_one()
    urgent = desk.add_one(priority=9)

    end(desk, first, queue="video")

    assert desk.record(waited).due_ms == enqueued
    assert desk.claimed_ids() == [urgent, waited, later]


def test_a_receipt_says_when_a_blocked_job_is_due_and_foretells_nothing(desk: Desk) -> None:
    first = desk.add_one()
    now = desk.clock.wall_ms()
    pace = Pace(starts=(1.0,) * 10, slots=1, service_ms=1_000.0)
    jobs = [desk.job(after=after(first), delay_ms=5_000), desk.job(after=after(first)), desk.job()]

    answer = desk.append(*jobs, pace=pace)

    assert isinstance(answer, list)
    assert [receipt.due_ms for receipt in answer] == [now + 5_000, now, now]
    assert [receipt.expected_ms for receipt in answer] == [None, None, 2_000]


def test_a_blocked_job_expires(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first), expires_ms=60_000)
    third = desk.add_one("video", after=after(second))
    desk.clock.advance(seconds=61)

    desk.sweep()
    end(desk, first)

    assert desk.states([second, third]) == [State.EXPIRED, State.CANCELLED]
    assert desk.record(second).errors == ()


def test_a_job_past_its_deadline_when_it_is_unblocked_never_runs(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first), expires_ms=60_000)
    desk.clock.advance(seconds=61)

    end(desk, first)
    claimed = desk.claimed_ids(1, "video")

    assert claimed == []
    assert desk.state(second) is State.EXPIRED


def test_blocked_jobs_do_not_age(desk: Desk) -> None:
    first = desk.add_one("video")
    waited = desk.add_one(after=after(first), priority=1)
    desk.clock.advance(minutes=20)
    desk.sweep()
    end(desk, first, queue="video")
    higher = desk.add_one(priority=2)

    assert desk.claimed_ids() == [higher, waited]


# -- bounds --


def test_blocked_jobs_count_against_the_bound(desk: Desk) -> None:
    first = desk.add_one("video")
    desk.add(2, after=after(first))

    refusal = desk.append(desk.job(), bounds=Bounds(max_jobs=2))

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth, refusal.jobs) == ("jobs", 2, 2)


def test_a_cancelled_waiter_gives_its_place_back(desk: Desk) -> None:
    first = desk.add_one("video")
    desk.add(2, after=after(first))

    end(desk, first, FAILED, queue="video")

    assert isinstance(desk.append(desk.job(), bounds=Bounds(max_jobs=1)), list)


def test_a_skipped_job_frees_its_key(desk: Desk) -> None:
    first = desk.add_one()
    key = Key("send", "welcome")
    waiting = desk.add_one(after=after(first), key=key)
    held = desk.append(desk.job(key=key))

    end(desk, first, FAILED)

    assert isinstance(held, list)
    assert held[0].first == waiting
    assert isinstance(desk.append(desk.job(key=key)), list)
    assert desk.depth().ready == 1


# -- amend --


def test_a_blocked_job_can_be_cancelled_by_hand(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first))
    third = desk.add_one("video", after=after(second))

    amended = desk.amend(Cancel(), second)
    end(desk, first)

    assert amended.changed == [second]
    assert desk.states([second, third]) == [State.CANCELLED, State.CANCELLED]
    assert desk.record(second).errors == ()


def test_a_cancel_of_both_changes_each_as_if_it_were_alone(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))

    amended = desk.amend(Cancel(), first, second)

    assert desk.states([first, second]) == [State.CANCELLED, State.CANCELLED]
    assert sorted(amended.changed) == sorted([first, second])
    assert desk.record(second).errors == ()  # it was selected itself


def test_a_blocked_job_can_be_deleted(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first))

    desk.amend(Delete(), second)
    end(desk, first)

    assert not desk.is_known(second)
    assert desk.depth("video").jobs == 0


def test_a_blocked_job_waits_on_in_another_queue(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))

    desk.amend(Move("video"), second)
    record = desk.record(second)
    end(desk, first)

    assert (record.queue, record.state, record.waits_for) == ("video", State.BLOCKED, 1)
    assert desk.claimed_ids(1, "video") == [second]


def test_a_blocked_job_takes_another_priority(desk: Desk) -> None:
    first = desk.add_one("video")
    second = desk.add_one(after=after(first))
    other = desk.add_one()

    desk.amend(Reprioritise(9), second)
    state = desk.state(second)
    desk.amend(Reprioritise(1), other)
    end(desk, first, queue="video")

    assert state is State.BLOCKED
    assert desk.claimed_ids() == [second, other]


def test_a_job_whose_edge_failed_is_not_redriven_before_the_other_is(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))
    end(desk, first, FAILED)

    too_soon = desk.amend(Redrive(), second)
    desk.amend(Redrive(), first)
    in_order = desk.amend(Redrive(), second)

    told = f"job {uuid.UUID(bytes=first)}, which it waits for, ended as failed"
    assert [(skip.job, skip.why) for skip in too_soon.skipped] == [(second, told)]
    assert in_order.changed == [second]
    record = desk.record(second)
    assert (record.state, record.waits_for) == (State.BLOCKED, 1)
    end(desk, first)
    assert desk.claimed_ids() == [second]


def test_a_redrive_is_judged_by_what_was_before_it(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))
    end(desk, first, FAILED)

    amended = desk.amend(Redrive(), first, second)

    assert amended.changed == [first]
    assert [skip.job for skip in amended.skipped] == [second]
    assert desk.states([first, second]) == [State.READY, State.CANCELLED]


def test_a_graph_is_redriven_level_by_level(desk: Desk) -> None:
    top = desk.job()
    left, right = desk.job(after=after(top)), desk.job(after=after(top))
    bottom = desk.job(after=after(left, right))
    took(desk.append(top, left, right, bottom))
    end(desk, top.id)
    end(desk, left.id, FAILED)
    end(desk, right.id)
    assert desk.state(bottom.id) is State.CANCELLED

    assert desk.amend(Redrive(), left.id).changed == [left.id]
    assert desk.amend(Redrive(), bottom.id).changed == [bottom.id]
    waits_for = desk.record(bottom.id).waits_for
    end(desk, left.id)
    end(desk, bottom.id)

    assert waits_for == 1  # the right side is done
    assert desk.state(bottom.id) is State.SUCCEEDED


def test_a_redriven_job_does_not_wait_for_what_is_not_known_any_more(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))
    end(desk, first)
    end(desk, second, FAILED)
    desk.amend(Delete(), first)

    desk.amend(Redrive(), second)

    assert desk.state(second) is State.READY


def test_a_redriven_job_is_followed_once_more(desk: Desk) -> None:
    first = desk.add_one()
    rescue = desk.add_one("video", after=after(first, when=ON_FAILURE))
    end(desk, first, FAILED)

    desk.amend(Redrive(), first)
    late = desk.add_one("video", after=after(first))
    end(desk, first)

    assert desk.state(rescue) is State.READY  # what was decided stays so
    assert desk.state(late) is State.READY


# -- retention --


def test_what_a_job_waits_for_or_waited_for_is_not_pruned(desk: Desk) -> None:
    done, running = desk.finished(), desk.add_one(priority=9)
    lease = desk.lease()
    waiting = desk.add_one("video", after=after(done, running))
    unneeded = desk.finished()
    desk.clock.advance(seconds=20)
    desk.run(desk.engine.extend([(running, lease.token)], 40 * 24 * 3_600_000))
    desk.clock.advance(hours=25)

    desk.sweep()
    while_it_waits = [desk.is_known(job) for job in (done, unneeded)]
    desk.settle(lease, SUCCEEDED)
    desk.clock.advance(hours=25)
    desk.sweep()
    while_it_is_ready = [desk.is_known(job) for job in (done, running)]
    end(desk, waiting, queue="video")
    desk.sweep()

    assert while_it_waits == [True, False]
    assert while_it_is_ready == [True, True]
    assert [desk.is_known(job) for job in (done, running, waiting)] == [False, False, True]


def test_what_a_cancelled_job_waited_for_is_pruned(desk: Desk) -> None:
    done = desk.finished()
    blocker = desk.add_one()
    waiting = desk.add_one("video", after=after(done, blocker))
    desk.clock.advance(hours=25)

    desk.amend(Cancel(), waiting)
    desk.sweep()

    assert not desk.is_known(done)


def test_what_a_redriven_job_waited_for_is_kept_again(desk: Desk) -> None:
    done = desk.finished()
    waiting = desk.add_one(after=after(done))
    end(desk, waiting, FAILED)
    desk.amend(Redrive(), waiting)
    desk.clock.advance(hours=25)

    desk.sweep()

    assert desk.is_known(done)


# -- bells --


def quiet(bell) -> None:
    while bell.heard(0):
        pass


def test_a_job_that_is_unblocked_rings_its_queue_and_its_watchers(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first))
    lease = desk.lease()
    bell, watch = desk.engine.listen(["video"]), desk.engine.watch([second])
    quiet(bell)
    quiet(watch)

    desk.settle(lease, SUCCEEDED)

    assert bell.heard(5)
    assert watch.heard(5)
    bell.close()
    watch.close()


def test_a_job_that_is_skipped_rings_its_watchers(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one("video", after=after(first))
    third = desk.add_one("video", after=after(second))
    lease = desk.lease()
    watch = desk.engine.watch([third])
    quiet(watch)

    desk.settle(lease, FAILED)

    assert watch.heard(5)
    watch.close()


# -- to be found by --


def test_jobs_are_found_by_their_workflow(desk: Desk) -> None:
    flow, other = desk.new_id(), desk.new_id()
    first = desk.add_one(workflow=flow)
    second = desk.add_one("video", workflow=flow, after=after(first))
    desk.add_one(workflow=other)
    desk.add_one()
    end(desk, first)

    assert desk.found_ids(workflow=flow) == [second, first]
    assert desk.found_ids(workflow=flow, states=(State.SUCCEEDED,)) == [first]
    assert desk.found_ids(workflow=desk.new_id()) == []
    assert desk.record(second).workflow == flow


def test_a_whole_workflow_is_cancelled_by_its_id(desk: Desk) -> None:
    flow = desk.new_id()
    first = desk.job(workflow=flow)
    jobs = [first, *(desk.job(workflow=flow, after=after(first)) for _ in range(5))]
    took(desk.append(*jobs))
    outside = desk.add_one()

    desk.amend(Cancel(), workflow=flow)

    assert set(desk.states([job.id for job in jobs])) == {State.CANCELLED}
    assert desk.state(outside) is State.READY


# -- with limits --


def test_a_job_whose_wait_is_over_waits_for_a_limit_next(desk: Desk) -> None:
    stripe = (Use("stripe"),)
    desk.limits = {"stripe": Limit(concurrency=1)}
    first, holder = desk.add_one(), desk.job("video", uses=stripe)
    second = desk.job("video", uses=stripe, after=after(first))
    took(desk.append(holder, second))
    (lease,) = desk.claim(5, "video").leases
    before = desk.record(second.id)

    end(desk, first)
    record = desk.record(second.id)
    claimed = desk.claimed_ids(5, "video")
    desk.settle(lease, SUCCEEDED)

    assert lease.job == holder.id
    assert (before.waits_for, before.blocked_on) == (1, None)
    assert (record.state, record.waits_for, record.blocked_on) == (State.BLOCKED, 0, "stripe")
    assert claimed == []
    assert desk.claimed_ids(5, "video") == [second.id]


def test_a_job_that_waits_for_others_takes_no_room_of_a_limit(desk: Desk) -> None:
    stripe = (Use("stripe"),)
    desk.limits = {"stripe": Limit(concurrency=1)}
    first = desk.add_one()
    waits = desk.job("video", uses=stripe, after=after(first))
    free = desk.job("video", uses=stripe)

    took(desk.append(waits, free))

    assert desk.states([waits.id, free.id]) == [State.BLOCKED, State.READY]
    assert desk.claimed_ids(5, "video") == [free.id]


def test_a_skipped_job_lets_the_next_of_its_limit_run(desk: Desk) -> None:
    turn = (Use("order", "ann", turn=True),)
    first = desk.add_one()
    vain = desk.job("video", uses=turn, after=after(first))
    later = desk.job("video", uses=turn)
    took(desk.append(vain, later))

    end(desk, first, FAILED)

    assert desk.state(vain.id) is State.CANCELLED
    assert desk.claimed_ids(5, "video") == [later.id]
