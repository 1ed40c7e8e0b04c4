"""latest: the newest result of a task, read at once."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, RELEASED, STOPPED, SUCCEEDED, Desk, retry, settlement

from backlane.engine.memory import MemoryEngine
from backlane.engine.recalling import Latest
from backlane.engine.selection import Delete
from backlane.model.clock import FakeClock
from backlane.model.job import Lease, Policy
from backlane.model.outcome import Outcome, Succeeded

KEPT = Policy(keeps_latest=True)


def latest(desk: Desk, task: str = "send") -> Latest | None:
    return desk.run(desk.engine.latest(task))


def lease(desk: Desk, job: bytes) -> Lease:
    (found,) = desk.claim(1, ids=(job,)).leases
    return found


def test_before_the_first_result_there_is_none(desk: Desk) -> None:
    desk.add(policy=KEPT)

    assert latest(desk) is None
    assert latest(desk, "unheard of") is None


def test_the_newest_result_is_kept_with_its_job_and_its_end(desk: Desk) -> None:
    desk.finished(Succeeded(b"old"), policy=KEPT)
    desk.clock.advance(seconds=5)

    job = desk.finished(Succeeded(b"new \x00\xff"), policy=KEPT)

    assert latest(desk) == Latest(job, desk.clock.wall_ms(), b"new \x00\xff")


def test_an_empty_result_is_a_result(desk: Desk) -> None:
    job = desk.finished(Succeeded(b""), policy=KEPT)

    assert latest(desk) == Latest(job, desk.clock.wall_ms(), b"")


def test_each_task_has_its_own(desk: Desk) -> None:
    desk.finished(Succeeded(b"sent"), policy=KEPT)
    desk.finished(Succeeded(b"resized"), policy=KEPT, task="resize", queue="video")

    assert [found.result for found in (latest(desk), latest(desk, "resize")) if found] == [
        b"sent",
        b"resized",
    ]


def test_the_results_of_other_tasks_are_not_kept(desk: Desk) -> None:
    desk.finished(Succeeded(b"done"))

    assert latest(desk) is None


def test_the_greatest_id_is_the_newest_whatever_ends_last(desk: Desk) -> None:
    jobs = desk.add(3, policy=KEPT)
    leases = [lease(desk, job) for job in jobs]

    for number, result in ((1, b"second"), (0, b"first")):
        desk.settle(leases[number], Succeeded(result))
        desk.clock.advance(seconds=1)
    assert latest(desk) == Latest(jobs[1], desk.clock.wall_ms() - 2_000, b"second")

    desk.settle(leases[2], Succeeded(b"third"))
    assert latest(desk) == Latest(jobs[2], desk.clock.wall_ms(), b"third")


def test_the_greatest_id_of_one_settle_is_the_newest(desk: Desk) -> None:
    jobs = desk.add(3, policy=KEPT)
    leases = [lease(desk, job) for job in jobs]
    ends = [settlement(leases[it], Succeeded(str(it).encode())) for it in (0, 2, 1)]
    desk.run(desk.engine.settle(ends))

    assert latest(desk) == Latest(jobs[2], desk.clock.wall_ms(), b"2")


@pytest.mark.parametrize("outcome", [FAILED, STOPPED, RELEASED, retry(5), SUCCEEDED])
def test_an_end_without_a_result_leaves_the_one_before(desk: Desk, outcome: Outcome) -> None:
    desk.finished(Succeeded(b"kept"), policy=KEPT)
    before = latest(desk)

    desk.settle(lease(desk, desk.add_one(policy=KEPT)), outcome)

    assert latest(desk) == before


def test_a_lost_lease_leaves_the_one_before(desk: Desk) -> None:
    desk.add(policy=KEPT)
    lost = desk.lose()
    desk.sweep()
    desk.lease()

    desk.settle(lost, Succeeded(b"too late"))

    assert latest(desk) is None


def test_it_outlives_its_job(desk: Desk) -> None:
    pruned = desk.finished(Succeeded(b"kept"), policy=KEPT)
    found = latest(desk)
    desk.clock.advance(days=400)
    assert desk.sweep().pruned == 1
    assert not desk.is_known(pruned)
    assert latest(desk) == found

    deleted = desk.finished(Succeeded(b"newer"), policy=KEPT)
    desk.amend(Delete(), deleted)

    assert latest(desk) == Latest(deleted, desk.clock.wall_ms(), b"newer")


def test_it_is_kept_by_a_turn_too(desk: Desk) -> None:
    job = desk.add_one(policy=KEPT)
    end = settlement(desk.lease(), Succeeded(b"done"))

    desk.run(desk.engine.turn([end], []))

    assert latest(desk) == Latest(job, desk.clock.wall_ms(), b"done")


# -- moving --


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


def test_the_newest_results_are_moved(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.finished(Succeeded(b"moved"), policy=KEPT, task="send")
    source.finished(Succeeded(b"older"), policy=KEPT, task="resize")
    target.clock.advance(seconds=1)
    target.finished(Succeeded(b"newer"), policy=KEPT, task="resize")
    target.finished(Succeeded(b"theirs"), policy=KEPT, task="index")
    moved, newer = latest(source), latest(target, "resize")

    target.run(target.engine.restore_settings(source.run(source.engine.dump_settings())))

    assert latest(target) == moved
    assert latest(target, "resize") == newer
    found = latest(target, "index")
    assert found is not None
    assert found.result == b"theirs"
