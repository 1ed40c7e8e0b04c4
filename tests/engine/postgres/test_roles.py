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

from backlane.engine.offering import Offer
from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Presence, Tune, Wanted
from backlane.engine.retention import Retention
from backlane.engine.scheduling import Put, Tick
from backlane.engine.selection import Cancel, Delete, Selection
from backlane.errors import EngineUnavailable
from backlane.model.ids import new_id
from backlane.model.job import Edge, Idempotency, Job, Key, KeyRule, Note, State, Step
from backlane.model.limit import Limit, Use
from backlane.model.outcome import Awaiting, Settlement, Succeeded
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
    bounds = Admission(
        declared={"mail": Bounds(max_jobs=10)},
        limits={"stripe": Limit(concurrency=1), "queue:mail": Limit(concurrency=2)},
        fair=frozenset({"mail"}),
    )
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
        ),
        msgspec.structs.replace(job(), uses=(Use("stripe"),), group="g"),
        msgspec.structs.replace(job(), uses=(Use("queue:mail", "g", turn=True), Use("stripe"))),
    ]
    for _ in range(2):
        receipts = engine.run(engine.append(jobs, bounds))

    assert isinstance(receipts, list)
    assert [receipt.first for receipt in receipts] == [one.id for one in jobs]
    assert len(engine.run(engine.find(Selection(queue="mail"))).records) == 6
    for change in (
        engine.alter_schedule("nightly", Put(spec=b"{}", task="send")),
        engine.claim(Wanted("bob", 1, 30_000, ("mail",))),
        engine.amend(Selection(ids=(jobs[0].id,)), Cancel()),
        engine.amend(Selection(ids=(jobs[0].id,)), Delete()),
        engine.tune("mail", Tune(paused=True)),
    ):
        with pytest.raises(EngineUnavailable, match="permission denied"):
            engine.run(change)


def test_a_producer_appends_workflows_and_replaces_arguments(as_role: As):
    engine = as_role(PRODUCER)
    first, rule = job(), KeyRule("started", None, "replace")
    after = msgspec.structs.replace(
        job(),
        after=(Edge(first.id),),
        workflow=first.id,
        tags=("invoice",),
        key=Key("send", "k"),
        rule=rule,
    )
    newer = msgspec.structs.replace(job(), key=Key("send", "k"), rule=rule, body=b"[1]")

    engine.run(engine.append([first, after], Admission()))
    receipts = engine.run(engine.append([newer], Admission()))

    assert isinstance(receipts, list)
    assert (receipts[0].first, receipts[0].replaced) == (after.id, True)
    (record,) = engine.run(engine.find(Selection(tag="invoice"))).records
    assert (record.state, record.waits_for, record.size) == (State.BLOCKED, 1, 3)


def test_a_producer_offers_what_is_ready(as_role: As):
    """A process that only enqueues may have a broker carry its jobs too."""
    engine = as_role(PRODUCER)
    limits = {"queue:mail": Limit(concurrency=2)}
    jobs = [job() for _ in range(3)]
    late = msgspec.structs.replace(job(), delay_ms=1)
    engine.run(engine.append([*jobs, late], Admission(limits=limits)))
    time.sleep(0.002)

    told = engine.run(engine.offer([Offer("mail", 9)], 60_000))
    engine.run(engine.withdraw([jobs[0].id]))
    again = engine.run(engine.offer([Offer("mail", 9)], 60_000))

    assert [one.job for one in told.jobs] == [jobs[0].id, jobs[1].id]
    assert [one.job for one in again.jobs] == [jobs[0].id]
    worker = as_role(WORKER)
    brought = worker.run(worker.offer([Offer("mail", 9)], 60_000))
    assert (brought.jobs, worker.run(worker.list_queues())[0].depth.ready) == ([], 4)


def test_a_worker_follows_edges_and_ticks(as_role: As):
    engine = as_role(WORKER)
    first = job()
    after = msgspec.structs.replace(job(), after=(Edge(first.id),))
    engine.run(engine.append([first, after], Admission()))
    (lease,) = engine.run(engine.claim(Wanted("ann", 2, 30_000, ("mail",)))).leases
    engine.run(engine.note([Note(lease.job, lease.token, steps=(Step("charge", b"1"),))]))
    engine.run(engine.settle([Settlement(lease.job, lease.token, Succeeded(b"1"))]))
    (lease,) = engine.run(engine.claim(Wanted("ann", 2, 30_000, ("mail",)))).leases
    leaf = job()
    engine.run(engine.append([leaf], Admission()))
    engine.run(engine.settle([Settlement(lease.job, lease.token, Awaiting((leaf.id,)))]))
    made = engine.run(engine.alter_schedule("nightly", Put(spec=b"{}", task="send")))
    assert made is not None
    (ticked,) = engine.run(
        engine.tick(
            [Tick(name="nightly", revision=made.revision, last_ms=1, next_ms=2, jobs=(job(),))],
            Admission(),
        )
    )

    assert lease.job == after.id
    assert ticked.is_applied
    (record,) = engine.run(engine.find(Selection(ids=(after.id,)), brief=True)).records
    assert record.waits_for == 1


def test_a_reader_sees_and_changes_nothing(as_role: As):
    known = job()
    as_role(WORKER).run(as_role(WORKER).append([known], Admission()))
    engine = as_role(READER)

    assert engine.run(engine.list_queues())[0].depth.jobs == 1
    assert len(engine.run(engine.find(Selection(queue="mail"))).records) == 1
    after = msgspec.structs.replace(job(), after=(Edge(known.id),))
    for change in (
        engine.append([job()], Admission()),
        engine.append([after], Admission()),
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
