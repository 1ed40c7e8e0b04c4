"""Bells whose connection is lost: opened again, and everything rings once."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.redis.ringing import SOON, append, quiet
from tests.servers import redis as servers
from tests.servers.faulty import network
from tests.servers.redis import RedisServer

from backlane.engine.redis import RedisEngine
from backlane.engine.redis.bells import ear as ears


def test_a_lost_connection_is_opened_again_and_rings(server: RedisServer) -> None:
    here, there = RedisEngine(server.url), RedisEngine(server.url)
    bell = here.listen(["mail"])
    quiet(bell)

    with server.client() as client:
        client.client_kill_filter(_type="pubsub")

    assert bell.heard(SOON), "what was missed meanwhile is not known, so it rings"
    quiet(bell)
    append(there)
    assert bell.heard(SOON)
    bell.close()
    here.close()
    there.close()


@pytest.mark.parametrize("is_killed", [False, True])
def test_after_a_restart_of_the_server_bells_ring_again(
    server: RedisServer, is_killed: bool
) -> None:
    here, there = RedisEngine(server.url), RedisEngine(server.url)
    bell = here.listen(["mail"])
    quiet(bell)

    if is_killed:
        server.kill()
    else:
        server.stop()
    assert not bell.heard(0.3)
    server.start()

    assert bell.heard(SOON)
    quiet(bell)
    append(there)
    assert bell.heard(SOON)
    bell.close()
    here.close()
    there.close()


@pytest.mark.parametrize("fault", ["strand", "reset", "cut"])
def test_a_bad_network_is_noticed(
    url: str, namespace: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection says nothing: only a ping without an answer tells."""
    monkeypatch.setattr(ears, "PING_SECONDS", 0.2)
    monkeypatch.setattr(ears, "SILENT_SECONDS", 0.6)
    monkeypatch.setattr(ears, "DRAIN_SECONDS", 0.1)
    there = RedisEngine(f"{url}?namespace={namespace}")
    with network(url) as bad:
        here = RedisEngine(f"{bad.before(url)}?namespace={namespace}")
        bell = here.listen(["mail"])
        quiet(bell)

        getattr(bad, fault)()

        assert bell.heard(SOON), "a new connection rings"
        quiet(bell)
        append(there)
        assert bell.heard(SOON)
        bell.close()
        here.close()
    there.close()


def test_a_coroutine_that_waits_hears_again_after_a_loss(server: RedisServer) -> None:
    async def wait() -> tuple[bool, bool]:
        bell = here.listen(["mail"])
        while await bell.aheard(0.05):
            pass
        waiting = asyncio.create_task(bell.aheard(SOON))
        await asyncio.sleep(0.05)
        with server.client() as client:
            await asyncio.to_thread(client.client_kill_filter, _type="pubsub")
        lost = await waiting
        while await bell.aheard(0.05):
            pass
        waiting = asyncio.create_task(bell.aheard(SOON))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(append, there)
        rang = await waiting
        bell.close()
        return lost, rang

    here, there = RedisEngine(server.url), RedisEngine(server.url)

    assert asyncio.run(wait()) == (True, True)

    here.close()
    there.close()


def test_after_a_fail_over_bells_ring_again() -> None:
    with servers.watched() as watched:
        here, there = RedisEngine(watched.url), RedisEngine(watched.url)
        bell = here.listen(["mail"])
        quiet(bell)

        watched.master.kill()

        assert bell.heard(30.0)
        quiet(bell)
        append(there)
        assert bell.heard(SOON)
        bell.close()
        here.close()
        there.close()
