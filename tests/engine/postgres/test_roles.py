"""Roles with the rights that the documentation grants: enough, and no more."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Presence, Retention, Tune, Wanted
from backlane.engine.selection import Cancel, Selection
from backlane.errors import EngineUnavailable
from backlane.model.ids import new_id
from backlane.model.job import Job
from backlane.model.outcome import Settlement, Succeeded

PAGE = Path(__file__).parents[3] / "docs/engines/postgresql.md"
WORKER, READER = f"jobs_worker_{os.getpid()}", f"jobs_reader_{os.getpid()}"

As = Callable[[str], PostgresEngine]


def job() -> Job:
    return Job(id=new_id(time.time_ns() // 1_000_000), queue="mail", task="send", body=b"{}")


@pytest.fixture
def as_role(server: postgres.Shared, url: str) -> Iterator[As]:
    """Engines that log in as these roles."""
    schema = url.partition("schema=")[2]
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    block = re.sub(r"(?<=schema )backlane\b", f'"{schema}"', block)
    block = block.replace("jobs_worker", WORKER).replace("jobs_reader", READER)
    engines: list[PostgresEngine] = []

    def entered(role: str) -> PostgresEngine:
        engines.append(PostgresEngine(url.replace("postgres@", f"{role}@")))
        return engines[-1]

    with psycopg.connect(server.url, autocommit=True) as admin:
        for role in (WORKER, READER):
            admin.execute(f"create role {role} login".encode())
        admin.execute(block.encode())
        yield entered
        for engine in engines:
            engine.close()
        for role in (WORKER, READER):
            admin.execute(f"drop owned by {role} cascade".encode())
            admin.execute(f"drop role {role}".encode())


def test_a_worker_may_do_all_that_workers_and_producers_do(as_role: As):
    engine = as_role(WORKER)
    sign = engine.enlist("ann")
    jobs = [job() for _ in range(3)]
    for _ in range(2):
        engine.run(engine.append(jobs, Admission()))
    engine.run(engine.announce(_presence()))
    leases = engine.run(engine.claim(Wanted("ann", 2, 30_000, ("mail",)))).leases
    engine.run(engine.extend([(one.job, one.token) for one in leases], 30_000))
    ended = [Settlement(leases[0].job, leases[0].token, Succeeded(b"1"))]
    turn = engine.run(engine.turn(ended, [Wanted("ann", 1, 30_000, ("mail",))]))
    engine.run(engine.tune("mail", Tune(max_jobs=5)))
    engine.run(engine.reserve("mail", 0, 1_000, 1))
    engine.run(engine.amend(Selection(queue="mail"), Cancel()))
    engine.run(engine.sweep(1_000, Retention(done_ms=0, least_ms=0)))
    sign.close()

    assert turn.settled.lost == []
    assert len(turn.claimed[0].leases) == 1


def test_a_reader_sees_and_changes_nothing(as_role: As):
    as_role(WORKER).run(as_role(WORKER).append([job()], Admission()))
    engine = as_role(READER)

    assert engine.run(engine.list_queues())[0].depth.jobs == 1
    assert len(engine.run(engine.find(Selection(queue="mail"))).records) == 1
    for change in (
        engine.append([job()], Admission()),
        engine.claim(Wanted("bob", 1, 30_000, ("mail",))),
        engine.tune("mail", Tune(paused=True)),
    ):
        with pytest.raises(EngineUnavailable, match="permission denied"):
            engine.run(change)


def test_neither_may_change_the_tables(as_role: As, url: str, server: postgres.Shared):
    schema = url.partition("schema=")[2]
    for role in (WORKER, READER):
        their = server.url.replace("postgres@", f"{role}@")
        with (
            psycopg.connect(their) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(f'drop table "{schema}".job cascade'.encode())


def _presence() -> Presence:
    return Presence(owner="ann", host="here", pid=1, queues=("mail",), slots=1, running=0)
