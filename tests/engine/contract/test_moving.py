"""The verbs of a move: sealed, dumped here, restored there, discarded.

The other store is the memory engine, on the same clock: each engine moves its jobs to
it and takes jobs in from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from tests.engine.contract.desk import (
    CRASHED_ALONE,
    FAILED,
    SUCCEEDED,
    Desk,
    firsts,
    retry,
    snooze,
)

from backlane.engine.memory import MemoryEngine
from backlane.engine.moving import Part, Repeat, Seal, Settings, Whole
from backlane.engine.protocol import Declare, Open, Presence, Tune
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.clock import FakeClock
from backlane.model.job import (
    FINAL,
    Idempotency,
    Key,
    Lane,
    Note,
    Policy,
    Progress,
    Refusal,
    State,
)
from backlane.model.outcome import Succeeded
from backlane.model.queue import Bounds, Kind

SEAL = Seal("sqlite:///new.db", move=b"m", mover=b"1")
DONE = Seal("sqlite:///new.db", move=b"m", mover=b"1", is_done=True)
ENDED = tuple(FINAL)


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    """Where jobs come from, and where they go: the engine is the one or the other."""
    return (desk, other) if request.param == "out" else (other, desk)


def seal(desk: Desk, given: Seal | None = SEAL) -> Seal | None:
    return desk.run(desk.engine.seal(given))


def parts(desk: Desk, limit: int = 1_000, final: Sequence[State] = ()) -> list[Part]:
    """All parts of a dump."""
    found, cursor = [], None
    while True:
        part = desk.run(desk.engine.dump(limit, cursor, final=final))
        found.append(part)
        cursor = part.cursor
        if cursor is None:
            return found


def dumped(desk: Desk, final: Sequence[State] = ()) -> list[Whole]:
    return [whole for part in parts(desk, final=final) for whole in part.jobs]


def restore(desk: Desk, jobs: Sequence[Whole], move: bytes = b"m") -> list[bytes]:
    return desk.run(desk.engine.restore(Part(list(jobs)), move))


def discard(desk: Desk, jobs: Sequence[Whole]) -> list[bytes]:
    return desk.run(desk.engine.discard([(it.record.id, it.record.revision) for it in jobs]))


def move(pair: tuple[Desk, Desk], final: Sequence[State] = ()) -> None:
    """Move all that may be moved."""
    source, target = pair
    seal(source)
    target.run(target.engine.restore_settings(source.run(source.engine.dump_settings())))
    for part in parts(source, final=final):
        target.run(target.engine.restore(part, b"m"))
        assert discard(source, part.jobs) == []


def wire(whole: Whole) -> Whole:
    """A whole job as it comes out of an encoding."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Whole)


# -- the seal --


def test_a_store_is_not_sealed_at_first(desk: Desk) -> None:
    assert desk.run(desk.engine.sealed()) is None


def test_a_seal_is_kept_with_the_time_it_was_set(desk: Desk) -> None:
    before = seal(desk)

    assert before is None
    now = desk.clock.wall_ms()
    assert desk.run(desk.engine.sealed()) == msgspec.structs.replace(SEAL, since_ms=now)


def test_a_seal_set_again_keeps_its_time(desk: Desk) -> None:
    seal(desk)
    since_ms = desk.clock.wall_ms()
    desk.clock.advance(seconds=5)

    before = seal(desk, DONE)

    assert before == msgspec.structs.replace(SEAL, since_ms=since_ms)
    assert desk.run(desk.engine.sealed()) == msgspec.structs.replace(DONE, since_ms=since_ms)


def test_a_store_that_is_opened_again_takes_and_gives_jobs(desk: Desk) -> None:
    (before,) = desk.add()
    seal(desk)

    assert seal(desk, None) is not None

    assert desk.run(desk.engine.sealed()) is None
    assert desk.claimed_ids() == [before]
    desk.add()


def test_a_sealed_store_refuses_an_append_and_says_where_to(desk: Desk) -> None:
    desk.add()
    seal(desk)

    refusal = desk.append(desk.job())

    assert refusal == Refusal("mail", "moving", 1, 0, jobs=1, can_fit=True, to=SEAL.to)
    assert desk.depth().jobs == 1


