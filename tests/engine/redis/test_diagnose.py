"""The doctor finds each of these states on a real server, and its remedy ends it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from tests.engine.contract.desk import Desk
from tests.servers import redis as servers
from tests.servers.missing import Missing, give_up
from tests.servers.redis import RedisServer

from backlane.engine.protocol import Finding
from backlane.engine.redis import RedisEngine
from backlane.engine.redis.doctor.diagnose import diagnose, judged
from backlane.engine.redis.doctor.facts import Facts
from backlane.engine.redis.driver.driver import Driver
from backlane.engine.redis.store.address import parse
from backlane.model.clock import FakeClock


@pytest.fixture(scope="module", params=[7, None], ids=["old", "newest"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    try:
        with servers.started(request.param) as made:
            yield made
    except Missing as why:
        give_up("redis", why)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of a server that is as it was when it started."""
    with server.client() as made:
        before = made.config_get("*")
        yield made
        for name, value in made.config_get("*").items():
            if before.get(name) != value:
                made.config_set(name, before[name])
        made.config_resetstat()
        made.flushall()


def found(url: str) -> list[Finding]:
    return RedisEngine(url).diagnose()


def about(url: str, subject: str) -> list[Finding]:
    return [finding for finding in found(url) if finding.subject == subject]


def the_bad(url: str, subject: str) -> Finding:
    (finding,) = [it for it in about(url, subject) if it.state != "ok"]
    assert finding.remedy
    return finding


def is_well(url: str, subject: str) -> bool:
    return {finding.state for finding in about(url, subject)} <= {"ok"}


def obey(client: redis.Redis, remedy: str | None) -> None:
    """Carry out the first `redis-cli` command of a remedy."""
    match = re.search(r"redis-cli ((?:CONFIG|ACL|BGSAVE|BGREWRITEAOF)[^,;]*)", remedy or "")
    assert match, remedy
    client.execute_command(*(word.strip("'") for word in match[1].split()))


def await_children(client: redis.Redis) -> None:
    """Wait until nothing is written in the background."""
    limit = time.monotonic() + 20
    while any(
        client.info("persistence")[flag]
        for flag in ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
    ):
        assert time.monotonic() < limit
        time.sleep(0.05)


# -- the server --


def test_a_server_that_is_well_is_said_to_be(server: RedisServer, client: redis.Redis) -> None:
    findings = found(server.url)

    bad = {finding.subject for finding in findings if finding.state != "ok"}
    assert bad <= {"durability", "log", "latency"}  # everysec, and a busy machine
    assert all(finding.remedy or finding.state == "ok" for finding in findings)
    assert len(findings) >= 8


def test_without_a_server_it_says_so_and_no_password() -> None:
    (finding,) = found("redis://ann:s3cret@127.0.0.1:1/0")

    assert (finding.subject, finding.state) == ("server", "error")
    assert finding.remedy
    assert "s3cret" not in finding.text


def test_a_user_who_may_nothing_is_told_what_he_lacks(
    server: RedisServer, client: redis.Redis
) -> None:
    client.execute_command("ACL SETUSER poor on >word -@all +hello +auth +select")

    (finding,) = found(server.url.replace("redis://", "redis://poor:word@"))

    assert finding.state == "error"
    assert "word" not in finding.text
    assert "start" not in finding.remedy


def test_a_password_that_is_wrong_is_to_be_corrected(server: RedisServer) -> None:
    """The doctor said to start a server that had answered."""
    (finding,) = found(server.url.replace("redis://", "redis://ann:s3cret@"))

    assert finding.state == "error"
    assert finding.remedy.startswith("correct user")
    assert "s3cret" not in finding.text


def test_a_replica_takes_no_writes() -> None:
    with servers.watched() as watched:
        url = f"redis://127.0.0.1:{watched.replica.port}/0"

        assert the_bad(url, "role").state == "error"
        assert str(watched.master.port) in the_bad(url, "role").text
        assert is_well(watched.url, "role")


def test_a_node_of_a_cluster_is_not_a_server_of_its_own() -> None:
    url = servers.cluster()

    assert is_well(url, "cluster")
    assert about(url, "cluster")
    assert the_bad(url.replace("redis+cluster://", "redis://"), "cluster").state == "warning"


# -- what loses jobs --


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_eviction_is_an_error(server: RedisServer, client: redis.Redis, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)

    finding = the_bad(server.url, "eviction")

    assert finding.state == "error"
    assert policy in finding.text
    obey(client, finding.remedy)
    assert is_well(server.url, "eviction")


