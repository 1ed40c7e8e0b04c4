"""Awaiting: a running job gives its lease back until others have ended, however they did."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import ENDED, dumped, move, restore, seal, wire
from tests.engine.contract.desk import (
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

from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Wanted
from backlane.engine.selection import Cancel, Delete, Move, Redrive
from backlane.model.clock import FakeClock
from backlane.model.job import Edge, Lane, Lease, Note, Policy, Progress, State, Step, When
from backlane.model.outcome import Awaiting, Outcome


def end(desk: Desk, job: bytes, outcome: Outcome = SUCCEEDED, queue: str = "mail") -> None:
    (lease,) = desk.claim(1, queue, ids=(job,), lane=None).leases
    desk.settle(lease, outcome)


def waiting(desk: Desk, *jobs: bytes, **fields) -> tuple[bytes, Lease]:
    """A job of the queue `video` that waits for these, and the lease it gave back."""
    job = desk.add_one("video", **fields)
    lease = desk.lease(ids=(job,))
    settled = desk.settle(lease, Awaiting(jobs))
    assert (settled.lost, settled.buried) == ([], [])
    return job, lease


def test_a_job_that_waits_for_others_is_blocked(desk: Desk) -> None:
    leaves = desk.add(2)

    job, lease = waiting(desk, *leaves)

    record = desk.record(job)
    assert (record.state, record.waits_for, record.blocked_on) == (State.BLOCKED, 2, None)
    assert (record.attempt, record.token, record.errors) == (0, lease.token, ())
    assert record.after == ()
    assert record.revision == 3  # appended, leased, waits
    assert desk.depth("video").blocked == 1
    assert desk.claimed_ids(1, "video") == []


def test_it_runs_again_once_all_have_ended(desk: Desk) -> None:
    leaves = desk.add(2)
    job, lease = waiting(desk, *leaves)

    end(desk, leaves[0])
    half = desk.record(job)
    end(desk, leaves[1])
    record = desk.record(job)
    again = desk.lease(ids=(job,))

    assert (half.state, half.waits_for, half.revision) == (State.BLOCKED, 1, 3)
    assert (record.state, record.waits_for, record.revision) == (State.READY, 0, 4)
    assert (again.token, again.attempt) == (lease.token + 1, 0)


@pytest.mark.parametrize(
    ("outcome", "more"),
    [
        (SUCCEEDED, {}),
        (FAILED, {}),
        (STOPPED, {}),
        (retry(0), {"policy": Policy(attempts=1)}),
        (CRASHED_ALONE, {"policy": Policy(attempts=1)}),
    ],
)
def test_it_runs_again_however_they_ended(desk: Desk, outcome: Outcome, more) -> None:
    leaf = desk.add_one(**more)
    job, _ = waiting(desk, leaf)

    end(desk, leaf, outcome)

    assert desk.state(job) is State.READY
    assert desk.record(job).errors == ()


@pytest.mark.parametrize("change", [Cancel(), Delete()])
def test_it_runs_again_when_what_it_waits_for_is_cancelled_or_deleted(desk: Desk, change) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)

    desk.amend(change, leaf)

    assert desk.state(job) is State.READY


def test_it_runs_again_when_what_it_waits_for_expires(desk: Desk) -> None:
    leaf = desk.add_one(expires_ms=1_000)
    job, _ = waiting(desk, leaf)
    desk.clock.advance(seconds=2)

    desk.sweep()

    assert desk.state(job) is State.READY


def test_it_waits_on_while_one_is_retried(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)

    for outcome in (retry(0), snooze(0), RELEASED, CRASHED):
        end(desk, leaf, outcome)

    assert desk.state(job) is State.BLOCKED


def test_what_has_ended_and_what_is_unknown_is_not_waited_for(desk: Desk) -> None:
    done, failed, unknown = desk.finished(), desk.finished(FAILED), desk.new_id()
    leaf = desk.add_one()

    some, _ = waiting(desk, done, leaf, unknown, failed)
    none, _ = waiting(desk, done, failed, unknown)
    nothing, _ = waiting(desk)

    assert desk.record(some).waits_for == 1
    assert desk.states([some, none, nothing]) == [State.BLOCKED, State.READY, State.READY]
    assert [desk.record(job).revision for job in (some, none, nothing)] == [3, 3, 3]


def test_a_job_does_not_wait_for_itself(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()

    desk.settle(lease, Awaiting((job,)))

    assert desk.state(job) is State.READY


def test_a_job_named_twice_is_waited_for_once(desk: Desk) -> None:
    leaf = desk.add_one()

    job, _ = waiting(desk, leaf, leaf)

    assert desk.record(job).waits_for == 1
    end(desk, leaf)
    assert desk.state(job) is State.READY


def test_it_keeps_its_place(desk: Desk) -> None:
    leaf = desk.add_one()
    job = desk.add_one("video")
    due = desk.record(job).due_ms
    lease = desk.lease(ids=(job,))
    desk.settle(lease, Awaiting((leaf,)))
    desk.clock.advance(seconds=5)
    later = desk.add_one("video")

    end(desk, leaf)

    assert desk.record(job).due_ms == due
    assert desk.claimed_ids(2, "video") == [job, later]


def test_it_is_due_at_once_though_the_wall_clock_was_set_back(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)
    desk.clock.jump(hours=-1)

    end(desk, leaf)

    assert desk.state(job) is State.READY


def test_its_lane_stays(desk: Desk) -> None:
    leaf = desk.add_one()
    job = desk.add_one("video", lane=Lane.EXCLUSIVE)
    lease = desk.lease(ids=(job,), lane=None)
    desk.settle(lease, Awaiting((leaf,)))

    end(desk, leaf)

    assert desk.claimed_ids(1, "video", lane=Lane.SHARED) == []
    assert desk.claimed_ids(1, "video", lane=Lane.EXCLUSIVE) == [job]


def test_it_may_wait_again_and_again(desk: Desk) -> None:
    job = desk.add_one("video")
    for _ in range(3):
        leaf = desk.add_one()
        desk.settle(desk.lease(ids=(job,)), Awaiting((leaf,)))
        assert desk.state(job) is State.BLOCKED
        end(desk, leaf)

    desk.settle(desk.lease(ids=(job,)), SUCCEEDED)

    record = desk.record(job)
    assert (record.state, record.attempt, record.token) == (State.SUCCEEDED, 1, 4)


def test_a_late_settle_changes_nothing(desk: Desk) -> None:
    leaf = desk.add_one()
    job = desk.add_one("video")
    (old,) = desk.claim(1, "video").leases
    desk.clock.advance(seconds=31)
    (new,) = desk.claim(1, "video", owner="bob").leases

    late = desk.settle(old, Awaiting((leaf,)))

    assert late.lost == [job]
    assert desk.state(job) is State.RUNNING
    desk.settle(new, SUCCEEDED)
    end(desk, leaf)
    assert desk.state(job) is State.SUCCEEDED


def test_a_settle_sent_again_is_fenced(desk: Desk) -> None:
    leaf = desk.add_one()
    job, lease = waiting(desk, leaf)

    assert desk.settle(lease, Awaiting((leaf,))).lost == [job]
    assert desk.record(job).waits_for == 1


def test_a_job_asked_to_stop_is_cancelled_instead(desk: Desk) -> None:
    leaf = desk.add_one()
    job = desk.add_one("video")
    lease = desk.lease(ids=(job,))
    desk.amend(Cancel(), job)

    desk.settle(lease, Awaiting((leaf,)))

    assert desk.state(job) is State.CANCELLED
    assert desk.record(job).attempt == 0


def test_it_can_be_cancelled_while_it_waits(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)
    dependent = desk.add_one("video", after=(Edge(job, When.FAILED),))

    amended = desk.amend(Cancel(), job)
    end(desk, leaf)

    assert amended.changed == [job]
    assert desk.states([job, dependent]) == [State.CANCELLED, State.READY]


def test_it_expires_while_it_waits(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf, expires_ms=60_000)
    desk.clock.advance(seconds=61)

    desk.sweep()
    end(desk, leaf)

    assert desk.state(job) is State.EXPIRED


def test_it_waits_on_in_another_queue(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)

    desk.amend(Move("audio"), job)
    end(desk, leaf)

    assert desk.claimed_ids(1, "audio") == [job]


def test_what_it_waits_for_may_end_in_the_same_call(desk: Desk) -> None:
    job, leaf = desk.add_one(), desk.add_one()
    one, two = desk.claim().leases

    desk.run(desk.engine.settle([settlement(one, Awaiting((leaf,))), settlement(two, SUCCEEDED)]))

    record = desk.record(job)
    assert (record.state, record.revision) == (State.READY, 3)


def test_what_it_waits_for_may_wait_itself_in_the_same_call(desk: Desk) -> None:
    outer, inner, leaf = desk.add(3)
    leases = {lease.job: lease for lease in desk.claim().leases}

    desk.run(
        desk.engine.settle(
            [
                settlement(leases[outer], Awaiting((inner,))),
                settlement(leases[inner], Awaiting((leaf,))),
            ]
        )
    )
    states = desk.states([outer, inner])
    desk.settle(leases[leaf], SUCCEEDED)
    end(desk, inner)

    assert states == [State.BLOCKED, State.BLOCKED]
    assert desk.state(outer) is State.READY


def test_a_turn_waits_and_claims_what_it_waits_for(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    leaf = desk.add_one()
    wanted = Wanted(owner="ann", number=5, lease_ms=30_000, queues=("mail",))

    turn = desk.run(desk.engine.turn([settlement(lease, Awaiting((leaf,)))], [wanted]))
    (claimed,) = turn.claimed[0].leases
    again = desk.run(desk.engine.turn([settlement(claimed, SUCCEEDED)], [wanted]))

    assert claimed.job == leaf
    assert [lease.job for lease in again.claimed[0].leases] == [job]


def test_five_hundred_leaves_settle_in_batches(desk: Desk) -> None:
    leaves = desk.add(500)
    job, _ = waiting(desk, *leaves)
    left = []

    while leases := desk.claim(200).leases:
        outcomes = [FAILED if n % 2 else SUCCEEDED for n in range(len(leases))]
        pairs = zip(leases, outcomes, strict=True)
        desk.run(desk.engine.settle([settlement(lease, outcome) for lease, outcome in pairs]))
        left.append(desk.record(job).waits_for)

    assert left == [300, 100, 0]
    assert desk.state(job) is State.READY


def test_several_jobs_wait_for_the_same(desk: Desk) -> None:
    leaf = desk.add_one()
    jobs = [waiting(desk, leaf)[0] for _ in range(3)]

    end(desk, leaf)

    assert desk.claimed_ids(5, "video") == jobs


def test_a_redriven_job_forgets_what_it_awaited(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)
    desk.amend(Cancel(), job)

    desk.amend(Redrive(), job)

    assert desk.state(job) is State.READY
    assert desk.record(job).waits_for == 0


def test_steps_and_progress_stay_while_it_waits(desk: Desk) -> None:
    leaf = desk.add_one()
    job = desk.add_one("video")
    lease = desk.lease(ids=(job,))
    desk.run(desk.engine.note([Note(job, lease.token, Progress(0.5), (Step("a", b"1"),))]))

    desk.settle(lease, Awaiting((leaf,)))

    assert desk.record(job).progress == Progress(0.5)
    assert desk.run(desk.engine.recall(job)) == [Step("a", b"1")]


def test_what_it_waited_for_is_kept_until_it_has_ended(desk: Desk) -> None:
    before, leaf = desk.finished(), desk.add_one()
    job, _ = waiting(desk, before, leaf)
    end(desk, leaf)
    desk.clock.advance(hours=25)

    desk.sweep()
    while_it_is_ready = [desk.is_known(it) for it in (before, leaf)]
    lease = desk.lease(ids=(job,))
    desk.sweep()
    while_it_runs = [desk.is_known(it) for it in (before, leaf)]
    desk.settle(lease, SUCCEEDED)
    desk.sweep()

    assert while_it_is_ready == [True, True]
    assert while_it_runs == [True, True]
    assert [desk.is_known(it) for it in (before, leaf)] == [False, False]


def test_what_it_waited_for_before_it_was_redriven_is_not_kept(desk: Desk) -> None:
    """On Redis it was, until the job had ended once more."""
    before, leaf = desk.finished(), desk.add_one()
    job, _ = waiting(desk, before, leaf)
    end(desk, leaf)
    desk.amend(Cancel(), job)
    desk.amend(Redrive(), job)
    desk.clock.advance(hours=25)

    desk.sweep()

    assert [desk.is_known(it) for it in (before, leaf, job)] == [False, False, True]


def test_its_queue_and_its_watchers_are_rung(desk: Desk) -> None:
    leaf = desk.add_one()
    job, _ = waiting(desk, leaf)
    lease = desk.lease(ids=(leaf,))
    bell, watch = desk.engine.listen(["video"]), desk.engine.watch([job])
    for one in (bell, watch):
        while one.heard(0):
            pass

    desk.settle(lease, SUCCEEDED)

    assert bell.heard(5)
    assert watch.heard(5)
    bell.close()
    watch.close()


# -- moving: edges and what is awaited, out of one store and into another --


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


def test_a_dump_says_what_a_job_waits_and_waited_for(desk: Desk) -> None:
    before, done, leaf = desk.add(3)
    first = Edge(before, When.ENDED)
    job = desk.add_one("video", after=(first,))
    end(desk, before, FAILED)
    end(desk, done)
    desk.settle(desk.lease(ids=(job,)), Awaiting((leaf, done)))

    wholes = {whole.record.id: whole for whole in dumped(desk)}

    assert wholes[job].record.after == (first,)
    assert wholes[job].open == (Edge(leaf, When.ENDED),)
    assert wholes[job].waited == (done,)
    assert set(wholes) == {before, done, leaf, job}  # what it may still want to read as well


def test_waiting_jobs_wait_on_in_another_store(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    leaves = source.add(2)
    job, _ = waiting(source, *leaves)
    last = source.add_one("video", after=(Edge(job), Edge(leaves[0])))
    end(source, leaves[0])
    before = source.record(job)

    move(pair)

    after = target.record(job)
    assert (after.state, after.waits_for, after.revision) == (State.BLOCKED, 1, before.revision)
    assert target.record(last).waits_for == 1
    assert target.record(last).after == (Edge(job), Edge(leaves[0]))
    end(target, leaves[1])
    end(target, job, queue="video")
    end(target, last, queue="video")
    assert target.states([job, last]) == [State.SUCCEEDED, State.SUCCEEDED]


def test_what_it_waited_for_is_kept_in_another_store(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    done, leaf = source.finished(), source.add_one()
    job, _ = waiting(source, done, leaf)

    move(pair)
    target.clock.advance(hours=25)
    target.sweep()

    assert target.is_known(done)
    end(target, leaf)
    end(target, job, queue="video")
    target.sweep()
    assert not target.is_known(done)


def test_who_waits_for_a_running_job_moves_after_it(desk: Desk) -> None:
    running = desk.add_one()
    lease = desk.lease()
    job, _ = waiting(desk, running)
    further = desk.add_one("video", after=(Edge(job),))
    seal(desk)

    first = {whole.record.id for whole in dumped(desk)}
    desk.settle(lease, SUCCEEDED)
    second = {whole.record.id for whole in dumped(desk)}

    assert first == {further}
    assert second == {running, job, further}


def test_edges_come_back_whatever_order_their_jobs_come_in(
    pair: tuple[Desk, Desk],
) -> None:
    source, target = pair
    leaf, doomed = source.add(2)
    job, _ = waiting(source, leaf)
    vain = source.add_one("video", after=(Edge(doomed),))
    wholes = {whole.record.id: wire(whole) for whole in dumped(source)}
    end(source, leaf)
    end(source, doomed, FAILED)
    ended = {whole.record.id: wire(whole) for whole in dumped(source, final=ENDED)}

    restore(target, [wholes[job], wholes[vain]])
    states = target.states([job, vain])
    restore(target, [ended[leaf], ended[doomed]])

    assert states == [State.BLOCKED, State.BLOCKED]
    assert target.states([job, vain]) == [State.READY, State.CANCELLED]
    assert [kept.error.kind for kept in target.record(vain).errors] == ["Skipped"]


def test_edges_to_jobs_that_ended_there_already_are_followed(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    leaf, doomed = source.add(2)
    job, _ = waiting(source, leaf)
    vain = source.add_one("video", after=(Edge(doomed),))
    wholes = {whole.record.id: wire(whole) for whole in dumped(source)}
    restore(target, [wholes[leaf], wholes[doomed]])
    end(target, leaf)
    end(target, doomed, FAILED)

    restore(target, [wholes[job], wholes[vain]])

    assert target.states([job, vain]) == [State.READY, State.CANCELLED]
