"""joined: an append within the caller's own transaction, where the engine can."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Admission, Capability, Engine
from backlane.errors import WrongUse


@pytest.fixture
def connection(engine: Engine, tmp_path: Path, desk: Desk):
    """A connection of the caller's own on the engine's store."""
    if Capability.JOINS not in engine.capabilities:
        pytest.skip("this engine does not join")
    desk.claim(0)  # the first use makes the store
    made = apsw.Connection(str(tmp_path / "jobs.db"))
    made.execute("create table if not exists account (name text)")
    yield made
    made.close()


def test_a_joined_append_commits_with_the_caller(desk: Desk, connection) -> None:
    job = desk.job()
    connection.execute("begin immediate")
    desk.engine.joined(connection).run(desk.engine.append([job], Admission()))
    connection.execute("insert into account values ('ann')")
    connection.execute("commit")

    assert desk.claimed_ids() == [job.id]


def test_a_joined_append_rolls_back_with_the_caller(desk: Desk, connection) -> None:
    job = desk.job()
    connection.execute("begin immediate")
    desk.engine.joined(connection).run(desk.engine.append([job], Admission()))
    connection.execute("rollback")

    assert not desk.is_known(job.id)
    assert desk.claimed_ids() == []


async def _arun(engine: Engine, connection, job) -> object:
    return await engine.joined(connection).arun(engine.append([job], Admission()))


def test_a_joined_append_runs_in_a_coroutine_too(desk: Desk, connection) -> None:
    import asyncio

    job = desk.job()
    connection.execute("begin immediate")
    asyncio.run(_arun(desk.engine, connection, job))
    connection.execute("commit")

    assert desk.claimed_ids() == [job.id]


def test_a_connection_without_a_transaction_is_refused(desk: Desk, connection) -> None:
    with pytest.raises(WrongUse, match="transaction"):
        desk.engine.joined(connection)


def test_what_is_no_connection_of_the_engines_is_refused(engine: Engine) -> None:
    import sqlite3

    with sqlite3.connect(":memory:") as foreign, pytest.raises(WrongUse):
        engine.joined(foreign)
    with pytest.raises(WrongUse):
        engine.joined(object())
