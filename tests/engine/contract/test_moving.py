"""The verbs of a move: jobs are dumped here, restored there, and discarded here.

The other store is the memory engine, on the same clock: each engine moves its jobs to
it and takes jobs in from it.
"""

from __future__ import annotations

import msgspec
import pytest
from tests.engine.contract.carrying import ENDED, discard, dumped, move, parts, restore, seal, wire
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
from backlane.engine.moving import Repeat, Settings
from backlane.engine.protocol import Declare, Open, Presence, Tune
from backlane.engine.selection import Delete, Redrive, Reprioritise
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


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    """Where jobs come from, and where they go: the engine is the one or the other."""
    return (desk, other) if request.param == "out" else (other, desk)


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
