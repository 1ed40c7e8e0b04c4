"""Offers on Redis: one script each, marks that cost little and stay few, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import redis
from tests.engine.contract.desk import SUCCEEDED, Desk, retry
from tests.engine.contract.offers import offered, withdraw
from tests.engine.redis.ledger import Ledger
from tests.servers.redis import RedisServer

from backlane.engine.offering import Offer
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.redis import RedisEngine
from backlane.engine.selection import Cancel, Reprioritise
from backlane.errors import StoreFull
from backlane.model.clock import FakeClock, SystemClock
from backlane.model.job import Lane
from backlane.model.limit import Limit

FOR_MS = 60_000
MARK_BYTES = 150


def marks(ledger: Ledger) -> set[str]:
    return {name for name in ledger.names() if name.startswith("offered:")}


def test_marks_cost_little_and_are_gone_with_the_window(server: RedisServer) -> None:
    clock = FakeClock()
    desk = Desk(RedisEngine(server.url, clock=clock), clock)
    jobs = desk.add(1_000)
    offered(desk, 0)  # the server knows the script then
    ledger = Ledger(server.client(), "default")
    used = server.client().info("memory")["used_memory"]

    assert offered(desk, 1_000) == jobs
    assert (server.client().info("memory")["used_memory"] - used) / 1_000 < MARK_BYTES
    assert len(marks(ledger)) == 1
    assert desk.claimed_ids(1_000, ids=tuple(jobs)) == jobs
    assert offered(desk, 1_000) == []
    assert marks(ledger) == set()
    desk.engine.close()


def test_what_was_offered_leaves_no_trace_in_sets_and_counters(desk: Desk, ledger: Ledger) -> None:
    desk.limits["queue:video"] = Limit(concurrency=2)
    jobs = desk.add(20)
    desk.add(5, "video", group="acme", resource="stripe")
    desk.add(5, lane=Lane.EXCLUSIVE, expires_ms=5_000)
    offered(desk, 10)
    offered(desk, 10, "video")
    offered(desk, 10, lane=Lane.EXCLUSIVE)

    desk.amend(Reprioritise(9), *jobs[3:5])
    desk.amend(Cancel(), jobs[0])
    for lease in desk.claim(4, ids=tuple(jobs)).leases:
        desk.settle(lease, retry(1))
    desk.clock.advance(seconds=6)
    offered(desk, 12)
    withdraw(desk, *jobs[6:9])
    ledger.check()
    while leases := desk.claim(100, "mail", "video", lane=None).leases:
        for lease in leases:
            desk.settle(lease, SUCCEEDED)
    for lane in Lane:
        assert offered(desk, lane=lane) == offered(desk, queue="video", lane=lane) == []

    ledger.check()
    assert marks(ledger) == set()


def test_plain_work_never_looks_at_marks(server: RedisServer) -> None:
    """Who has no broker pays nothing for those who have one."""
    engine = RedisEngine(server.url)
    desk = Desk(engine, FakeClock())
    seen: list[str] = []
    with server.client() as client, client.monitor() as told:
        desk.add(10)
        for lease in desk.claim(10).leases:
            desk.settle(lease, SUCCEEDED)
        client.set("end", "1")
        for said in told.listen():
            seen.append(said["command"])
            if "SET end" in said["command"]:
                break
    engine.close()

    seen = [command for command in seen if not command.startswith("EVAL")]
    assert any("ready:" in command for command in seen)
    assert not any("offered:" in command for command in seen)


def test_relays_of_several_processes_never_name_the_same_job(url: str, namespace: str) -> None:
    first = RedisEngine(f"{url}?namespace={namespace}")
    jobs = Desk(first, FakeClock()).add(600)
    named: list[bytes] = []
    leased: list[bytes] = []

    def relay(engine: RedisEngine) -> None:
        while len(named) < 600:
            told = engine.run(engine.offer([Offer("mail", 50)], FOR_MS))
            named.extend(one.job for one in told.jobs)

    def work(engine: RedisEngine) -> None:
        while len(leased) < 600:
            wanted = Wanted("ann", 20, 30_000, ids=(bytes(16), *named[-100:]))
            leased.extend(lease.job for lease in engine.run(engine.claim(wanted)).leases)

    _at_once(url, namespace, relay, relay, relay, work, work)
    first.close()

    assert sorted(named) == sorted(leased) == jobs


def _at_once(url: str, namespace: str, *acts: Callable[[RedisEngine], None]) -> None:
    engines = [RedisEngine(f"{url}?namespace={namespace}") for _ in acts]
    threads = [
        threading.Thread(target=act, args=(engine,))
        for act, engine in zip(acts, engines, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.close()


def test_jobs_are_offered_though_memory_is_full(server: RedisServer) -> None:
    engine = RedisEngine(server.url)
    desk = Desk(engine, FakeClock())
    jobs = desk.add(3)
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreFull):
        desk.add()

    assert offered(desk) == jobs
    withdraw(desk, jobs[0])
    assert offered(desk) == jobs[:1]
    engine.close()


def test_marks_of_a_queue_that_nobody_offers_are_dropped_after_a_day(
    desk: Desk, url: str, namespace: str
) -> None:
    desk.add(3)
    offered(desk)

    with redis.Redis.from_url(url) as client:
        (key,) = client.keys(f"*{namespace}*offered:*")
        assert 86_000 < client.ttl(key) <= 86_400


def test_an_append_rings_at_once_where_there_was_room(url: str, namespace: str) -> None:
    """Relays listen as workers do, which under load are told every 20 ms at most."""
    engine = RedisEngine(f"{url}?namespace={namespace}", clock=SystemClock())
    desk = Desk(engine, FakeClock())
    bell = engine.listen(["mail"])
    for _ in range(5):
        desk.add()
        bell.heard(1)
        engine.run(engine.offer([Offer("mail", 100)], FOR_MS))
        engine.run(engine.append([desk.job()], Admission()))
        assert bell.heard(1)
        engine.run(engine.offer([Offer("mail", 100)], FOR_MS))
    bell.close()
    engine.close()
