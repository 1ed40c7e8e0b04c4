"""RabbitMQ: private nodes of the system's packages; a test gets a prefix of its own.

`BACKLANE_TEST_AMQP_URL` names a broker to use instead; what needs to end it, or to be its
operator, is tried on our own all the same.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.servers.missing import Missing
from tests.servers.process import Process, folder_of, free_port

ASKED = "BACKLANE_TEST_AMQP_URL"
INSTALL = "install RabbitMQ 3.10 or newer (Debian: apt install rabbitmq-server)"
PROGRAMS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin")

SETTINGS = {
    "heartbeat": "10",
    "disk_free_limit.absolute": "1MB",
    "vm_memory_high_watermark.absolute": "2GB",
    "raft.wal_max_size_bytes": "32000000",  # each node would keep half a gigabyte of it
    "log.file.level": "warning",
}
# Without these Erlang's schedulers spin for work, on all cores of the machine.
ERLANG = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
# Users with fewer rights, and a host to keep apart: made before the node serves, since each
# call of rabbitmqctl takes more than a second.
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
USERS = {
    "guest": EVERYTHING,
    "reader": {"configure": "", "write": "", "read": ".*"},
    "writer": {"configure": "", "write": ".*", "read": ""},
    "mute": {"configure": ".*", "write": "", "read": ".*"},
    "deaf": {"configure": ".*", "write": ".*", "read": ""},
    "narrow": {
        "configure": "^backlane\\.",
        "write": "^(backlane\\.|amq\\.default$)",
        "read": "^backlane\\.",
    },
}

_numbers = itertools.count(1)
# Linux ends a server with the thread that started it: a test may start one in any.
_starter = ThreadPoolExecutor(max_workers=1)


def prefix() -> str:
    """Return a prefix that no test had before."""
    return f"test-{os.getpid()}-{next(_numbers)}"


class Node:
    """A node of our own, which can be ended, killed and started again."""

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.name = f"bl{os.getpid()}n{next(_numbers)}@localhost"
        programs = _programs()
        user = _user()
        self.folder = folder_of(user, "rabbit")
        self._epmd, self._tool = free_port(), programs / "rabbitmqctl"
        self._write(user, settings)
        self.names = Process(  # where a node's name is looked up: Erlang's own daemon would stay
            command=["env", *self._environment(), "epmd", "-address", "127.0.0.1"],
            folder=folder_of(user, "epmd"),
            user=user,
            ready=lambda: _accepts(self._epmd),
        )
        self.process = Process(
            command=["env", *self._environment(), str(programs / "rabbitmq-server")],
            folder=self.folder,
            user=user,
            ready=lambda: speaks(self.port),
            longest_start=90.0,  # it takes 5 s, and 20 on a machine that has other things to do
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def url_of(self, user: str) -> str:
        """The URL for one of `USERS`; the password is the name."""
        return f"amqp://{user}:{user}@127.0.0.1:{self.port}/"

    def start(self) -> None:
        _starter.submit(self._start).result()

    def stop(self) -> None:
        """End it as an operator does."""
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def remove(self) -> None:
        self.process.remove()
        self.names.remove()

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl; takes more than a second."""
        done = subprocess.run(
            ["env", *self._environment(), str(self._tool), "-q", "-n", self.name, *arguments],
            capture_output=True,
            text=True,
            user=_user(),
            timeout=60,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node."""
        return self.control("eval", expression)

    @contextlib.contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """Raise the alarm of memory for as long as a block lasts."""
        self.control("set_vm_memory_high_watermark", "0")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "absolute", "2GB")

    def _start(self) -> None:
        if self.names.popen is None:
            self.names.start()
        self.process.start()

    def _environment(self) -> list[str]:
        return [
            f"HOME={self.folder}",  # of the cookie
            f"RABBITMQ_NODENAME={self.name}",
            f"RABBITMQ_DIST_PORT={free_port()}",
            f"RABBITMQ_MNESIA_BASE={self.folder / 'data'}",
            f"RABBITMQ_LOG_BASE={self.folder / 'logs'}",
            f"RABBITMQ_CONFIG_FILE={self.folder / 'rabbitmq.conf'}",
            f"RABBITMQ_CONF_ENV_FILE={self.folder / 'none'}",
            f"RABBITMQ_ENABLED_PLUGINS_FILE={self.folder / 'plugins'}",
            f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={ERLANG}",
            f"ERL_EPMD_PORT={self._epmd}",
            "ERL_EPMD_ADDRESS=127.0.0.1",
            "RUNNING_UNDER_SYSTEMD=true",  # no shell before it: a signal is the node's own
        ]

    def _write(self, user: str | None, settings: dict[str, str]) -> None:
        definitions = {
            "vhosts": [{"name": "/"}, {"name": "apart"}],
            "users": [{"name": name, "password": name, "tags": "administrator"} for name in USERS],
            "permissions": [{"user": name, "vhost": "/", **may} for name, may in USERS.items()],
        }
        given = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "load_definitions": str(self.folder / "definitions.json"),
            **SETTINGS,
            **settings,
        }
        files = {
            ".erlang.cookie": os.urandom(16).hex(),
            "definitions.json": json.dumps(definitions),
            "rabbitmq.conf": "".join(f"{name} = {value}\n" for name, value in given.items()),
            "plugins": "[].\n",
        }
        for name, text in files.items():
            file = self.folder / name
            file.write_text(text)
            file.chmod(0o400 if name.startswith(".") else 0o600)
            if user is not None:
                shutil.chown(file, user)


def speaks(port: int) -> bool:
    """Whether a broker greets: not while it is still starting."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=2) as call,
    ):
        call.sendall(b"AMQP\x00\x00\x09\x01")
        return call.recv(7)[:1] == b"\x01"
    return False


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Node]:
    """Run a node for as long as a block lasts."""
    node = Node(**settings)
    try:
        node.start()
        yield node
    finally:
        node.remove()


@contextlib.contextmanager
def started_url() -> Iterator[str]:
    """Run a node and yield its URL."""
    with started() as node:
        yield node.url


# -- the node of a session --


@cache
def own() -> Node:
    """The node that the tests share, and leave as they found it."""
    node = Node()
    node.start()
    return node


def url() -> str:
    """The URL of the broker that tests use unless they need our own."""
    return os.environ.get(ASKED) or own().url


# -- what is installed --


def _programs() -> Path:
    found = shutil.which("rabbitmq-server")
    folders = [Path(it) for it in PROGRAMS] + ([Path(found).parent] if found else [])
    for folder in folders:
        if (folder / "rabbitmq-server").exists():
            return folder
    raise Missing(INSTALL)


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "rabbitmq" if "rabbitmq" in known else None


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
