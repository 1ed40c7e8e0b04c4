"""Blocked jobs: what is kept of them is what their rows say, also where memory is full."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, retry, settlement
from tests.engine.redis.ledger import Ledger
from tests.servers.redis import RedisServer

from backlane.engine.redis import RedisEngine
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.errors import StoreFull
from backlane.model.clock import FakeClock
from backlane.model.job import Edge, Key, KeyRule, State
from backlane.model.limit import Limit, Rate, Use
from backlane.model.outcome import Awaiting

STRIPE = Use("stripe")
TURN = Use("queue:mail", "ann", turn=True)


@pytest.fixture
def desk(server: RedisServer) -> Desk:
    clock = FakeClock()
    desk = Desk(RedisEngine(server.url, clock=clock), clock)
    desk.limits["stripe"] = Limit(2, Rate(5, 1_000, 5))
    desk.fair = {"fair"}
    return desk


def check(server: RedisServer) -> None:
    with server.client() as client:
        Ledger(client, "default").check()


def test_gates_are_what_the_rows_say(server: RedisServer, desk: Desk) -> None:
    jobs = desk.add(6, uses=(TURN, STRIPE), group="ann") + desk.add(4, "fair", uses=(STRIPE,))
    check(server)

    leases = desk.claim(10, "mail", "fair").leases
    check(server)
    desk.settle(leases[0], retry(1))
    desk.settle(leases[1], FAILED)
    desk.amend(Move("other"), jobs[3])
    desk.amend(Reprioritise(9), jobs[4], jobs[8])
    desk.amend(Cancel(), jobs[5])
    desk.amend(Delete(), jobs[9])
    check(server)

    desk.clock.advance(seconds=31)
    desk.claim(10, "mail", "fair", "other")
    desk.sweep()
    check(server)


def test_nothing_is_left_of_a_gate_that_nobody_has(server: RedisServer, desk: Desk) -> None:
    jobs = desk.add(3, uses=(TURN, STRIPE))
    desk.settle(desk.lease(), SUCCEEDED)
    desk.amend(Delete(), *jobs)
    desk.clock.advance(seconds=10)
    desk.sweep()

    with server.client() as client:
        ledger = Ledger(client, "default")
        assert ledger.leaks() <= {"orders", "limits"}
        assert ledger.gates() == {}


def test_a_full_server_wakes_unblocks_and_follows(server: RedisServer, desk: Desk) -> None:
    first = desk.add_one()
    waits = desk.add_one(after=(Edge(first),))
    vain = desk.add_one(after=(Edge(waits), Edge(first)), key=Key("send", "1"))
    turns = desk.add(3, uses=(TURN, STRIPE))
    due = desk.add_one(uses=(STRIPE,), delay_ms=1_000)
    desk.add_one(key=Key("send", "2"), rule=KeyRule("succeeded"))
    desk.clock.advance(seconds=2)
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreFull):
        desk.add(uses=(STRIPE,))

    leases = {lease.job: lease for lease in desk.claim(10).leases}
    assert {first, turns[0], due} <= set(leases)
    desk.settle(leases[due], Awaiting((first,)))
    desk.run(
        desk.engine.settle(
            [settlement(leases[first], SUCCEEDED), settlement(leases[turns[0]], SUCCEEDED)]
        )
    )
    after = {lease.job for lease in desk.claim(10).leases}
    desk.amend(Cancel(), waits)

    assert {waits, turns[1], due} <= after
    assert desk.state(vain) is State.BLOCKED
    assert desk.run(desk.engine.release(STRIPE, b"nobody")) is False
    check(server)


def test_an_edge_that_is_closed_by_hand_stays_closed(server: RedisServer, desk: Desk) -> None:
    first, other = desk.add(2)
    job = desk.add_one("video", after=(Edge(first), Edge(other)))
    leases = {lease.job: lease for lease in desk.claim().leases}
    desk.settle(leases[first], SUCCEEDED)
    assert desk.record(job).waits_for == 1

    desk.amend(Cancel(), other)
    desk.settle(leases[other], FAILED)
    assert desk.state(job) is State.CANCELLED
    desk.amend(Redrive(), other)
    desk.amend(Redrive(), job)

    assert desk.record(job).waits_for == 1
    desk.settle(desk.lease(), SUCCEEDED)
    assert desk.state(job) is State.READY
    check(server)