def test_a_sealed_store_refuses_an_append_to_a_new_queue(desk: Desk) -> None:
    seal(desk)

    refusal = desk.append(desk.job("letters"))

    assert refusal == Refusal("letters", "moving", 0, 0, jobs=0, can_fit=True, to=SEAL.to)
    assert desk.run(desk.engine.list_queues()) == []


def test_a_store_that_was_moved_refuses_for_good(desk: Desk) -> None:
    seal(desk, DONE)

    refusal = desk.append(desk.job())

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.can_fit, refusal.to) == ("moving", False, DONE.to)


def test_a_sealed_store_answers_duplicates(desk: Desk) -> None:
    asked = Idempotency("me", "1", b"print")
    jobs = [
        desk.job(),
        desk.job(key=Key("send", "7")),
        desk.job(idempotency=asked),
    ]
    desk.append(*jobs)
    seal(desk, DONE)

    again = [jobs[0], desk.job(key=Key("send", "7")), desk.job(idempotency=asked)]
    answer = desk.append(*again)

    assert [first for _, first in firsts(answer)] == [job.id for job in jobs]


def test_a_batch_with_one_new_job_is_refused_as_a_whole(desk: Desk) -> None:
    known = desk.job()
    desk.append(known)
    seal(desk)

    refusal = desk.append(known, desk.job())

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "moving"


def test_work_born_inside_a_job_is_taken_in_until_the_move_is_done(desk: Desk) -> None:
    parent = desk.add_one()
    lease = desk.lease()
    seal(desk)

    born = desk.add_one(parent=parent)
    desk.settle(lease, SUCCEEDED)
    mixed = desk.append(desk.job(parent=parent), desk.job())
    seal(desk, DONE)
    late = desk.append(desk.job(parent=parent))

    assert desk.state(born) is State.READY
    assert isinstance(mixed, Refusal)
    assert isinstance(late, Refusal)
    assert (mixed.limit, late.limit) == ("moving", "moving")


def test_a_sealed_store_gives_no_jobs(desk: Desk) -> None:
    job = desk.add_one()
    seal(desk)

    assert desk.claim().leases == []
    assert desk.claim(ids=(job,)).leases == []
    assert desk.state(job) is State.READY


def test_what_runs_in_a_sealed_store_goes_on_to_its_end(desk: Desk) -> None:
    jobs = desk.add(3)
    leases = desk.claim(3).leases
    seal(desk)

    extended = desk.run(desk.engine.extend([(it.job, it.token) for it in leases], 60_000))
    noted = desk.run(desk.engine.note([Note(jobs[0], leases[0].token, Progress(0.5))]))
    for lease, outcome in zip(leases, (SUCCEEDED, FAILED, retry(5)), strict=True):
        assert desk.settle(lease, outcome).lost == []

    assert (extended.lost, noted) == ([], [])
    assert desk.states(jobs) == [State.SUCCEEDED, State.FAILED, State.SCHEDULED]


def test_leases_lapse_in_a_sealed_store(desk: Desk) -> None:
    job = desk.add_one()
    seal_after = desk.lose()
    seal(desk)

    assert desk.claim().leases == []

    record = desk.record(job)
    assert (record.state, record.attempt) == (State.READY, 1)
    assert record.token == seal_after.token


def test_a_sealed_store_amends_nothing_that_waits(desk: Desk) -> None:
    job = desk.add_one()
    failed = desk.finished(FAILED)
    seal(desk)
    changes = [
        desk.amend(change, job, failed)
        for change in (Cancel(), Redrive(), Reprioritise(9), Delete(), Move("letters"))
    ]

    for amended in changes:
        assert (amended.changed, amended.flagged) == ([], [])
        whys = {(skipped.job, skipped.why) for skipped in amended.skipped}
        assert whys == {(it, f"the store is being moved to {SEAL.to}") for it in (job, failed)}
    assert desk.states([job, failed]) == [State.READY, State.FAILED]


def test_a_running_job_of_a_sealed_store_is_asked_to_stop(desk: Desk) -> None:
    job = desk.in_state(State.RUNNING)
    seal(desk)

    amended = desk.amend(Cancel(), job)

    assert amended.flagged == [job]
    assert desk.claim(owner="bob").cancelled == [job]


def test_a_seal_rings_who_listens(desk: Desk) -> None:
    desk.add()
    bell = desk.engine.listen(["mail"])
    bell.heard(0)

    seal(desk)

    assert bell.heard(1)
    bell.close()


