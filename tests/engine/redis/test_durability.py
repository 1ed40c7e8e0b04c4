"""What a server promises is looked at, told, and refused where it would lose jobs unseen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.engine.contract.desk import Desk
from tests.servers import redis as servers
from tests.servers.missing import Missing

from backlane.engine.protocol import Admission
from backlane.engine.redis import RedisEngine
from backlane.engine.redis.store.durability import Level
from backlane.errors import EngineUnavailable, NotSupported, OutcomeUnknown
from backlane.model.clock import FakeClock


@contextmanager
def desk_at(server: servers.RedisServer, **options: object) -> Iterator[Desk]:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    engine = RedisEngine(f"{server.url}?{query}", clock=(clock := FakeClock()))
    try:
        yield Desk(engine, clock)
    finally:
        engine.close()


@pytest.fixture(params=[None, 7], ids=["newest", "redis-7"])
def version(request: pytest.FixtureRequest) -> int | None:
    version: int | None = request.param
    try:
        servers.binary(version)
    except Missing as why:
        pytest.skip(str(why))
    return version


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, Level.FSYNC),
        ({"appendonly": "yes", "appendfsync": "everysec"}, Level.SECONDS),
        ({"appendonly": "yes", "appendfsync": "no"}, Level.MEMORY),
        ({"appendonly": "no"}, Level.MEMORY),
    ],
)
def test_the_level_is_found_and_told_once_where_jobs_can_be_lost(
    version: int | None,
    settings: dict[str, str],
    level: Level,
    caplog: pytest.LogCaptureFixture,
):
    with servers.started(version, **settings) as server, desk_at(server) as desk:
        caplog.set_level(logging.WARNING, "backlane.redis")
        desk.add(2)
        asyncio.run(desk.engine.arun(desk.engine.list_queues()))

        found = desk.engine.durability  # type: ignore[attr-defined]

    assert found.level is level
    assert len(caplog.records) == (0 if level is Level.FSYNC else 1)


def test_a_server_that_evicts_is_refused(version: int | None):
    with (
        servers.started(version, maxmemory_policy="allkeys-lru") as server,
        desk_at(server) as desk,
    ):
        with pytest.raises(EngineUnavailable, match="noeviction"):
            desk.add_one()
        server.client().config_set("maxmemory-policy", "noeviction")
        desk.add_one()


def test_a_server_that_tells_nothing_is_used_only_when_told_so():
    with servers.started() as server:
        client = server.client()
        client.acl_setuser(
            "tight",
            enabled=True,
            passwords=["+pw"],
            keys=["backlane:*"],
            channels=["backlane:*"],
            commands=["+@all", "-config", "-info"],
        )
        url = server.url.replace("//", "//tight:pw@")
        with pytest.raises(EngineUnavailable, match="durability=unchecked") as raised:
            RedisEngine(url).migrate()
        assert "pw" not in str(raised.value)

        engine = RedisEngine(f"{url}?durability=unchecked")
        engine.migrate()
        assert engine.durability.level is Level.UNKNOWN
        engine.close()


def test_a_server_that_hides_its_settings_tells_them_by_info():
    with servers.started(maxmemory_policy="volatile-ttl") as server:
        server.client().acl_setuser(
            "tight", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"]
        )

        with pytest.raises(EngineUnavailable, match="volatile-ttl"):
            RedisEngine(server.url.replace("//", "//tight:x@")).migrate()


@pytest.mark.parametrize("is_async", [False, True])
def test_fsync_waits_until_a_batch_is_on_the_disk(*, is_async: bool):
    with servers.started() as server, desk_at(server, durability="fsync") as desk:
        job = desk.job()
        plan = desk.engine.append([job], Admission())

        if is_async:
            asyncio.run(desk.engine.arun(plan))
        else:
            desk.run(plan)

        written = b"".join(it.read_bytes() for it in server.folder.rglob("*.aof"))
        assert job.id in written


def test_coroutines_share_the_wait_for_the_disk():
    with servers.started() as server, desk_at(server, durability="fsync") as desk:
        engine = desk.engine

        async def go() -> float:
            await engine.arun(engine.append([desk.job()], Admission()))
            began = time.monotonic()
            await asyncio.gather(
                *(engine.arun(engine.append([desk.job()], Admission())) for _ in range(100))
            )
            return time.monotonic() - began

        assert asyncio.run(go()) < 5  # each alone waits for up to a second
        calls = server.client().info("commandstats")["cmdstat_waitaof"]["calls"]
        assert calls < 20
        assert desk.queue().depth.ready == 101


def test_what_a_server_cannot_do_is_refused_with_the_reason():
    with (
        servers.started(appendonly="no") as server,
        desk_at(server, durability="fsync") as desk,
        pytest.raises(NotSupported, match="appendonly yes"),
    ):
        desk.add_one()
    with (
        servers.started() as server,
        desk_at(server, durability="replica") as desk,
        pytest.raises(EngineUnavailable, match="none connected"),
    ):
        desk.add_one()


def test_an_old_server_cannot_confirm_its_disk():
    try:
        servers.binary(7)
    except Missing as why:
        pytest.skip(str(why))
    with (
        servers.started(7) as server,
        desk_at(server, durability="fsync") as desk,
        pytest.raises(NotSupported, match=r"WAITAOF.*7\.0"),
    ):
        desk.add_one()


def test_a_replica_that_is_lost_leaves_it_unknown_whether_it_is_safe():
    with servers.watched() as servers_:
        engine = RedisEngine(f"{servers_.url}?durability=replica&timeout=1")
        desk = Desk(engine, FakeClock())
        desk.add_one()
        servers_.replica.kill()

        with pytest.raises((OutcomeUnknown, EngineUnavailable)):
            desk.add_one()

        engine.close()
