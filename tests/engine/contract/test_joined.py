"""joined and transaction: verbs within a transaction of the caller's or of a job's own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import apsw
import psycopg
import pytest
from tests.engine.contract.desk import RELEASED, Desk, settlement

from backlane.engine.protocol import Admission, Capability, Engine
from backlane.errors import NotSupported, WrongUse
from backlane.model.job import Job, Lease, Refusal, State
from backlane.model.outcome import Succeeded
from backlane.model.queue import Bounds


class Till:
    """A connection of the caller's own to the engine's store."""

    def __init__(self, connection: Any, begin: str) -> None:
        self.connection, self._begin = connection, begin

    def begin(self) -> None:
        self.connection.execute(self._begin)

    def commit(self) -> None:
        self.connection.execute("commit")

    def rollback(self) -> None:
        self.connection.execute("rollback")


@pytest.fixture
def till(engine: Engine, desk: Desk) -> Iterator[Till]:
    if Capability.JOINS not in engine.capabilities:
        pytest.skip("this engine does not join")
    desk.claim(0)  # the first use makes the store
    url = getattr(engine, "ledger", engine).url  # behind a broker it is the ledger that joins
    if url.startswith("sqlite"):
        made: Any = apsw.Connection(url.removeprefix("sqlite:///").partition("?")[0])
        begin = "begin immediate"
    else:
        plain = url.partition("?")[0]
        made = psycopg.connect(plain, autocommit=True, prepare_threshold=None)
        begin = "begin"
    yield Till(made, begin)
    made.close()


def append(desk: Desk, till: Till, *jobs: Job, most: int = 1_000) -> Any:
    admission = Admission(declared={"mail": Bounds(max_jobs=most)})
    return desk.engine.joined(till.connection).run(desk.engine.append(jobs, admission))


def test_a_joined_append_commits_with_the_caller(desk: Desk, till: Till) -> None:
    job = desk.job()
    till.begin()
    append(desk, till, job)
    till.commit()

    assert desk.claimed_ids() == [job.id]


def test_a_joined_append_rolls_back_with_the_caller(desk: Desk, till: Till) -> None:
    job = desk.job()
    till.begin()
    append(desk, till, job)
    till.rollback()

    assert not desk.is_known(job.id)
    assert desk.claimed_ids() == []


def test_a_savepoint_takes_its_job_back(desk: Desk, till: Till) -> None:
    first, second, third = desk.job(), desk.job(), desk.job()
    till.begin()
    append(desk, till, first)
    till.connection.execute("savepoint here")
    append(desk, till, second)
    till.connection.execute("rollback to savepoint here")
    append(desk, till, third)
    till.commit()

    assert desk.claimed_ids(number=10) == [first.id, third.id]
    assert desk.depth().running == 2


def test_nobody_else_sees_it_before_the_commit(desk: Desk, till: Till) -> None:
    job = desk.job()
    till.begin()
    append(desk, till, job)
    was_known = desk.is_known(job.id)
    till.commit()

    assert (was_known, desk.is_known(job.id)) == (False, True)


def test_what_is_rolled_back_needs_no_room(desk: Desk, till: Till) -> None:
    till.begin()
    append(desk, till, desk.job(), desk.job(), desk.job(), most=3)
    refused = append(desk, till, desk.job(), most=3)
    till.rollback()
    till.begin()
    accepted = append(desk, till, desk.job(), desk.job(), desk.job(), most=3)
    till.commit()

    assert isinstance(refused, Refusal)
    assert len(accepted) == 3
    assert desk.depth().jobs == 3


def test_an_id_may_come_again_in_the_same_transaction(desk: Desk, till: Till) -> None:
    job = desk.job()
    till.begin()
    (first,) = append(desk, till, job)
    (again,) = append(desk, till, job)
    till.commit()

    assert (first.is_new, again.is_new) == (True, False)
    assert desk.depth().jobs == 1


async def _arun(engine: Engine, connection: object, job: Job) -> object:
    return await engine.joined(connection).arun(engine.append([job], Admission()))


def test_a_joined_append_runs_in_a_coroutine_too(desk: Desk, till: Till) -> None:
    job = desk.job()
    till.begin()
    asyncio.run(_arun(desk.engine, till.connection, job))
    till.commit()

    assert desk.claimed_ids() == [job.id]


def test_a_connection_without_a_transaction_is_refused(desk: Desk, till: Till) -> None:
    with pytest.raises(WrongUse, match="transaction"):
        append(desk, till, desk.job())


def test_what_is_no_connection_of_the_engines_is_refused(engine: Engine) -> None:
    with sqlite3.connect(":memory:") as foreign, pytest.raises(WrongUse):
        engine.joined(foreign)
    with pytest.raises(WrongUse):
        engine.joined(object())


# -- a job's own transaction --


def leased(desk: Desk) -> Lease:
    desk.append(desk.job())
    (lease,) = desk.claim().leases
    return lease


def test_a_job_settles_itself_with_what_it_writes(desk: Desk, till: Till) -> None:
    lease, other = leased(desk), desk.job()
    engine = desk.engine
    block = engine.transaction()
    connection = block.begin()
    settled = block.run(engine.settle([settlement(lease, Succeeded(b"1"))]))
    engine.joined(connection).run(engine.append([other], Admission()))
    seen_before = desk.record(lease.job).state
    block.commit()

    assert settled.lost == []
    assert (seen_before, desk.record(lease.job).state) == (State.RUNNING, State.SUCCEEDED)
    assert desk.record(lease.job).result == b"1"
    assert desk.claimed_ids() == [other.id]


def test_rolled_back_the_job_still_runs(desk: Desk, till: Till) -> None:
    lease = leased(desk)
    block = desk.engine.transaction(None)
    block.begin()
    block.run(desk.engine.settle([settlement(lease, Succeeded())]))
    block.rollback()

    assert desk.record(lease.job).state is State.RUNNING
    assert desk.depth().running == 1
    assert desk.settle(lease, Succeeded()).lost == []


def test_a_job_settles_itself_on_its_own_connection(desk: Desk, till: Till) -> None:
    lease = leased(desk)
    block = desk.engine.transaction(till.connection)
    assert block.begin() is till.connection
    block.run(desk.engine.settle([settlement(lease, Succeeded())]))
    block.commit()

    assert desk.record(lease.job).state is State.SUCCEEDED
    assert desk.depth().jobs == 0


def test_a_lost_lease_is_told_before_the_commit(desk: Desk, till: Till) -> None:
    lease = leased(desk)
    desk.settle(lease, RELEASED)
    block = desk.engine.transaction(till.connection)
    block.begin()
    settled = block.run(desk.engine.settle([settlement(lease, Succeeded())]))
    block.rollback()

    assert settled.lost == [lease.job]
    assert desk.record(lease.job).state is State.READY


def test_the_bells_of_a_settled_job_ring_after_the_commit(desk: Desk, till: Till) -> None:
    lease = leased(desk)
    bell = desk.engine.watch([lease.job])
    while bell.heard(0.3):  # a new bell may ring for what it may have missed
        continue
    block = desk.engine.transaction()
    block.begin()
    block.run(desk.engine.settle([settlement(lease, Succeeded())]))
    rang_before = bell.heard(0.05)
    block.commit()
    rang_after = bell.heard(5)
    bell.close()

    assert (rang_before, rang_after) == (False, True)


def test_a_coroutine_settles_its_job_too(desk: Desk, till: Till) -> None:
    lease = leased(desk)

    async def work() -> None:
        block = desk.engine.transaction()
        await block.abegin()
        await block.arun(desk.engine.settle([settlement(lease, Succeeded())]))
        await block.acommit()

    asyncio.run(work())

    assert desk.record(lease.job).state is State.SUCCEEDED


def test_an_engine_that_joins_nothing_says_what_to_do(engine: Engine) -> None:
    if Capability.JOINS in engine.capabilities:
        pytest.skip("this engine joins")

    with pytest.raises(NotSupported, match="sqlite:///"):
        engine.transaction()
