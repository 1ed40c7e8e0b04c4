"""Plans stopped after each call of their transaction: rolled back, they leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.engine.contract.desk import CRASHED, FAILED, SUCCEEDED, Desk, retry, settlement

from backlane.engine.limiting import Declared
from backlane.engine.plan import Plan, finish
from backlane.engine.protocol import (
    Admission,
    Declare,
    Open,
    Presence,
    Tune,
    Wanted,
)
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.job import Idempotency, Key, Note, Progress
from backlane.model.limit import Limit, Rate, Use
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Kind


class Stopped(Exception):
    """The plan was stopped here."""


class StoppingTx(SqliteTx):
    """Raises instead of carrying out call number `at`."""

    def __init__(self, connection: apsw.Connection, at: int) -> None:
        super().__init__(connection)
        self._left = at

    async def rows(self, statement: Any, *params: Any) -> list[Any]:
        self._count()
        return await super().rows(statement, *params)

    async def each(self, statement: Any, rows: Any) -> list[Any]:
        self._count()
        return await super().each(statement, rows)

    def _count(self) -> None:
        if self._left == 0:
            raise Stopped
        self._left -= 1


def append(desk: Desk) -> Plan:
    key = Key("send", "once")
    jobs = [desk.job(key=key, expires_ms=5_000), desk.job(delay_ms=9), desk.job("new")]
    jobs += [desk.job(group="acme"), desk.job(idempotency=Idempotency("ann", "k", b"print"))]
    share = {"mail": Bounds(group_share=0.5)}
    return desk.engine.append(jobs, Admission(share, paces={"mail": Pace((9.0,) * 10, slots=1)}))


def turn(desk: Desk) -> Plan:
    desk.add(8, group="acme")
    leases = desk.claim(6).leases
    desk.add(3, delay_ms=1_000)
    desk.clock.advance(seconds=2)
    outcomes = [SUCCEEDED, FAILED, retry(1), CRASHED, retry(0), SUCCEEDED]
    settlements = [settlement(*pair) for pair in zip(leases, outcomes, strict=True)]
    wanted = Wanted(owner="bob", number=5, lease_ms=1_000, queues=("mail", "new"), lane=None)
    return desk.engine.turn(settlements, [wanted])


def claim_after_lapse(desk: Desk) -> Plan:
    desk.add(2)
    desk.lose()
    return desk.engine.claim(Wanted(owner="bob", number=5, lease_ms=1_000, queues=("mail",)))


def limited(desk: Desk) -> None:
    """Jobs that run, wait in line, and are blocked, on limits and turns; the queue is fair."""
    desk.limits = {"stripe": Limit(concurrency=2, rate=Rate(9, 1_000, 4))}
    desk.fair = {"mail"}
    desk.add(6, uses=(Use("stripe"), Use("turns", "a")))
    desk.add(3, uses=(Use("turns", "b", turn=True),), group="acme")


def append_limited(desk: Desk) -> Plan:
    limited(desk)
    jobs = [desk.job(uses=(Use("stripe"),)), desk.job(uses=(Use("turns", "b", turn=True),))]
    jobs.append(desk.job(delay_ms=9, uses=(Use("new"),)))
    limits = {"stripe": Limit(concurrency=9), "new": Limit(concurrency=1)}
    return desk.engine.append(jobs, Admission(limits=limits))


def turn_limited(desk: Desk) -> Plan:
    limited(desk)
    desk.limit("queue:mail", Limit(concurrency=5, rate=Rate(9, 1_000, 9)))
    leases = desk.claim(3).leases
    desk.add(2, delay_ms=1_000, uses=(Use("stripe"),))
    desk.clock.advance(seconds=2)
    outcomes = [SUCCEEDED, retry(0), FAILED]
    settlements = [settlement(*pair) for pair in zip(leases, outcomes, strict=True)]
    wanted = Wanted(owner="bob", number=5, lease_ms=1_000, queues=("mail",))
    return desk.engine.turn(settlements, [wanted])


def amend_limited(change: Any) -> Callable[[Desk], Plan]:
    def make(desk: Desk) -> Plan:
        limited(desk)
        return desk.engine.amend(Selection(), change)

    return make


def release(desk: Desk) -> Plan:
    limited(desk)
    desk.run(desk.engine.acquire(Use("stripe"), None, b"me", 1_000))
    return desk.engine.release(Use("stripe"), b"me")


def note(desk: Desk) -> Plan:
    desk.add()
    lease = desk.lease()
    return desk.engine.note([Note(lease.job, lease.token, Progress(0.5, "half"))])


def amend(change: Any) -> Callable[[Desk], Plan]:
    def make(desk: Desk) -> Plan:
        desk.add(2, expires_ms=60_000)
        desk.add(1, key=Key("send", "k"))
        desk.add(1, delay_ms=1_000, group="acme")
        desk.finished(FAILED, group="acme")
        return desk.engine.amend(Selection(), change)

    return make


def sweep(desk: Desk) -> Plan:
    desk.add(1, expires_ms=1_000)
    desk.add(2, priority=3)
    desk.finished(priority=9, group="acme")
    desk.append(desk.job(idempotency=Idempotency("ann", "k", b"print", window_ms=1)))
    desk.clock.advance(minutes=10)
    return desk.engine.sweep(100, Retention(done_ms=1, least_ms=0))


def steer(desk: Desk) -> Plan:
    desk.add(resource="stripe")
    return desk.engine.steer("stripe", Open(for_ms=1_000))


def trial(desk: Desk) -> Plan:
    """Claim the first trial of a resource, and settle a job of another."""
    desk.add(2, resource="stripe")
    desk.add(resource="mailgun", priority=9)
    lease = desk.lease()
    desk.run(desk.engine.steer("stripe", Open(for_ms=1_000)))
    desk.clock.advance(seconds=1)
    wanted = Wanted(owner="ann", number=9, lease_ms=30_000, queues=("mail",))
    return desk.engine.turn([settlement(lease, retry(0))], [wanted])


MAKERS: dict[str, Callable[[Desk], Plan]] = {
    "append": append,
    "turn": turn,
    "claim": claim_after_lapse,
    "note": note,
    "cancel": amend(Cancel()),
    "redrive": amend(Redrive()),
    "reprioritise": amend(Reprioritise(9)),
    "delete": amend(Delete()),
    "move": amend(Move("other")),
    "append limited": append_limited,
    "turn limited": turn_limited,
    "cancel limited": amend_limited(Cancel()),
    "reprioritise limited": amend_limited(Reprioritise(9)),
    "delete limited": amend_limited(Delete()),
    "move limited": amend_limited(Move("other")),
    "acquire": lambda desk: desk.engine.acquire(
        Use("stripe"), Limit(rate=Rate(1, 1_000)), b"me", 1_000
    ),
    "release": release,
    "regulate": lambda desk: desk.engine.regulate("stripe", Declared(Limit(concurrency=1))),
    "sweep": sweep,
    "tune": lambda desk: desk.engine.tune("mail", Tune(max_jobs=5, paused=True, reset=True)),
    "declare": lambda desk: desk.engine.tune("new", Declare(Kind.TASKS, Bounds(1, 1))),
    "reserve": lambda desk: desk.engine.reserve("mail", 500, 1_000, 5),
    "steer": steer,
    "trial": trial,
    "announce": lambda desk: desk.engine.announce(
        Presence(owner="a", host="h", pid=1, queues=("q",), slots=1, running=0)
    ),
}


def dump(connection: apsw.Connection) -> list[Any]:
    tables = connection.execute("select name from sqlite_schema where type = 'table'").fetchall()
    return [
        (name, connection.execute(f"select * from {name} order by 1, 2").fetchall())
        for (name,) in tables
    ]


def stop_everywhere(path: Path, plan: Plan) -> None:
    """Stop a plan after each call, then let it run: only then anything may have changed."""
    connection = apsw.Connection(str(path))
    before = dump(connection)

    calls = 0
    while True:
        connection.execute("begin immediate")
        try:
            finish(plan.within(StoppingTx(connection, calls)))
        except Stopped:
            connection.execute("rollback")
        else:
            connection.execute("commit")
            break
        assert dump(connection) == before
        calls += 1

    assert calls > 0
    assert dump(connection) != before


@pytest.mark.parametrize("verb", MAKERS)
def test_a_plan_stopped_anywhere_leaves_nothing(desk: Desk, path: Path, verb: str):
    desk.add()

    stop_everywhere(path, MAKERS[verb](desk))