def test_keys_that_were_evicted_are_told_for_as_long_as_it_is_counted(
    server: RedisServer, client: redis.Redis
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    for number in range(50):
        client.set(f"victim:{number}", b"x" * 100_000)
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used - 2_000_000)
    client.set("last", b"x" * 100_000)
    assert int(client.info("stats")["evicted_keys"]) > 0
    client.config_set("maxmemory", 0)
    client.config_set("maxmemory-policy", "noeviction")

    finding = the_bad(server.url, "eviction")

    assert "thrown away" in finding.text
    client.config_resetstat()
    assert is_well(server.url, "eviction")


@pytest.mark.parametrize(
    ("setting", "value", "state", "words"),
    [
        ("appendonly", "no", "error", "memory"),
        ("appendfsync", "no", "error", "30 s"),
        ("appendfsync", "everysec", "warning", "up to 2 s"),
    ],
)
def test_durability_is_told_by_its_level(
    server: RedisServer, client: redis.Redis, setting: str, value: str, state: str, words: str
) -> None:
    client.config_set("appendfsync", "always")
    assert is_well(server.url, "durability")
    client.config_set(setting, value)

    finding = the_bad(server.url, "durability")

    assert (finding.state, words in finding.text) == (state, True)
    obey(client, finding.remedy)
    assert "memory" not in (about(server.url, "durability")[0].text)


def test_an_url_that_waits_for_the_disk_is_as_good_as_always(
    server: RedisServer, client: redis.Redis
) -> None:
    assert is_well(f"{server.url}?durability=fsync", "durability")


def test_a_snapshot_that_failed_stops_writes(server: RedisServer, client: redis.Redis) -> None:
    # A folder where the file is to be: nothing can be renamed to it.
    blocked = server.folder / "dump.rdb"
    blocked.unlink(missing_ok=True)
    (blocked / "in the way").mkdir(parents=True)
    client.set("something", "new")
    await_children(client)
    client.bgsave()
    await_children(client)
    assert the_bad(server.url, "snapshot").state == "warning"

    client.config_set("save", "3600 1")
    client.config_set("stop-writes-on-bgsave-error", "yes")
    assert the_bad(server.url, "snapshot").state == "error"

    (blocked / "in the way").rmdir()
    blocked.rmdir()
    client.save()
    assert is_well(server.url, "snapshot")


def test_too_few_replicas_refuse_writes(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)

    finding = the_bad(server.url, "replicas")

    assert finding.state == "error"
    obey(client, finding.remedy)
    assert is_well(server.url, "replicas")


def test_waiting_for_a_replica_needs_one(server: RedisServer, client: redis.Redis) -> None:
    assert the_bad(f"{server.url}?durability=replica", "replicas").state == "error"


def test_a_replica_that_fell_behind_is_named() -> None:
    facts = Facts(
        "here",
        parse("redis://127.0.0.1/0"),
        replicas=(
            {"ip": "10.0.0.1", "port": "4711", "state": "wait_bgsave", "lag": "0"},
            {"ip": "10.0.0.2", "port": "4712", "state": "online", "lag": "60"},
            {"ip": "10.0.0.3", "port": "4713", "state": "online", "lag": "1"},
        ),
    )

    texts = [finding.text for finding in judged(facts) if finding.subject == "replicas"]

    assert len(texts) == 2
    assert "10.0.0.1:4711 is wait_bgsave" in texts[0]
    assert "10.0.0.2:4712 is online, 60 s behind" in texts[1]


def test_replicas_that_keep_up_are_well() -> None:
    with servers.watched() as watched:
        assert is_well(watched.url, "replicas")
        assert is_well(f"{watched.url}?durability=replica", "replicas")


# -- what loses time --


def test_memory_near_its_limit_is_told_before_it_is_reached(
    server: RedisServer, client: redis.Redis
) -> None:
    client.set("ballast", b"x" * 20_000_000)
    used = settled_memory(client)
    client.config_set("maxmemory", int(used / 0.94))  # between the two states
    assert the_bad(server.url, "memory").state == "warning"

    client.config_set("maxmemory", int(used / 1.05))
    finding = the_bad(server.url, "memory")

    assert finding.state == "error"
    assert "refused" in finding.text
    obey(client, finding.remedy)
    assert is_well(server.url, "memory")


