"""Bells between processes: one connection each, found again when lost, sparing under load."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement
from tests.engine.redis.ringing import SOON, append, quiet
from tests.servers import redis as servers
from tests.servers.redis import RedisServer

from backlane.engine.protocol import Wanted
from backlane.engine.redis import RedisEngine
from backlane.engine.redis.bells import ear as ears
from backlane.model.clock import FakeClock

WANTED = Wanted(owner="ann", number=100, lease_ms=30_000, queues=("mail",))


@pytest.fixture
def pair(url: str, namespace: str) -> Iterator[tuple[RedisEngine, RedisEngine]]:
    """Two engines on one namespace, by the server's clock, as two processes have them."""
    made = [RedisEngine(f"{url}?namespace={namespace}") for _ in range(2)]
    yield made[0], made[1]
    for engine in made:
        engine.close()


def test_another_process_is_heard(pair: tuple[RedisEngine, RedisEngine]) -> None:
    here, there = pair
    bell = here.listen(["mail"])
    quiet(bell)

    append(there)

    assert bell.heard(SOON)
    bell.close()


def test_a_result_of_another_process_is_heard(pair: tuple[RedisEngine, RedisEngine]) -> None:
    here, there = pair
    (mine,) = append(here)
    bell = here.watch([mine])
    quiet(bell)
    (lease,) = there.run(there.claim(WANTED)).leases
    assert not bell.heard(0.05), "a start rings only for who asks for it"

    there.run(there.settle([settlement(lease, SUCCEEDED)]))

    assert bell.heard(SOON)
    bell.close()


def test_other_queues_and_jobs_do_not_ring(pair: tuple[RedisEngine, RedisEngine]) -> None:
    here, there = pair
    (mine,) = append(here, "video")
    queue, watch = here.listen(["mail"]), here.watch([mine])
    quiet(queue)
    quiet(watch)

    append(there, *(["other"] * 50))

    assert not queue.heard(0.1)
    assert not watch.heard(0)
    queue.close()
    watch.close()


def test_a_thousand_bells_are_one_connection(server: RedisServer) -> None:
    engine = RedisEngine(server.url)
    jobs = append(engine, *(["mail"] * 1_000))
    with server.client() as client:
        before = len(client.client_list())

        bells = [engine.watch([one]) for one in jobs]
        for bell in bells[:20]:
            quiet(bell)

        assert len(client.client_list()) == before + 1
    for bell in bells:
        bell.close()
    engine.close()


def listeners() -> set[threading.Thread]:
    """The threads of this process that listen, those of other tests too."""
    return {thread for thread in threading.enumerate() if thread.name == "backlane-ear"}


def test_nothing_is_opened_for_a_bell_that_hears_nothing(server: RedisServer) -> None:
    engine, before = RedisEngine(server.url), listeners()
    bell = engine.listen(())

    assert not bell.heard(0.01)

    with server.client() as client:
        assert len(client.client_list()) == 1
    assert listeners() <= before
    bell.close()


def test_several_loops_and_threads_hear_at_once(pair: tuple[RedisEngine, RedisEngine]) -> None:
    here, there = pair
    begun, heard = threading.Barrier(7), []

    async def aheard() -> bool:
        bell = here.listen(["mail"])
        while await bell.aheard(0.05):
            pass
        begun.wait()
        try:
            return await bell.aheard(SOON)
        finally:
            bell.close()

    def sheard() -> bool:
        bell = here.listen(["mail"])
        quiet(bell)
        begun.wait()
        try:
            return bell.heard(SOON)
        finally:
            bell.close()

    threads = [
        threading.Thread(target=lambda: heard.append(asyncio.run(aheard()))) for _ in range(3)
    ] + [threading.Thread(target=lambda: heard.append(sheard())) for _ in range(3)]
    for thread in threads:
        thread.start()

    begun.wait()
    time.sleep(0.05)
    append(there)
    for thread in threads:
        thread.join()

    assert heard == [True] * 6


def test_without_a_server_a_bell_is_silent_and_does_not_block() -> None:
    engine = RedisEngine("redis://127.0.0.1:1/0")
    bell = engine.listen(["mail"])

    started = time.monotonic()
    assert not bell.heard(0)
    assert not bell.heard(0.1)

    assert time.monotonic() - started < 2
    bell.close()
    engine.close()


