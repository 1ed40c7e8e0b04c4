"""The driver: scripts that a server forgot, lines that end, callers that leave."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement
from tests.servers import redis as servers
from tests.servers.faulty import Network, network

from backlane.engine.protocol import Admission, Wanted
from backlane.engine.redis import RedisEngine
from backlane.errors import (
    EngineBusy,
    EngineUnavailable,
    OutcomeUnknown,
    SchemaMismatch,
    StoreFull,
)
from backlane.model.clock import FakeClock


def opened(url: str, namespace: str, **options: object) -> Desk:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    clock = FakeClock()
    return Desk(RedisEngine(f"{url}?namespace={namespace}{more}", clock=clock), clock)


@pytest.fixture
def bad(url: str, namespace: str) -> Iterator[tuple[Desk, Network]]:
    """A desk behind a network that does as it is told; it waits for answers for a second."""
    with network(url) as between:
        desk = opened(between.before(url), namespace, timeout=1)
        yield desk, between
        desk.engine.close()


# -- scripts --


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_forgot_its_scripts_is_told_them_again(
    desk: Desk, url: str, *, is_async: bool
):
    desk.add_one()
    with redis.Redis.from_url(url) as client:
        client.script_flush()

    if is_async:
        answer = asyncio.run(desk.engine.arun(desk.engine.append([desk.job()], Admission())))
        assert isinstance(answer, list)
    else:
        desk.add_one()
    assert len(desk.claimed_ids()) == 2


def test_no_text_of_a_user_is_ever_part_of_a_key(desk: Desk, url: str, namespace: str):
    words = "a b}{\r\n*:\0é"
    desk.add_one(group=words, resource=words, task=words, body=words.encode())
    desk.claim(1)

    with redis.Redis.from_url(url) as client:
        keys = [key.decode() for key in client.keys("*") if namespace.encode() in key]

    prefix = f"backlane:1:{{{namespace}}}:"
    assert keys
    assert all(key.removeprefix(prefix).replace(":", "").replace("_", "").isalnum() for key in keys)


def test_another_layout_is_refused(desk: Desk, url: str, namespace: str):
    with redis.Redis.from_url(url) as client:
        client.hset(f"backlane:1:{{{namespace}}}:meta", "version", 99)

    with pytest.raises(SchemaMismatch, match="layout is 99"):
        desk.add_one()


# -- lines --


def test_a_server_that_is_not_there_is_unavailable(namespace: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        desk = opened(f"redis://127.0.0.1:{nobody.getsockname()[1]}", namespace)

        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            desk.add_one()
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            asyncio.run(desk.engine.arun(desk.engine.list_queues()))


def test_a_database_beyond_those_of_the_server_is_told_as_such(url: str, namespace: str):
    desk = opened(f"{url.removesuffix('/0')}/9999", namespace)

    with pytest.raises(EngineUnavailable, match="no database of the number"):
        desk.add_one()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_was_lost_leaves_the_outcome_unknown(
    bad: tuple[Desk, Network], *, is_async: bool
):
    desk, between = bad

    async def go() -> None:
        job = desk.job()
        plan = desk.engine.append([job], Admission())
        run = desk.engine.arun if is_async else None
        desk.add_one()  # so that the server knows the script
        await desk.engine.arun(desk.engine.list_queues())
        between.lost_answers = 1
        with pytest.raises(OutcomeUnknown, match="same ids again"):
            await run(plan) if run else desk.run(plan)

        again = await run(plan) if run else desk.run(plan)

        assert isinstance(again, list)
        assert again[0].first == job.id  # it had been stored

    asyncio.run(go())


def test_a_read_whose_answer_was_lost_changed_nothing(bad: tuple[Desk, Network]):
    desk, between = bad
    desk.add_one()
    between.lost_answers = 1

    with pytest.raises(EngineUnavailable, match="nothing was changed"):
        desk.run(desk.engine.list_queues())

    assert desk.queue().depth.ready == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_line_that_ended_while_it_rested_is_replaced(
    bad: tuple[Desk, Network], *, is_async: bool
):
    desk, between = bad

    async def go() -> None:
        for _ in range(3):
            plan = desk.engine.append([desk.job()], Admission())
            await desk.engine.arun(plan) if is_async else desk.run(plan)
            between.cut()
            await asyncio.sleep(0.1)

    asyncio.run(go())

    assert desk.queue().depth.ready == 3


def test_a_half_open_connection_costs_the_time_that_the_url_says(bad: tuple[Desk, Network]):
    desk, between = bad
    desk.add_one()
    between.strand()
    began = time.monotonic()

    with pytest.raises(OutcomeUnknown):
        desk.add_one()

    assert 0.5 < time.monotonic() - began < 8
    desk.add_one()


def test_callers_beyond_the_pool_are_told_that_it_is_busy(url: str, namespace: str):
    desk = opened(url, namespace, timeout=0.2, pool=1)
    desk.add_one()

    pool = desk.engine._driver._pool  # type: ignore[attr-defined]
    pool.enter()
    with pytest.raises(EngineBusy, match="pool="):
        desk.add_one()
    pool.leave()

    desk.add_one()
    desk.engine.close()


# -- callers --


def test_a_cancelled_caller_leaves_no_reply_for_another(desk: Desk):
    async def go() -> None:
        engine = desk.engine
        for _ in range(50):
            claim = asyncio.ensure_future(
                engine.arun(engine.claim(Wanted("ann", 1, 1000, ("mail",))))
            )
            await asyncio.sleep(0)
            claim.cancel()
            answer = await engine.arun(engine.append([desk.job()], Admission()))
            assert isinstance(answer, list)
            assert answer[0].is_new

    asyncio.run(go())


def test_two_hundred_coroutines_share_one_line(desk: Desk, url: str):
    async def go() -> int:
        engine = desk.engine
        await engine.arun(engine.list_queues())
        with redis.Redis.from_url(url) as client:
            before = client.info("clients")["connected_clients"]
            await asyncio.gather(
                *(engine.arun(engine.append([desk.job()], Admission())) for _ in range(200))
            )
            return int(client.info("clients")["connected_clients"]) - before

    assert asyncio.run(go()) == 0
    assert desk.queue().depth.ready == 200


def test_a_forked_child_opens_lines_of_its_own(desk: Desk):
    desk.add_one()
    child = os.fork()
    if not child:
        try:
            desk.clock.advance(seconds=1)  # so that its ids are others
            desk.add(5, "child's")
            os._exit(0)
        finally:
            os._exit(1)
    desk.add(5)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (desk.queue().depth.ready, desk.queue("child's").depth.ready) == (6, 5)


# -- rights --


def test_a_user_with_the_rights_that_the_documentation_lists_can_do_all(namespace: str):
    page = (Path(__file__).parents[3] / "docs/engines/redis.md").read_text("utf-8")
    rules = re.search(r"ACL SETUSER backlane (.*)", page)
    assert rules is not None
    with servers.started() as server:
        server.client().execute_command("ACL", "SETUSER", "backlane", *rules[1].split())
        secret = re.search(r">(\S+)", rules[1])
        assert secret is not None
        url = server.url.replace("//", f"//backlane:{secret[1]}@")
        desk = opened(url, namespace, durability="fsync")

        bell = desk.engine.listen(["mail"])
        desk.add(3)
        assert bell.heard(5)
        assert len(desk.claimed_ids()) == 3
        assert desk.engine.diagnose()
        bell.close()
        desk.engine.close()


# -- memory that is full --


def test_a_full_memory_stores_nothing_and_lets_work_end(namespace: str):
    with servers.started(appendonly="no") as server:
        desk = opened(server.url, namespace)
        desk.add(20)
        claimed = desk.claim(5)
        client = server.client()
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)

        with pytest.raises(StoreFull, match="maxmemory"):
            desk.add_one()
        with pytest.raises(StoreFull, match="maxmemory"):
            desk.add(2, "new", group="g")
        held = [(lease.job, lease.token) for lease in claimed.leases]
        assert desk.run(desk.engine.extend(held, 60_000)).lost == []
        assert desk.queue().depth.jobs == 20
        settled = desk.run(
            desk.engine.settle([settlement(lease, SUCCEEDED) for lease in claimed.leases])
        )
        assert settled.lost == []

        client.config_set("maxmemory", 0)
        desk.add_one()
        assert desk.queue().depth.jobs == 16
        desk.engine.close()
