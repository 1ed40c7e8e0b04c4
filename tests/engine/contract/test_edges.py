"""after: a job waits, blocked, for others to end; how they end decides what becomes of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.engine.contract.desk import (
    CRASHED_ALONE,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    firsts,
    retry,
    settlement,
    snooze,
)
from tests.engine.contract.tying import ENDED, ON_FAILURE, after, end, skipped, took

from backlane.engine.protocol import Wanted
from backlane.engine.selection import Cancel, Delete
from backlane.model.job import (
    FINAL,
    AttemptError,
    Key,
    Lease,
    Policy,
    Refusal,
    State,
    When,
)
from backlane.model.outcome import Outcome, Succeeded

# -- append --


def test_a_job_waits_blocked_for_another(desk: Desk) -> None:
    first = desk.add_one()

    second = desk.add_one(after=after(first))

    record = desk.record(second)
    assert (record.state, record.waits_for, record.blocked_on) == (State.BLOCKED, 1, None)
    assert record.after == after(first)
    assert record.revision == 1
    assert desk.depth().blocked == 1
    assert desk.claimed_ids() == [first]


def test_a_blocked_job_is_ready_once_the_other_succeeded(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))

    end(desk, first)

    record = desk.record(second)
    assert (record.state, record.waits_for, record.revision) == (State.READY, 0, 2)
    assert record.after == after(first)
    assert desk.depth().blocked == 0
    assert desk.claimed_ids() == [second]


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "the other way round"])
def test_jobs_of_one_append_wait_for_each_other(desk: Desk, order: int) -> None:
    first = desk.job()
    second = desk.job(after=after(first))
    third = desk.job(after=after(second))

    took(desk.append(*[first, second, third][::order]))

    assert desk.states([first.id, second.id, third.id]) == [
        State.READY,
        State.BLOCKED,
        State.BLOCKED,
    ]
    for job in (first, second, third):
        assert desk.claimed_ids(ids=(job.id,), owner="bob") == [job.id]
        (lease,) = [Lease(job.id, desk.record(job.id).token, 0, "mail", "send", b"")]
        desk.settle(lease, SUCCEEDED)
    assert desk.state(third.id) is State.SUCCEEDED


def test_an_edge_to_an_unknown_job_is_refused_and_nothing_is_stored(desk: Desk) -> None:
    known, stranger = desk.add_one(), desk.new_id()
    fine, wrong = desk.job(), desk.job("video", after=after(known, stranger))

    refusal = desk.append(fine, wrong)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.queue, refusal.job) == ("after", "video", wrong.id)
    assert not refusal.can_fit
    assert not desk.is_known(fine.id)
    assert not desk.is_known(wrong.id)


def test_an_edge_to_oneself_is_refused(desk: Desk) -> None:
    job = desk.new_id()

    refusal = desk.append(desk.job(id=job, after=after(job)))

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.job) == ("after", job)


@pytest.mark.parametrize("length", [2, 3, 40])
def test_jobs_that_wait_for_each_other_in_a_circle_are_refused(desk: Desk, length: int) -> None:
    fine, known = desk.job(), desk.add_one()
    ids = [desk.new_id() for _ in range(length)]
    circle = [
        desk.job("video", id=job, after=after(before, known, fine))
        for job, before in zip(ids, [ids[-1], *ids], strict=False)
    ]
    behind = desk.job(after=after(circle[0]))

    refusal = desk.append(fine, behind, *circle)
    cut = desk.append(fine, behind, *circle[1:])

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.job) == ("after", behind.id)
    assert not refusal.can_fit
    assert isinstance(cut, Refusal)
    assert not desk.is_known(fine.id)


def test_a_chain_is_taken_in_any_order(desk: Desk) -> None:
    ids = [desk.new_id() for _ in range(30)]
    jobs = [desk.job(id=job, after=after(*ids[max(0, at - 2) : at])) for at, job in enumerate(ids)]

    took(desk.append(*jobs[::-1]))

    for job in ids:
        end(desk, job)
    assert desk.depth().jobs == 0


def test_a_duplicate_is_in_no_circle(desk: Desk) -> None:
    """What it is said to wait for now does not count."""
    first = desk.job()
    second = desk.job(after=after(first))
    desk.append(first)

    receipts = desk.append(replace(first, after=after(second)), second)

    assert isinstance(receipts, list)
    assert [receipt.is_new for receipt in receipts] == [False, True]


def test_of_several_faults_the_first_jobs_own_is_told(desk: Desk) -> None:
    old = desk.job("video")
    desk.clock.advance(hours=1)
    ended = desk.finished()
    desk.clock.advance(hours=1)
    assert desk.sweep(done_ms=0, least_ms=0).pruned == 1
    assert not desk.is_known(ended)
    lost = desk.job(after=after(desk.new_id()))

    faults = [desk.append(*jobs) for jobs in ([lost, old], [old, lost])]

    assert all(isinstance(fault, Refusal) for fault in faults)
    assert [fault.limit for fault in faults] == ["after", "stale"]


def test_an_edge_to_a_deleted_job_is_refused(desk: Desk) -> None:
    gone = desk.finished()
    desk.amend(Delete(), gone)

    refusal = desk.append(desk.job(after=after(gone)))

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "after"


def test_an_edge_to_a_duplicate_by_key_of_the_same_append_is_refused(desk: Desk) -> None:
    """Only the job that was there first is known, and the edge does not name it."""
    key = Key("send", "welcome")
    desk.add_one(key=key)
    copy = desk.job(key=key)

    refusal = desk.append(copy, desk.job(after=after(copy)))

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "after"


def test_an_append_sent_again_is_not_judged_by_its_edges(desk: Desk) -> None:
    first = desk.job()
    second = desk.job(after=after(first))
    took(desk.append(first, second))
    end(desk, first.id)
    desk.amend(Delete(), first.id)

    again = desk.append(second)

    assert firsts(again) == [(second.id, second.id)]
    assert desk.state(second.id) is State.READY


def test_a_new_job_may_wait_for_one_that_is_sent_again(desk: Desk) -> None:
    first = desk.job()
    took(desk.append(first))
    second = desk.job(after=after(first))

    answer = desk.append(first, second)

    assert firsts(answer) == [(first.id, first.id), (second.id, None)]
    assert desk.state(second.id) is State.BLOCKED


def test_a_job_named_twice_is_waited_for_once_by_the_first_edge(desk: Desk) -> None:
    first = desk.add_one()
    edges = (*after(first, when=ENDED), *after(first))

    second = desk.add_one(after=edges)
    waits_for = desk.record(second).waits_for
    end(desk, first, FAILED)

    assert waits_for == 1
    assert desk.state(second) is State.READY


# -- how the other one ended --

IMMEDIATE = {
    State.SUCCEEDED: lambda desk, job: end(desk, job),
    State.FAILED: lambda desk, job: end(desk, job, FAILED),
    State.CANCELLED: lambda desk, job: end(desk, job, STOPPED),
}


def out_of_attempts(desk: Desk, job: bytes) -> None:
    end(desk, job, retry(0))


def lapse_in_claim(desk: Desk, job: bytes) -> None:
    assert desk.claimed_ids(1, ids=(job,)) == [job]
    desk.clock.advance(seconds=31)
    desk.claim(0)


def lapse_in_sweep(desk: Desk, job: bytes) -> None:
    assert desk.claimed_ids(1, ids=(job,)) == [job]
    desk.clock.advance(seconds=31)
    desk.sweep()


def depart(desk: Desk, job: bytes) -> None:
    assert desk.claimed_ids(1, ids=(job,), owner="gone") == [job]
    desk.claim(0, departed=("gone",))


def expire_in_claim(desk: Desk, job: bytes) -> None:
    desk.clock.advance(seconds=61)
    assert desk.claimed_ids(1, ids=(job,)) == []


def expire_in_sweep(desk: Desk, job: bytes) -> None:
    desk.clock.advance(seconds=61)
    assert desk.sweep().expired == 1


def cancel_flagged(desk: Desk, job: bytes) -> None:
    (lease,) = desk.claim(1, ids=(job,)).leases
    desk.amend(Cancel(), job)
    desk.settle(lease, RELEASED)


def cancel_flagged_then_lapse(desk: Desk, job: bytes) -> None:
    assert desk.claimed_ids(1, ids=(job,)) == [job]
    desk.amend(Cancel(), job)
    desk.clock.advance(seconds=31)
    desk.claim(0)


ENDS = [
    ("success", State.SUCCEEDED, lambda desk, job: end(desk, job)),
    ("success with a result", State.SUCCEEDED, lambda desk, job: end(desk, job, Succeeded(b"1"))),
    ("failure", State.FAILED, lambda desk, job: end(desk, job, FAILED)),
    ("out of attempts", State.FAILED, out_of_attempts),
    ("a crash too many", State.FAILED, lambda desk, job: end(desk, job, CRASHED_ALONE)),
    ("a lapse too many, in a claim", State.FAILED, lapse_in_claim),
    ("a lapse too many, in a sweep", State.FAILED, lapse_in_sweep),
    ("its owner departed", State.FAILED, depart),
    ("stopped", State.CANCELLED, lambda desk, job: end(desk, job, STOPPED)),
    ("cancelled while it waited", State.CANCELLED, lambda desk, job: desk.amend(Cancel(), job)),
    ("cancelled, then released", State.CANCELLED, cancel_flagged),
    ("cancelled, then lapsed", State.CANCELLED, cancel_flagged_then_lapse),
    ("expired in a claim", State.EXPIRED, expire_in_claim),
    ("expired in a sweep", State.EXPIRED, expire_in_sweep),
    ("deleted", State.CANCELLED, lambda desk, job: desk.amend(Delete(), job)),
]


@pytest.mark.parametrize("how", ENDS, ids=lambda how: how[0])
@pytest.mark.parametrize("when", When)
def test_an_edge_is_followed_however_the_job_ends(desk: Desk, how, when: When) -> None:
    _, state, happen = how
    first = desk.add_one(expires_ms=60_000, policy=Policy(attempts=1))
    second = desk.add_one("video", after=after(first, when=when))
    third = desk.add_one("video", after=after(second, when=ENDED))

    happen(desk, first)

    fits = when is ENDED or (when is ON_FAILURE) != (state is State.SUCCEEDED)
    now = desk.clock.wall_ms()
    record = desk.record(second)
    assert record.revision == 2
    if fits:
        assert (record.state, record.waits_for, record.errors) == (State.READY, 0, ())
        assert desk.state(third) is State.BLOCKED
        assert desk.depth("video").blocked == 1
    else:
        assert (record.state, record.ended_ms, record.attempt) == (State.CANCELLED, now, 0)
        assert (record.waits_for, record.due_ms, record.reason) == (0, None, None)
        assert record.errors == (AttemptError(1, now, skipped(first, state)),)
        assert desk.state(third) is State.READY
        assert desk.queue("video").cancelled == 1
    assert desk.depth("video").ready == 1


@pytest.mark.parametrize("outcome", [retry(60), retry(0), snooze(60), RELEASED])
def test_an_edge_is_not_followed_before_the_end(desk: Desk, outcome: Outcome) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first, when=ENDED))

    end(desk, first, outcome)

    assert desk.state(second) is State.BLOCKED
    assert desk.record(second).revision == 1


ENDED_ALREADY = [state for state in State if state in FINAL]


@pytest.mark.parametrize("state", ENDED_ALREADY)
@pytest.mark.parametrize("when", When)
def test_an_edge_to_a_job_that_has_ended_is_judged_at_the_append(
    desk: Desk, state: State, when: When
) -> None:
    first = desk.in_state(state)
    second = desk.job(after=after(first, when=when))
    third = desk.job(after=after(second))

    took(desk.append(second, third))

    fits = when is ENDED or (when is ON_FAILURE) != (state is State.SUCCEEDED)
    now = desk.clock.wall_ms()
    if fits:
        assert desk.states([second.id, third.id]) == [State.READY, State.BLOCKED]
        assert desk.record(second.id).revision == 1
        assert desk.record(second.id).waits_for == 0
        return
    assert desk.states([second.id, third.id]) == [State.CANCELLED, State.CANCELLED]
    record = desk.record(second.id)
    assert (record.revision, record.ended_ms) == (2, now)
    assert record.errors == (AttemptError(1, now, skipped(first, state)),)
    error = AttemptError(1, now, skipped(second.id, State.CANCELLED))
    assert desk.record(third.id).errors == (error,)
    assert desk.depth().jobs == 0
    assert desk.queue().cancelled == 2 + (state is State.CANCELLED)
    assert desk.queue().appended == 3


def test_a_failed_edge_ends_the_job_at_once_though_it_waits_for_others(desk: Desk) -> None:
    bad, good = desk.add(2)
    waiting = desk.add_one(after=after(good, bad))

    end(desk, bad, FAILED)
    state = desk.state(waiting)
    end(desk, good)

    assert state is State.CANCELLED
    assert desk.state(waiting) is State.CANCELLED
    assert desk.record(waiting).revision == 2


def test_a_failure_cascades_through_all_levels(desk: Desk) -> None:
    root = desk.add_one()
    levels = [root]
    for _ in range(3):
        levels.append(desk.add_one(after=after(levels[-1])))
    rescue = desk.add_one(after=after(levels[2], when=ON_FAILURE))
    either = desk.add_one(after=after(levels[3], when=ENDED))

    end(desk, root, FAILED)

    now = desk.clock.wall_ms()
    assert desk.states(levels) == [State.FAILED, *[State.CANCELLED] * 3]
    states = [State.FAILED, State.CANCELLED, State.CANCELLED]
    for before, ended, job in zip(levels, states, levels[1:], strict=False):
        assert desk.record(job).errors == (AttemptError(1, now, skipped(before, ended)),)
    assert desk.states([rescue, either]) == [State.READY, State.READY]


def test_a_long_chain_is_cancelled_whole(desk: Desk) -> None:
    jobs = [desk.job()]
    for _ in range(999):
        jobs.append(desk.job(after=after(jobs[-1])))
    took(desk.append(*jobs))

    end(desk, jobs[0].id, FAILED)

    depth = desk.depth()
    assert (depth.jobs, depth.blocked) == (0, 0)
    assert desk.queue().cancelled == 999
    assert desk.state(jobs[-1].id) is State.CANCELLED


# -- shapes --


def test_a_diamond_runs_its_last_job_once_both_sides_are_done(desk: Desk) -> None:
    top = desk.job()
    left, right = desk.job(after=after(top)), desk.job(after=after(top))
    bottom = desk.job(after=after(left, right))
    took(desk.append(bottom, right, left, top))

    claims = [desk.claimed_ids()]
    desk.settle(Lease(top.id, 1, 0, "mail", "send", b""), SUCCEEDED)
    claims.append(sorted(desk.claimed_ids()))
    desk.settle(Lease(left.id, 1, 0, "mail", "send", b""), SUCCEEDED)
    waiting = desk.record(bottom.id)
    claims.append(desk.claimed_ids())
    desk.settle(Lease(right.id, 1, 0, "mail", "send", b""), SUCCEEDED)
    claims.append(desk.claimed_ids())

    assert claims == [[top.id], sorted([left.id, right.id]), [], [bottom.id]]
    assert (waiting.state, waiting.waits_for, waiting.revision) == (State.BLOCKED, 1, 1)


def test_one_job_waits_for_a_thousand_that_settle_in_batches(desk: Desk) -> None:
    leaves = desk.add(1_000)
    last = desk.add_one("video", after=after(*leaves))
    seen = [desk.record(last).waits_for]

    for _ in range(4):
        leases = desk.claim(250).leases
        desk.run(desk.engine.settle([settlement(lease, SUCCEEDED) for lease in leases]))
        seen.append(desk.record(last).waits_for)

    assert seen == [1_000, 750, 500, 250, 0]
    record = desk.record(last)
    assert (record.state, record.revision) == (State.READY, 2)


def test_a_thousand_jobs_wait_for_one(desk: Desk) -> None:
    root = desk.add_one("video")
    leaves = [desk.job(after=after(root)) for _ in range(1_000)]
    took(desk.append(*leaves))

    end(desk, root, queue="video")

    assert desk.depth().ready == 1_000
    assert desk.claimed_ids(1_000) == [leaf.id for leaf in leaves]


def test_a_turn_settles_what_its_own_claim_then_takes(desk: Desk) -> None:
    first = desk.add_one()
    second = desk.add_one(after=after(first))
    lease = desk.lease()
    wanted = Wanted(owner="ann", number=1, lease_ms=30_000, queues=("mail",))

    turn = desk.run(desk.engine.turn([settlement(lease, SUCCEEDED)], [wanted]))

    assert [lease.job for lease in turn.claimed[0].leases] == [second]


def test_two_that_fail_in_one_call_cancel_who_waits_for_both_once(desk: Desk) -> None:
    pair = desk.add(2)
    waiting = desk.add_one("video", after=after(*pair))
    leases = desk.claim().leases

    settled = desk.run(desk.engine.settle([settlement(lease, FAILED) for lease in leases]))

    record = desk.record(waiting)
    assert sorted(settled.buried) == sorted(pair)  # not who was cancelled by it
    assert (record.state, record.revision) == (State.CANCELLED, 2)
    assert [kept.error.kind for kept in record.errors] == ["Skipped"]
    assert record.errors[0].error in [skipped(job, State.FAILED) for job in pair]
