"""Where the server is: sentinels that name another one, slots that move between nodes."""

from __future__ import annotations

import asyncio
import binascii
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from tests.engine.contract.desk import Desk
from tests.servers import redis as servers
from tests.servers.process import free_port

from backlane.engine.protocol import Admission
from backlane.engine.redis import RedisEngine
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.clock import SystemClock

LIMIT = 20.0  # seconds until a fail-over is over


def until_it_works(act: Callable[[], object]) -> None:
    """Do it as a caller would that may do it again."""
    limit = time.monotonic() + LIMIT
    while True:
        try:
            act()
        except (EngineUnavailable, OutcomeUnknown):
            assert time.monotonic() < limit, "nobody takes writes again"
            time.sleep(0.05)
        else:
            return


def ids(number: int, salt: int) -> list[bytes]:
    now = SystemClock().wall_ms()
    return [(now << 80 | 7 << 76 | 2 << 62 | salt << 32 | n).to_bytes(16) for n in range(number)]


def test_a_fail_over_by_sentinels_is_followed_in_both_colours():
    with servers.watched() as them:
        engine = RedisEngine(f"{them.url}?timeout=2")
        desk = Desk(engine, SystemClock())  # type: ignore[arg-type]
        first = [desk.job(id=job) for job in ids(10, 1)]
        second = [desk.job(id=job) for job in ids(10, 2)]
        desk.append(*first)
        before = them.now()
        limit = time.monotonic() + LIMIT
        while them.replica.client().info("replication")["master_link_status"] != "up":
            assert time.monotonic() < limit
        master = them.master.client()
        master.wait(1, 2000)

        them.master.kill()
        until_it_works(lambda: desk.append(*second))

        assert them.now() != before
        assert desk.queue().depth.ready == 20
        queues = asyncio.run(engine.arun(engine.list_queues()))
        assert queues[0].depth.ready == 20
        engine.close()


def test_a_master_that_was_made_a_replica_is_left():
    with servers.watched() as them:
        engine = RedisEngine(f"{them.url}?timeout=2")
        desk = Desk(engine, SystemClock())  # type: ignore[arg-type]
        desk.append(*(desk.job(id=job) for job in ids(10, 1)))
        with redis.Redis(port=them.ports[0]) as sentinel:
            limit = time.monotonic() + LIMIT
            while not _began(sentinel, them.name):
                assert time.monotonic() < limit, "the sentinel finds no replica"
                time.sleep(0.1)
        while them.master.client().info("replication")["role"] != "slave":
            assert time.monotonic() < limit, "the old master stays one"
            time.sleep(0.05)

        until_it_works(lambda: desk.append(*(desk.job(id=job) for job in ids(10, 2))))

        assert desk.queue().depth.ready == 20
        engine.close()


def _began(sentinel: redis.Redis, name: str) -> bool:
    try:
        sentinel.execute_command("SENTINEL FAILOVER", name)
    except redis.ResponseError:  # it has not heard enough of the replica yet
        return False
    return True


# -- clusters --


@contextmanager
def two_nodes() -> Iterator[list[servers.RedisServer]]:
    nodes = [
        servers.RedisServer(servers.binary(), cluster_enabled="yes", cluster_port=str(free_port()))
        for _ in range(2)
    ]
    try:
        for node in nodes:
            node.start()
        servers.join(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.process.remove()


def test_a_slot_that_moves_is_followed_while_it_moves_and_after():
    with two_nodes() as nodes:
        engine = RedisEngine(f"redis+cluster://127.0.0.1:{nodes[0].port}?namespace=shop")
        desk = Desk(engine, SystemClock())  # type: ignore[arg-type]
        desk.append(*(desk.job(id=job) for job in ids(10, 1)))
        slot = binascii.crc_hqx(b"shop", 0) % 16384
        clients = [node.client() for node in nodes]
        source, target = clients if clients[0].cluster("countkeysinslot", slot) else clients[::-1]
        names = [client.execute_command("CLUSTER MYID").decode() for client in (source, target)]
        to = nodes[clients.index(target)].port

        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
        desk.append(*(desk.job(id=job) for job in ids(10, 2)))  # all keys are still there
        for key in source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
            source.execute_command("MIGRATE", "127.0.0.1", to, key, 0, 5000)
        desk.append(*(desk.job(id=job) for job in ids(10, 3)))  # ASK
        for client in (target, source):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])
        desk.append(*(desk.job(id=job) for job in ids(10, 4)))  # MOVED
        plan = engine.append([desk.job(id=job) for job in ids(10, 5)], Admission())
        assert isinstance(asyncio.run(engine.arun(plan)), list)

        assert desk.queue().depth.ready == 50
        assert len(desk.claimed_ids(100)) == 50
        engine.close()


def test_a_cluster_of_one_node_is_a_cluster():
    with servers.started(cluster_enabled="yes", cluster_port=str(free_port())) as server:
        server.client().execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        limit = time.monotonic() + LIMIT
        while server.client().execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < limit
            time.sleep(0.05)
        for scheme in ("redis+cluster", "redis"):
            engine = RedisEngine(f"{scheme}://127.0.0.1:{server.port}?namespace=one")
            assert isinstance(engine.run(engine.list_queues()), list)
            engine.close()
