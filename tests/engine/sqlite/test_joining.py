"""Joining: a job in the caller's transaction is there if and only if the caller commits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Admission
from backlane.engine.selection import Selection
from backlane.engine.sqlite import SqliteEngine
from backlane.errors import WrongUse
from backlane.model.clock import FakeClock


@pytest.fixture
def shop(engine: SqliteEngine, path: Path) -> apsw.Connection:
    engine.migrate()
    connection = apsw.Connection(str(path))
    connection.execute("create table orders (id integer primary key)")
    return connection


def enqueue(desk: Desk, connection: apsw.Connection) -> bytes:
    job = desk.job()
    receipts = desk.engine.joined(connection).run(desk.engine.append([job], Admission()))
    assert receipts[0].is_new
    return job.id


def test_a_joined_job_appears_with_the_commit(desk: Desk, shop: apsw.Connection):
    shop.execute("begin; insert into orders values (1)")
    job = enqueue(desk, shop)
    assert not desk.is_known(job)

    shop.execute("commit")

    assert desk.is_known(job)
    assert desk.depth().ready == 1


def test_a_joined_job_vanishes_with_the_rollback(desk: Desk, shop: apsw.Connection):
    shop.execute("begin; insert into orders values (1)")
    job = enqueue(desk, shop)

    shop.execute("rollback")

    assert not desk.is_known(job)
    assert shop.execute("select count(*) from orders").get == 0


def test_a_file_is_opened_beside_a_callers_transaction(
    desk: Desk, shop: apsw.Connection, path: Path, clock: FakeClock
):
    shop.execute("begin immediate; insert into orders values (1)")
    job = enqueue(desk, shop)

    with contextlib.closing(SqliteEngine(path, clock=clock)) as beside:
        found = beside.run(beside.find(Selection(ids=(job,)), 1))  # EngineBusy, if it wants a lock

    assert not found.records


def test_async_callers_join_too(desk: Desk, shop: apsw.Connection):
    job = desk.job()

    async def work() -> None:
        with shop:
            await desk.engine.joined(shop).arun(desk.engine.append([job], Admission()))

    asyncio.run(work())

    assert desk.is_known(job.id)


def test_bells_ring_after_the_callers_commit(desk: Desk, shop: apsw.Connection):
    bell = desk.engine.listen(["mail"])
    shop.execute("begin")
    enqueue(desk, shop)
    enqueue(desk, shop)

    rang_before = bell.heard(0.05)
    shop.execute("commit")
    rang_after = bell.heard(5)
    bell.close()

    assert (rang_before, rang_after) == (False, True)
    assert desk.depth().ready == 2


def test_bells_stay_silent_when_the_caller_rolls_back(desk: Desk, shop: apsw.Connection):
    bell = desk.engine.listen(["mail"])
    shop.execute("begin")
    enqueue(desk, shop)
    shop.execute("rollback")
    shop.execute("insert into orders values (2)")

    rang = bell.heard(0.1)
    bell.close()

    assert not rang


def test_a_stdlib_connection_is_refused_with_the_reason(engine: SqliteEngine, tmp_path: Path):
    other = sqlite3.connect(tmp_path / "other.db")

    with pytest.raises(WrongUse, match="drops the locks"):
        engine.joined(other)
    other.close()


def test_a_connection_in_autocommit_is_refused(engine: SqliteEngine, shop: apsw.Connection):
    with pytest.raises(WrongUse, match="in no transaction"):
        engine.joined(shop)


def test_a_connection_to_another_file_is_refused(
    engine: SqliteEngine, shop: apsw.Connection, tmp_path: Path
):
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("begin")

    with pytest.raises(WrongUse, match=r"other\.db"):
        engine.joined(other)


@pytest.mark.parametrize("given", [None, 7, "sqlite:///jobs.db"])
def test_what_is_no_connection_is_refused(engine: SqliteEngine, given: object):
    with pytest.raises(WrongUse, match=r"apsw\.Connection"):
        engine.joined(given)


def test_an_ended_transaction_is_not_used_any_more(desk: Desk, shop: apsw.Connection):
    shop.execute("begin")
    joined = desk.engine.joined(shop)
    shop.execute("commit")

    with pytest.raises(WrongUse, match="has ended"):
        joined.run(desk.engine.append([desk.job()], Admission()))
