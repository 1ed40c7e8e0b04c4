"""Roles with the rights that the documentation grants: enough, and no more."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Presence, Tune, Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Delete, Selection
from backlane.errors import EngineUnavailable
from backlane.model.ids import new_id
from backlane.model.job import Idempotency, Job, Key
from backlane.model.outcome import Settlement, Succeeded
from backlane.model.queue import Bounds

PAGE = Path(__file__).parents[3] / "docs/engines/postgresql.md"
WORKER, PRODUCER, READER = ROLES = [
    f"{name}_{os.getpid()}" for name in ("jobs_worker", "jobs_producer", "jobs_reader")
]

As = Callable[[str], PostgresEngine]


def job() -> Job:
    return Job(id=new_id(time.time_ns() // 1_000_000), queue="mail", task="send", body=b"{}")


@pytest.fixture
def as_role(server: postgres.Shared, url: str) -> Iterator[As]:
    """Engines that log in as these roles."""
    schema = url.partition("schema=")[2]
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    block = re.sub(r"(?<=schema )backlane\b|\bbacklane(?=\.)", f'"{schema}"', block)
    block = re.sub(r"jobs_\w+", lambda name: f"{name[0]}_{os.getpid()}", block)
    engines: list[PostgresEngine] = []

    def entered(role: str) -> PostgresEngine:
        engines.append(PostgresEngine(url.replace("postgres@", f"{role}@")))
        return engines[-1]

    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(block.encode())
        for role in ROLES:
            admin.execute(f"alter role {role} login".encode())
        yield entered
        for engine in engines:
            engine.close()
        for role in ROLES:
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


def test_a_producer_enqueues_and_does_nothing_else(as_role: As):
    engine = as_role(PRODUCER)
    bounds = Admission(declared={"mail": Bounds(max_jobs=10)})
    jobs = [job() for _ in range(3)]
    jobs += [
        msgspec.structs.replace(
            job(),
            key=Key("send", "k"),
            group="g",
            resource="mails",
            delay_ms=1_000,
            expires_ms=9_000,
            idempotency=Idempotency("send", "order-7", b"print"),
        )
    ]
    for _ in range(2):
        receipts = engine.run(engine.append(jobs, bounds))

    assert isinstance(receipts, list)
    assert [receipt.first for receipt in receipts] == [one.id for one in jobs]
    assert len(engine.run(engine.find(Selection(queue="mail"))).records) == 4
    for change in (
        engine.claim(Wanted("bob", 1, 30_000, ("mail",))),
        engine.amend(Selection(ids=(jobs[0].id,)), Cancel()),
        engine.amend(Selection(ids=(jobs[0].id,)), Delete()),
        engine.tune("mail", Tune(paused=True)),
    ):
        with pytest.raises(EngineUnavailable, match="permission denied"):
            engine.run(change)


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


def test_none_may_change_the_tables(as_role: As, url: str, server: postgres.Shared):
    schema = url.partition("schema=")[2]
    for role in ROLES:
        their = server.url.replace("postgres@", f"{role}@")
        with (
            psycopg.connect(their) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(f'drop table "{schema}".job cascade'.encode())


def _presence() -> Presence:
    return Presence(owner="ann", host="here", pid=1, queues=("mail",), slots=1, running=0)
