"""The account of the demonstration: when it holds, and what it says when it does not."""

from __future__ import annotations

import uuid

import pytest

from backlane.demo.account import Account, Starts, faults, succeeded
from backlane.demo.application import note_start
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.model.clock import FakeClock
from backlane.model.ids import new_ids
from backlane.model.job import Job
from backlane.model.outcome import Settlement, Succeeded

KILLED, OTHER = 11, 22

GOOD = Account(
    files=5, jobs=5, done=5, lost=0, repeated=2, workers_killed=1, seconds=7.26, faults=[]
)


def test_the_last_line_has_every_figure():
    assert GOOD.line() == (
        "demo: files=5 jobs=5 done=5 lost=0 repeated=2 workers_killed=1 seconds=7.3"
    )


def test_an_account_holds_when_every_job_is_done_once():
    assert GOOD.holds


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"done": 4}, {"jobs": 6}, {"faults": ["x"]}])
def test_an_account_does_not_hold_when_one_figure_is_off(wrong):
    fields = {name: getattr(GOOD, name) for name in Account.__struct_fields__}

    assert not Account(**fields | wrong).holds


@pytest.fixture
def engine():
    return MemoryEngine(FakeClock())


def appended(engine: MemoryEngine, number: int) -> list[bytes]:
    ids = new_ids(FakeClock().wall_ms(), number)
    jobs = [Job(id=each, queue="files", task="index_file", body=b"{}") for each in ids]
    engine.run(engine.append(jobs, Admission()))
    return ids


def done(engine: MemoryEngine, ids: list[bytes]) -> None:
    wanted = Wanted(owner="w", number=len(ids), lease_ms=1_000, ids=tuple(ids), lane=None)
    leases = engine.run(engine.claim(wanted)).leases
    engine.run(
        engine.settle([Settlement(each.job, each.token, Succeeded(b"{}")) for each in leases])
    )


def started(log, *pairs: tuple[bytes, int]) -> Starts:
    log.write_text("".join(f"{uuid.UUID(bytes=job)} {worker}\n" for job, worker in pairs))
    return Starts(log)


def test_jobs_all_done_leave_no_fault(engine, tmp_path):
    ids = appended(engine, 3)
    done(engine, ids)
    starts = started(tmp_path / "log", *((job, OTHER) for job in ids))

    assert faults(engine, ids, len(ids), starts, [KILLED]) == []
    assert len(list(succeeded(engine, ids))) == 3


def test_a_job_that_is_not_done_is_a_fault(engine, tmp_path):
    ids = appended(engine, 3)
    done(engine, ids[:2])
    starts = started(tmp_path / "log", *((job, OTHER) for job in ids))

    found = faults(engine, ids, len(ids), starts, [KILLED])

    assert found == ["3 jobs were acknowledged; the store counts 3 appended and 2 succeeded"]
    assert len(list(succeeded(engine, ids))) == 2


def test_a_job_that_the_store_calls_done_and_nobody_started_is_a_fault(engine, tmp_path):
    ids = appended(engine, 2)
    done(engine, ids)
    starts = started(tmp_path / "log", (ids[0], OTHER))

    assert faults(engine, ids, len(ids), starts, [KILLED]) == ["1 jobs were never started"]


def test_a_repeat_is_explained_only_by_the_death_of_the_worker_that_had_it(engine, tmp_path):
    ids = appended(engine, 2)
    done(engine, ids)
    explained = (ids[0], KILLED), (ids[0], OTHER), (ids[1], OTHER)
    strange = (ids[0], OTHER), (ids[0], OTHER), (ids[1], OTHER)

    first = started(tmp_path / "first", *explained)
    second = started(tmp_path / "second", *strange)

    assert len(first.repeated()) == len(second.repeated()) == 1
    assert faults(engine, ids, len(ids), first, [KILLED]) == []
    assert faults(engine, ids, len(ids), second, [KILLED]) == [
        "1 jobs ran again though their worker was not killed"
    ]


def test_each_start_is_one_line_of_the_log(tmp_path):
    log = tmp_path / "starts.log"
    job = uuid.uuid4()

    note_start(str(log), job)
    note_start(str(log), job)

    assert [len(workers) for workers in Starts(log).of.values()] == [2]
