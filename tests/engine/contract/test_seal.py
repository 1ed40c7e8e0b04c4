"""seal: a store that is being moved takes no jobs and gives none, and says why."""

from __future__ import annotations

import msgspec
from tests.engine.contract.carrying import DONE, SEAL, seal
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, firsts, retry

from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.job import Idempotency, Key, Note, Progress, Refusal, State


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