# -- dump --


def test_a_dump_has_what_waits_in_the_order_of_its_append(desk: Desk) -> None:
    urgent_last = [desk.add_one(priority=3), desk.add_one("letters"), desk.add_one(priority=9)]
    scheduled = desk.in_state(State.SCHEDULED)
    for state in (*FINAL, State.RUNNING):
        desk.in_state(state)

    assert [whole.record.id for whole in dumped(desk)] == [*urgent_last, scheduled]


def test_a_dump_has_those_that_ended_as_they_are_asked_for(desk: Desk) -> None:
    jobs = {state: desk.in_state(state, queue=state.value) for state in FINAL}

    failed = dumped(desk, final=(State.FAILED,))
    all_of_them = dumped(desk, final=ENDED)

    assert [whole.record.id for whole in failed] == [jobs[State.FAILED]]
    assert {whole.record.id for whole in all_of_them} == set(jobs.values())


def test_a_dump_comes_in_parts(desk: Desk) -> None:
    jobs = desk.add(7)

    found = parts(desk, limit=3)

    assert [whole.record.id for part in found for whole in part.jobs] == jobs
    assert max(len(part.jobs) for part in found) == 3


def test_a_dump_goes_on_where_jobs_were_discarded(desk: Desk) -> None:
    jobs = desk.add(5)
    seal(desk)
    first = desk.run(desk.engine.dump(2))
    assert discard(desk, first.jobs) == []

    second = desk.run(desk.engine.dump(2, first.cursor))

    assert [whole.record.id for whole in second.jobs] == jobs[2:4]


def test_a_dump_is_bounded_by_bytes(desk: Desk) -> None:
    desk.add(6, body=b"x" * 6_000_000)

    found = parts(desk)

    assert sum(len(part.jobs) for part in found) == 6
    assert max(len(part.jobs) for part in found) <= 4


def test_a_dumped_job_is_whole(desk: Desk) -> None:
    parent = desk.new_id()
    fields = {
        "task": "send",
        "body": b"\x00body",
        "headers": b"\xffheaders",
        "priority": 7,
        "lane": Lane.EXCLUSIVE,
        "policy": Policy(attempts=3, base_ms=5, soft_ms=9),
        "key": Key("send", "7"),
        "group": "acme",
        "parent": parent,
        "resource": "smtp",
    }
    job = desk.add_one(delay_ms=5_000, expires_ms=50_000, **fields)
    now = desk.clock.wall_ms()

    (whole,) = dumped(desk)

    record = whole.record
    assert record == desk.record(job)
    assert {name: getattr(record, name) for name in fields} == fields
    assert (record.due_ms, record.deadline_ms) == (now + 5_000, now + 50_000)
    assert (whole.crashes, whole.parked_ms) == (0, None)
    assert wire(whole) == whole


def test_idempotency_keys_are_dumped(desk: Desk) -> None:
    jobs = [desk.job(idempotency=Idempotency("me", name, b"p", 9_000)) for name in "abc"]
    desk.append(*jobs)
    until_ms = desk.clock.wall_ms() + 9_000

    found = parts(desk, limit=2)

    repeats = [one for part in found for one in part.repeats]
    assert sorted(repeats, key=lambda one: one.name) == [
        Repeat("me", name, job.id, b"p", until_ms) for name, job in zip("abc", jobs, strict=True)
    ]


# -- discard --


def test_what_is_discarded_is_forgotten_and_counted_nowhere(desk: Desk) -> None:
    fields = {"key": Key("send", "7"), "group": "acme", "expires_ms": 90_000}
    jobs = [desk.add_one(**fields), desk.in_state(State.SCHEDULED), desk.finished(FAILED)]
    before = desk.queue()
    seal(desk)

    assert discard(desk, dumped(desk, final=ENDED)) == []

    after = desk.queue()
    assert [desk.is_known(job) for job in jobs] == [False, False, False]
    assert (after.depth.jobs, after.depth.bytes) == (0, 0)
    assert (after.appended, after.failed) == (before.appended, before.failed)
    assert (after.cancelled, after.expired) == (0, 0)
    seal(desk, None)
    desk.add_one(id=jobs[0], **fields)  # neither stale, nor is its key held


