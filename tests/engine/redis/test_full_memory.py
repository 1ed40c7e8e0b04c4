"""A server whose memory is full: what ends, frees and stops jobs goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, retry
from tests.engine.redis.ledger import Ledger
from tests.servers.redis import RedisServer

from backlane.engine.moving import Seal
from backlane.engine.protocol import Close, Presence, Tune
from backlane.engine.redis import RedisEngine
from backlane.engine.selection import Cancel, Delete
from backlane.errors import StoreFull, TooLarge
from backlane.model.clock import FakeClock
from backlane.model.job import Note, Progress
from backlane.model.outcome import Crashed, ErrorRecord


@pytest.fixture
def full(server: RedisServer) -> Iterator[Desk]:
    """A desk at a server that has jobs of all kinds, and has no more room."""
    clock = FakeClock()
    engine = RedisEngine(server.url, clock=clock)
    desk = Desk(engine, clock)
    for _ in range(3):
        desk.finished()
    desk.add(5, resource="stripe")
    desk.add(5)
    clock.advance(seconds=10)
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreFull):
        desk.add()
    yield desk
    with server.client() as client:
        Ledger(client, "default").check()
    engine.close()


def test_history_is_pruned_which_is_what_makes_room(full: Desk) -> None:
    assert full.sweep(done_jobs=0, least_ms=0).pruned == 3


def test_each_outcome_is_settled_and_its_breaker_hears_of_it(full: Desk) -> None:
    leases = full.claim(10).leases
    full.settle(leases[0], Crashed(alone=True, error=ErrorRecord("Killed", "by the system")))
    full.settle(leases[1], SUCCEEDED)
    full.settle(leases[2], retry(1, message="größer"))

    (stripe,) = full.run(full.engine.list_resources())
    assert (stripe.succeeded, stripe.failed) == (1, 1)


def test_people_can_delete_cancel_tune_steer_and_move_away(full: Desk) -> None:
    first, second = (it.id for it in full.find(limit=2).records)

    assert full.amend(Delete(), first).changed == [first]
    assert full.amend(Cancel(), second).changed == [second]
    assert full.run(full.engine.tune("mail", Tune(paused=True))) is not None
    assert full.run(full.engine.steer("stripe", Close())) is not None
    full.run(full.engine.dump_settings())
    assert full.run(full.engine.seal(Seal("sqlite:///jobs.db"))) is None
    whole = full.run(full.engine.dump(1)).jobs[0].record
    assert full.run(full.engine.discard([(whole.id, whole.revision)])) == []


def test_workers_show_themselves_and_keep_what_they_have(full: Desk) -> None:
    (lease,) = full.claim(1).leases
    seen = Presence(owner="ann", host="a", pid=1, queues=("mail",), slots=1, running=1)
    full.run(full.engine.announce(seen))

    assert full.run(full.engine.extend([(lease.job, lease.token)], 60_000)).lost == []
    assert full.run(full.engine.note([Note(lease.job, lease.token, Progress(0.5))])) == []
    assert len(full.run(full.engine.measure(["mail"])).queues) == 1


def test_a_batch_that_no_server_could_take_is_refused_before_it_is_sent(desk: Desk) -> None:
    body = b"x" * 1_048_576
    with pytest.raises(TooLarge, match="enqueue fewer at a time"):
        desk.append(*(desk.job(body=body) for _ in range(257)))