def settled_memory(client: redis.Redis) -> int:
    """The memory in use, once what is on its way to the file is no longer counted."""
    used = int(client.info("memory")["used_memory"])
    limit = time.monotonic() + 20
    while True:
        time.sleep(0.1)
        before, used = used, int(client.info("memory")["used_memory"])
        if abs(used - before) < 0.01 * used:
            return used
        assert time.monotonic() < limit


def test_connections_near_their_limit_are_told(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("maxclients", 10)
    others = [server.client() for _ in range(7)]
    for other in others:
        other.ping()

    finding = the_bad(server.url, "clients")

    assert finding.state == "warning"
    for other in others:
        other.close()
    obey(client, finding.remedy)
    assert is_well(server.url, "clients")


def test_refused_connections_are_told(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("maxclients", 3)
    others = [server.client() for _ in range(3)]
    for other in others[:2]:
        other.ping()
    with pytest.raises(redis.RedisError):
        others[2].ping()
    for other in others:
        other.close()
    client.config_set("maxclients", 1_000)

    assert "refused" in the_bad(server.url, "clients").text


def test_clocks_that_agree_are_well(server: RedisServer, client: redis.Redis) -> None:
    assert is_well(server.url, "clock")


@pytest.mark.parametrize(
    ("ahead_ms", "words"), [(600_000.0, "600.0 s ahead of"), (-90_000.0, "90.0 s behind")]
)
def test_clocks_that_differ_are_told(ahead_ms: float, words: str) -> None:
    facts = Facts("here", parse("redis://127.0.0.1/0"), ahead_ms=ahead_ms, doubt_ms=1.0)

    (finding,) = [one for one in judged(facts) if one.subject == "clock"]

    assert (finding.state, words in finding.text) == ("warning", True)


def test_channels_that_may_not_be_heard_make_starts_late(
    server: RedisServer, client: redis.Redis
) -> None:
    client.execute_command("ACL SETUSER mute on >word ~* +@all resetchannels")
    url = server.url.replace("redis://", "redis://mute:word@")

    finding = the_bad(url, "wake-ups")

    assert finding.state == "warning"
    obey(client, finding.remedy)
    assert is_well(url, "wake-ups")


def test_the_documented_rights_are_enough(server: RedisServer, client: redis.Redis) -> None:
    page = Path("docs/engines/redis.md").read_text("utf-8")
    (command,) = re.findall(r"redis-cli (ACL SETUSER backlane .*)", page)
    client.execute_command(*command.split())
    url = server.url.replace("redis://", "redis://backlane:sesame@")

    bad = [finding for finding in found(url) if finding.state != "ok"]

    assert {finding.subject for finding in bad} <= {"durability", "log", "latency"}
    engine = RedisEngine(url)
    bell = engine.listen(["mail"])
    while bell.heard(0.05):
        pass
    clock = FakeClock(datetime.now(UTC))
    desk = Desk(RedisEngine(url, clock=clock), clock)
    desk.add()
    assert bell.heard(5.0)
    bell.close()
    engine.close()
    desk.engine.close()


def test_who_may_not_hear_still_gets_work(server: RedisServer, client: redis.Redis) -> None:
    client.execute_command("ACL SETUSER mute on >word ~* +@all resetchannels &*")
    client.execute_command("ACL SETUSER deaf on >word ~* +@all -ssubscribe resetchannels &*")
    clock = FakeClock(datetime.now(UTC) + timedelta(days=1))
    engine = RedisEngine(server.url.replace("redis://", "redis://deaf:word@"), clock=clock)
    desk = Desk(engine, clock)
    bell = engine.listen(["mail"])

    job = desk.add_one()

    assert not bell.heard(0.01)
    assert desk.claimed_ids() == [job]
    assert the_bad(server.url.replace("redis://", "redis://deaf:word@"), "wake-ups")
    bell.close()
    engine.close()


def test_a_namespace_of_another_layout_is_told(server: RedisServer, client: redis.Redis) -> None:
    client.hset("backlane:1:{default}:meta", "version", 99)

    finding = the_bad(server.url, "namespace")

    assert finding.state == "error"
    assert "99" in finding.text


def test_a_look_leaves_nothing_behind(server: RedisServer, client: redis.Redis) -> None:
    before = len(client.client_list())

    diagnose(Driver(parse(server.url), FakeClock()))

    assert (client.keys("*"), len(client.client_list())) == ([], before)