def test_nothing_is_discarded_in_a_store_that_is_not_sealed(desk: Desk) -> None:
    job = desk.add_one()

    assert discard(desk, dumped(desk)) == [job]
    assert desk.state(job) is State.READY


def test_what_has_changed_is_not_discarded(desk: Desk) -> None:
    waiting, running = desk.add(2)
    found = dumped(desk)
    desk.claim(1, ids=(running,))
    desk.amend(Reprioritise(9), waiting)
    seal(desk)

    assert sorted(discard(desk, found)) == sorted([waiting, running])
    assert desk.states([waiting, running]) == [State.READY, State.RUNNING]


def test_what_is_gone_already_is_named(desk: Desk) -> None:
    job = desk.add_one()
    found = dumped(desk)
    seal(desk)
    assert discard(desk, found) == []

    assert discard(desk, found) == [job]


# -- restore --


def test_a_waiting_job_is_the_same_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    fields = {
        "headers": b"h",
        "priority": 7,
        "lane": Lane.EXCLUSIVE,
        "policy": Policy(attempts=9, base_ms=5),
        "key": Key("send", "7"),
        "group": "acme",
        "parent": source.new_id(),
        "resource": "smtp",
        "expires_ms": 900_000,
    }
    job = source.add_one(**fields)
    lease = source.lease(lane=Lane.EXCLUSIVE)
    source.run(source.engine.note([Note(job, lease.token, Progress(0.5, "half"))]))
    source.settle(lease, retry(5, "first"))
    source.clock.advance(seconds=5)
    source.settle(source.lease(lane=Lane.EXCLUSIVE), retry(60, "second"))
    before = source.record(job)

    move(pair)

    assert not source.is_known(job)
    assert target.record(job) == before
    assert len(before.errors) == 2


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_job_that_ended_is_the_same_elsewhere(pair: tuple[Desk, Desk], state: State) -> None:
    source, target = pair
    job = source.in_state(state)
    before = source.record(job)

    move(pair, final=ENDED)

    assert target.record(job) == before
    assert firsts(target.append(target.job(id=job))) == [(job, job)]


def test_a_result_is_the_same_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    job = source.finished(Succeeded(b"42"))

    move(pair, final=ENDED)

    assert target.record(job).result == b"42"


def test_jobs_are_given_in_the_same_order_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    equal = source.add(3)
    low, high = source.add_one(priority=1), source.add_one(priority=9)
    released = source.finished(retry(0), priority=9)
    earlier = source.add_one(priority=5)

    move(pair)

    assert target.claimed_ids() == [high, released, *equal, earlier, low]