def test_busy_listeners_are_spared(pair: tuple[RedisEngine, RedisEngine], url: str) -> None:
    """A queue that nobody has emptied since its last ring rings 50 times a second at most."""
    here, there = pair
    bell = here.listen(["mail"])
    append(there)
    quiet(bell)

    with redis.Redis.from_url(url) as client:
        before = published(client)
        started = time.monotonic()
        for _ in range(300):
            append(there)
        passed = time.monotonic() - started
        calls = published(client) - before

    # Each append tells of its job as well, on a channel that nobody hears.
    assert calls - 300 <= passed / 0.02 + 2
    bell.close()


def published(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_spublish", {"calls": 0})["calls"])


def test_who_came_back_short_is_rung_at_once(pair: tuple[RedisEngine, RedisEngine]) -> None:
    here, there = pair
    bell = here.listen(["mail"])
    quiet(bell)

    for _ in range(30):
        append(there)
        assert bell.heard(SOON)
        while here.run(here.claim(WANTED)).leases:
            pass

    bell.close()


def test_a_forked_child_hears_by_a_connection_of_its_own(server: RedisServer) -> None:
    engine = RedisEngine(server.url)
    bell = engine.listen(["mail"])
    quiet(bell)
    context = multiprocessing.get_context("fork")
    ready, result = context.Event(), context.Queue()

    def child() -> None:
        mine = engine.listen(["mail"])
        quiet(mine)
        ready.set()
        result.put(mine.heard(SOON))
        result.close()
        result.join_thread()
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    assert ready.wait(SOON)
    append(engine)

    assert result.get(timeout=SOON)
    assert bell.heard(SOON), "the parent's connection is as it was"
    process.join(SOON)
    bell.close()
    engine.close()


def test_a_bell_that_a_child_inherited_is_silent(server: RedisServer) -> None:
    """It is the parent's connection: to read from it would steal the parent's messages."""
    engine = RedisEngine(server.url)
    bell = engine.listen(["mail"])
    quiet(bell)
    context = multiprocessing.get_context("fork")
    result = context.Queue()

    def child() -> None:
        result.put((bell.heard(0.05), asyncio.run(bell.aheard(0.05))))
        bell.close()
        result.close()
        result.join_thread()
        os._exit(0)

    append(engine)
    process = context.Process(target=child)
    process.start()

    assert result.get(timeout=SOON) == (False, False)
    assert bell.heard(SOON)
    process.join(SOON)
    bell.close()
    engine.close()


def test_a_channel_is_left_after_a_while(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(ears, "DRAIN_SECONDS", 0.05)
    engine = RedisEngine(server.url)
    bell = engine.listen(["mail"])
    quiet(bell)

    with server.client() as client:
        assert channels(client) == 1
        bell.close()
        limit = time.monotonic() + SOON
        while channels(client):
            assert time.monotonic() < limit
            time.sleep(0.02)
    engine.close()


def channels(client: redis.Redis) -> int:
    return len(client.execute_command("PUBSUB SHARDCHANNELS"))


def test_a_closed_engine_lets_go_of_its_connection(server: RedisServer) -> None:
    engine = RedisEngine(server.url)
    bell = engine.listen(["mail"])
    quiet(bell)
    bell.close()

    engine.close()

    with server.client() as client:
        assert len(client.client_list()) == 1


def test_closing_is_not_told_as_a_lost_connection(
    url: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each worker that stopped said that its connection for wake-ups was lost."""
    caplog.set_level("INFO", "backlane.redis")
    engine = RedisEngine(f"{url}?namespace={namespace}")
    bell = engine.listen(["mail"])
    quiet(bell)

    bell.close()
    engine.close()

    assert "was lost" not in caplog.text


def test_on_a_cluster_a_ring_is_heard_from_another_process() -> None:
    url = f"{servers.cluster()}?namespace={servers.namespace()}"
    here, there = RedisEngine(url), RedisEngine(url)
    bell = here.listen(["mail"])
    quiet(bell)

    append(there)

    assert bell.heard(SOON)
    bell.close()
    here.close()
    there.close()


def test_a_fake_clock_rings_each_time(url: str, namespace: str) -> None:
    """On a clock that stands still nothing is spared, or a test would wait for ever."""
    clock = FakeClock()
    here, there = (RedisEngine(f"{url}?namespace={namespace}", clock=clock) for _ in range(2))
    bell, desk = here.listen(["mail"]), Desk(there, clock)
    quiet(bell)

    for _ in range(3):
        desk.add()
        assert bell.heard(SOON)

    bell.close()
    here.close()
    there.close()
