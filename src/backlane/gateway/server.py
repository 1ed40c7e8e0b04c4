"""The server: uvicorn, set for a gateway that stands in the open.

What uvicorn leaves to a proxy in front is bounded here: how long a request's head may take
and how large it may be, how many connections there are, and that every answer is a problem
document. Streams end with the first signal, everything with the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from msgspec.structs import replace

from backlane.errors import BadOption
from backlane.gateway.answer import tell
from backlane.gateway.application import Gateway
from backlane.gateway.auth import is_loopback
from backlane.gateway.body import too_slow
from backlane.gateway.connection import connection_class, cut_off, is_in_body, is_in_head, is_stuck
from backlane.gateway.site import BODY_SECONDS, Receive, Scope, Send
from backlane.problem import problem

log = logging.getLogger("backlane.gateway")

HEAD_SECONDS = 10.0  # for the whole head of a request, and for the first byte of a connection
WRITE_SECONDS = 60.0  # for a caller to make room for more of its answer
KEEP_ALIVE_SECONDS = 20.0  # longer than most clients' own, so that it is they who close
MAX_CONNECTIONS = 10_000
SPARE_DESCRIPTORS = 100  # for the store, its bells, logs
LOOK_SECONDS = 0.5


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway is served."""

    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""
    grace: float = 10.0
    max_connections: int = MAX_CONNECTIONS
    head_seconds: float = HEAD_SECONDS
    write_seconds: float = WRITE_SECONDS


def listening(settings: Settings, *, has_tokens: bool) -> socket.socket:
    """Return a socket that listens where the gateway is to be.

    Raises:
        BadOption: without tokens, anywhere but on this machine's own addresses.
        OSError: the address is taken, or is none of this machine's.
    """
    if not has_tokens and not is_loopback(settings.host):
        raise BadOption(
            f"without tokens anybody who reaches {settings.host} could do anything; make some with "
            "`backlane token add` and give --tokens, or use --host 127.0.0.1"
        )
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise OSError(
            f"cannot listen on {where}: {error.strerror or error}; use another --port or --host"
        ) from error


def server(
    gateway: Gateway, settings: Settings, listener: socket.socket, announce: Callable[[str], None]
) -> uvicorn.Server:
    """Return what serves on `listener` once it runs, until SIGTERM, SIGINT or `should_exit`.

    `announce` is called with the URL when it begins.
    """
    gateway.site.is_served = True
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = _config(gateway, settings)
    made = _Server(config, gateway, settings, lambda: announce(f"http://{shown}:{port}"))
    config.app = _Bounded(gateway, made, _room(settings.max_connections))
    return made


def _config(gateway: Gateway, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=connection_class(),
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,  # the command has set up logging
        access_log=False,  # a line a request would cost more than the request
        proxy_headers=False,
        server_header=False,
        root_path=settings.root_path,
        timeout_keep_alive=int(KEEP_ALIVE_SECONDS),
        # Streams end by themselves with the first signal, so this is for requests under way.
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        h11_max_incomplete_event_size=64 * 1024,
    )


def _room(wanted: int) -> int:
    """Return how many connections there may be, with as many descriptors as the system gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(wanted, soft - SPARE_DESCRIPTORS))


class _Server(uvicorn.Server):
    """Uvicorn's server, with our signals, and an eye on connections that only sit there."""

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        settings: Settings,
        announce: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._gateway, self._settings, self._announce = gateway, settings, announce
        # Looked to here, for all at once: a timer for each request costs a tenth of it.
        limits = gateway.site.limits
        self._body_seconds = limits.body_seconds or BODY_SECONDS
        gateway.site.limits = replace(limits, body_seconds=None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._watch = asyncio.create_task(self._look())
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._watch is not None:
            self._watch.cancel()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn calls it
        is_second = self.should_exit
        self.should_exit = True
        if self._loop is None:
            self.force_exit = True
        elif is_second:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self._abort)
        else:
            self._loop.call_soon_threadsafe(self._gateway.stop)

    # In place of uvicorn's own, which in the end dies by the signal, as if it had failed.
    handle_exit = _on_signal

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _look(self) -> None:
        """Cut off connections that keep us waiting: for a head, or for reading our answer."""
        owing, stuck = Waiting(self._settings.head_seconds), Waiting(self._settings.write_seconds)
        sending, too_slow_body = Waiting(self._body_seconds), too_slow(self._body_seconds)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # Protocols of two parsers, which have no type in common.
            connections: list[Any] = list(self.server_state.connections)
            for connection in owing.too_long(filter(is_in_head, connections)):
                cut_off(connection)
            for connection in sending.too_long(filter(is_in_body, connections)):
                cut_off(connection, too_slow_body)
            for connection in stuck.too_long(filter(is_stuck, connections)):
                connection.transport.abort()


class Waiting:
    """Which connections have been found waiting, each over one request, and since when."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[tuple[Any, Any], float] = {}

    def too_long(self, found: Iterable[Any]) -> list[Any]:
        """Return those of `found` that were found at every look for too long."""
        now = time.monotonic()
        waiting = [(connection, connection.cycle) for connection in found]
        self._since = {key: self._since.get(key, now) for key in waiting}
        return [key[0] for key, since in self._since.items() if now - since >= self._seconds]


class _Bounded:
    """The gateway, for as many connections as there is room for."""

    def __init__(self, gateway: Gateway, server: uvicorn.Server, room: int) -> None:
        self._gateway, self._room = gateway, room
        self._connections = server.server_state.connections
        self._told = problem(
            503,
            "too-many-connections",
            "There are too many connections",
            f"the gateway serves {room:,} connections at once; come again",
            headers=[("Retry-After", "1")],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self._connections) > self._room and scope["type"] == "http":
            await tell(send, self._told, close=True)
        else:
            await self._gateway(scope, receive, send)