def test_what_comes_later_waits_behind_what_was_moved(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    moved = source.add(3)
    move(pair)

    later = target.add(2)

    assert target.claimed_ids() == [*moved, *later]


def test_the_next_lease_has_the_next_token(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add_one(policy=Policy(attempts=3))
    stale = source.lose()
    source.claim(1, "nothing")  # lets it lapse
    move(pair)

    lease = target.lease()

    assert (lease.token, lease.attempt) == (stale.token + 1, 1)
    assert target.settle(stale, SUCCEEDED).lost == [stale.job]
    assert target.settle(lease, retry()).lost == []
    assert target.lease().attempt == 2


def test_crashes_are_counted_on(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add_one(lane=Lane.EXCLUSIVE)
    source.settle(source.lease(lane=Lane.EXCLUSIVE), CRASHED_ALONE)

    move(pair)

    lease = target.lease(lane=Lane.EXCLUSIVE)
    assert (lease.crashes, lease.attempt) == (1, 1)


def test_the_time_a_job_is_parked_is_counted_on(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add_one()
    source.settle(source.lease(), snooze(1, parked=True))
    source.clock.advance(seconds=2)

    move(pair)

    assert target.lease().parked_ms == 2_000


def test_a_scheduled_job_is_due_at_its_time(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    job = source.add_one(delay_ms=60_000)
    source.clock.advance(seconds=59)

    move(pair)

    assert target.claimed_ids() == []
    target.clock.advance(seconds=1)
    assert target.claimed_ids() == [job]


def test_a_deadline_holds_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = [source.add_one(expires_ms=5_000), source.add_one("letters", expires_ms=5_000)]
    move(pair)
    target.clock.advance(seconds=6)

    assert target.claimed_ids() == []
    target.sweep()

    assert target.states(jobs) == [State.EXPIRED, State.EXPIRED]


def test_a_key_is_held_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    job = source.add_one(key=Key("send", "7"))
    move(pair)

    assert firsts(target.append(again := target.job(key=Key("send", "7")))) == [(again.id, job)]
    target.settle(target.lease(), SUCCEEDED)
    target.add_one(key=Key("send", "7"))


def test_a_key_that_another_job_holds_stays_with_it(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    moved = source.add_one(key=Key("send", "7"), priority=9)
    holder = target.add_one(key=Key("send", "7"))
    move(pair)

    assert target.state(moved) is State.READY
    target.settle(target.lease(), SUCCEEDED)  # the moved one: it frees nothing
    again = target.job(key=Key("send", "7"))
    assert firsts(target.append(again)) == [(again.id, holder)]


def test_depth_and_groups_are_counted_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    shares = Bounds(max_jobs=10, group_share=0.2)
    source.run(source.engine.tune("mail", Declare(Kind.TASKS, shares)))
    source.add(2, group="acme", body=b"12345")
    source.in_state(State.SCHEDULED, body=b"1")
    before = source.depth()

    move(pair)

    assert target.depth() == before
    assert source.depth().jobs == source.depth().bytes == 0
    refusal = target.append(target.job(group="acme"))
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth) == ("group", 2)


def test_bounds_do_not_apply_to_what_is_restored(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = source.add(3)
    target.run(target.engine.tune("mail", Declare(Kind.TASKS, Bounds(max_jobs=1))))

    new = restore(target, dumped(source))

    assert new == jobs
    assert target.depth().jobs == 3


def test_a_part_restored_twice_is_restored_once(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = source.add(3)
    part = dumped(source)

    assert restore(target, part) == jobs
    lease = target.lease()
    assert restore(target, part) == []

    assert target.record(lease.job).state is State.RUNNING
    assert target.depth().jobs == 3


def test_what_ran_and_was_forgotten_is_not_restored_again(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = source.add(2)
    part = dumped(source)
    restore(target, part)
    for _ in jobs:
        target.settle(target.lease(), SUCCEEDED)
    target.clock.advance(days=2)
    target.sweep()
    assert not target.is_known(jobs[0])

    assert restore(target, part) == []
    assert restore(target, part) == []

    assert target.claimed_ids() == []


def test_the_memory_of_a_move_ends_with_an_empty_part(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    (job,) = source.add(1)
    part = dumped(source)
    restore(target, part)
    target.amend(Delete(), job)
    assert restore(target, part, b"another") == [job]
    target.amend(Delete(), job)
    assert restore(target, part) == []

    assert restore(target, []) == []

    assert restore(target, part) == [job]


def test_an_id_from_before_history_is_restored(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    job = source.add_one(delay_ms=10 * 86_400_000)
    source.clock.advance(days=1)
    source.finished()
    source.clock.advance(days=3)
    source.sweep()

    move(pair)

    assert target.state(job) is State.SCHEDULED


def test_a_queue_that_is_not_known_is_made(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add()
    source.append(source.job("raw", task=None), kind=Kind.MESSAGES)

    restore(target, dumped(source))

    assert [target.queue(name).kind for name in ("mail", "raw")] == [Kind.TASKS, Kind.MESSAGES]
    assert target.queue("mail").bounds == Bounds()
    assert target.queue("mail").appended == 0


def test_a_restored_job_rings_its_queue(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add()
    bell = target.engine.listen(["mail"])
    bell.heard(0)

    restore(target, dumped(source))

    assert bell.heard(1)
    bell.close()


def test_a_restored_failed_job_can_be_redriven(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    job = source.finished(FAILED, key=Key("send", "7"), group="acme")
    move(pair, final=(State.FAILED,))

    assert target.amend(Redrive(), job).changed == [job]

    lease = target.lease()
    assert (lease.job, lease.attempt, lease.token) == (job, 0, 2)
    target.settle(lease, SUCCEEDED)
    assert target.depth().jobs == 0


def test_restored_history_is_pruned_in_its_time(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    jobs = [source.finished(), source.finished(FAILED)]
    move(pair, final=ENDED)

    target.clock.advance(days=2)
    assert target.sweep().pruned == 1

    assert [target.is_known(job) for job in jobs] == [False, True]


def test_idempotency_keys_count_elsewhere(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    asked = Idempotency("me", "1", b"print", 60_000)
    job = source.job(idempotency=asked)
    source.append(job)
    source.settle(source.lease(), SUCCEEDED)

    move(pair)

    again = target.job(idempotency=asked)
    assert firsts(target.append(again)) == [(again.id, job.id)]
    reused = target.append(target.job(idempotency=Idempotency("me", "1", b"other")))
    assert isinstance(reused, Refusal)
    assert reused.limit == "reused"
    target.clock.advance(seconds=61)
    assert target.add_one(idempotency=asked)


def test_an_idempotency_key_that_counts_already_stays(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    asked = Idempotency("me", "1", b"print", 60_000)
    source.add_one(idempotency=asked)
    first = target.add_one(idempotency=asked)

    move(pair)

    again = target.job(idempotency=asked)
    assert firsts(target.append(again)) == [(again.id, first)]


# -- settings --


def test_queues_are_as_they_were_set(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    bounds = Bounds(max_jobs=70, max_bytes=9_000, max_wait_ms=5_000, group_share=0.5)
    tuned = Tune(max_jobs=7, max_bytes=8_000, max_wait_ms=0, group_share=0.25, paused=True)
    source.run(source.engine.tune("mail", Declare(Kind.TASKS, bounds)))
    source.run(source.engine.tune("mail", tuned))
    source.run(source.engine.tune("raw", Declare(Kind.MESSAGES, Bounds(max_jobs=5))))
    before = source.run(source.engine.list_queues())

    move(pair)

    assert target.run(target.engine.list_queues()) == before


def test_lifetime_counts_are_taken_where_the_queue_is_new(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.finished()
    source.finished(FAILED)
    source.finished(retry(60))
    before = source.queue()

    move(pair)

    after = target.queue()
    assert after.depth == before.depth
    for name in ("appended", "retried", "started", "ended", "succeeded", "failed", "ran_ms"):
        assert getattr(after, name) == getattr(before, name), name


def test_settings_restored_twice_count_once_and_win(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.finished()
    source.run(source.engine.tune("mail", Tune(max_jobs=7)))
    settings = source.run(source.engine.dump_settings())
    target.run(target.engine.restore_settings(settings))
    target.run(target.engine.tune("mail", Tune(max_jobs=9)))

    target.run(target.engine.restore_settings(settings))

    assert (target.queue().tuned_max_jobs, target.queue().appended) == (7, 1)


def test_a_queue_of_another_kind_is_left_as_it_is(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.run(source.engine.tune("mail", Declare(Kind.TASKS, Bounds(max_jobs=7))))
    target.run(target.engine.tune("mail", Declare(Kind.MESSAGES, Bounds(max_jobs=5))))
    before = target.queue()

    target.run(target.engine.restore_settings(source.run(source.engine.dump_settings())))

    assert target.queue() == before


def test_resources_stand_as_they_stood(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add_one(resource="smtp")
    target.add_one(resource="smtp", queue="letters")
    source.run(source.engine.steer("smtp", Open(60_000)))

    move(pair)

    before = source.run(source.engine.list_resources())
    assert target.run(target.engine.list_resources()) == before
    assert target.claimed_ids() == []
    target.clock.advance(seconds=60)
    assert len(target.claimed_ids(100, "mail", "letters")) == 1  # one trial of both


def test_tickets_are_signed_with_the_same_secret(pair: tuple[Desk, Desk]) -> None:
    source, target = pair

    move(pair)

    secrets = [it.run(it.engine.measure(())).secret for it in (source, target)]
    assert secrets[0] == secrets[1] != b""


def test_what_was_pruned_stays_so(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    stale = source.finished()
    source.clock.advance(days=2)
    source.sweep()

    move(pair)

    refusal = target.append(target.job(id=stale))
    assert isinstance(refusal, Refusal)
    assert refusal.limit == "stale"


def test_workers_are_not_among_the_settings(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    presence = Presence(owner="ann", host="h", pid=1, queues=("mail",), slots=1, running=0)
    source.run(source.engine.announce(presence))

    settings = source.run(source.engine.dump_settings())
    target.run(target.engine.restore_settings(settings))

    assert target.run(target.engine.list_workers()) == []
    encoded = msgspec.msgpack.encode(settings)
    assert msgspec.msgpack.decode(encoded, type=Settings) == settings
