"""Connections: what uvicorn's protocols do with a request before it is one.

A head that never ends, or that is no HTTP, is answered here with a problem document, and
the connection ends. Uvicorn parses with httptools where that is installed, else with h11.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from backlane.problem import Problem, problem

HEAD_BYTES = 64 * 1024

_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


def connection_class() -> type[asyncio.Protocol]:
    """Return the protocol class that serves a connection."""
    if find_spec("httptools") is None:
        return _of_h11()
    return _of_httptools()


def _of_httptools() -> type[asyncio.Protocol]:  # long: one class, made where httptools is
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Connection(HttpToolsProtocol):
        """A connection whose heads are bounded, which httptools itself does not do."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head_bytes = 0  # of a head that has not ended yet, or of trailers
            self._has_body = False  # in what came just now
            self._earlier: list[Any] = []  # requests before the newest, where callers pipeline
            self._refusal: Problem | None = None

        def data_received(self, data: bytes) -> None:
            before, self._has_body = self.cycle, False
            super().data_received(data)
            if self.cycle is not before or self._has_body:
                self._head_bytes = 0
                return
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                _end(self.transport, _HEAD_TOO_LARGE)

        def on_headers_complete(self) -> None:
            self._refusal = _refusal(self.url, self.headers, self.parser.get_http_version())
            if self._refusal is not None:
                raise ValueError  # the parser stops, and has a 400 sent
            before = self.cycle
            super().on_headers_complete()
            # Trailers are read as if they were headers: they would change the request's own.
            self.headers = _Dropped()
            if self.cycle is not before:  # it has not begun to run: its task was made just now
                whole: Any = Whole(self.transport, self.loop)
                self.cycle.transport = whole
                if before is None or before.response_complete:
                    self._earlier.clear()
                else:
                    self._earlier.append(before)

        def on_body(self, body: bytes) -> None:
            self._has_body = True
            super().on_body(body)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            # Uvicorn tells the newest request alone, and it is an older one that runs.
            for cycle in self._earlier:
                if not cycle.response_complete:
                    cycle.disconnected = True
                    cycle.message_event.set()

        def send_400_response(self, msg: str) -> None:
            _end(self.transport, self._refusal or _not_http(msg))

    return Connection


class _Dropped(list[tuple[bytes, bytes]]):
    """Keeps nothing."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Leave it."""


class Whole:
    """Writes the head of an answer together with its body, where both come at once.

    Each write is a system call that wakes the caller: two for an answer were a fifth of
    what a submission cost.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Hold this back until the next write, or until the loop has a moment."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is held back, if anybody is there to read it."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Close the connection behind what was written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Say whether the connection ends."""
        return self._transport.is_closing()


def _refusal(url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> Problem | None:
    """Return what is wrong with a head that can be parsed."""
    size, hosts = len(url), 0
    for name, value in headers:
        size += len(name) + len(value)
        hosts += name == b"host"
    if size > HEAD_BYTES:
        return _HEAD_TOO_LARGE
    if hosts > 1 or (not hosts and version == "1.1"):
        return _NOT_ONE_HOST
    return None


def _of_h11() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        """A connection whose malformed requests are answered as all others are."""

        def send_400_response(self, msg: str) -> None:
            _end(self.transport, _not_http(msg))

    return Connection


def is_in_head(connection: Any) -> bool:
    """Say whether a connection owes the head of a request: its first, or one it has begun."""
    cycle = connection.cycle
    return (
        (cycle is None or cycle.response_complete)
        and connection.timeout_keep_alive_task is None
        and not connection.transport.is_closing()
    )


def is_in_body(connection: Any) -> bool:
    """Say whether a connection owes the rest of a body that is still wanted."""
    cycle = connection.cycle
    return (
        cycle is not None
        and cycle.more_body
        and not cycle.response_started
        and not connection.transport.is_closing()
    )


def is_stuck(connection: Any) -> bool:
    """Say whether a connection does not read what it was sent, or not even its end."""
    return bool(connection.flow.write_paused) or connection.transport.is_closing()


def cut_off(connection: Any, told: Problem | None = None) -> None:
    """End a connection that has not sent a head in time, or what else it is told."""
    _end(connection.transport, told or _TOO_SLOW)


def _end(transport: asyncio.Transport, told: Problem) -> None:
    lines = [f"HTTP/1.1 {told.status} {_PHRASES[told.status]}"]
    lines += [f"{name}: {value}" for name, value in told.headers]
    lines += ["Connection: close", "", ""]
    transport.write("\r\n".join(lines).encode("latin-1") + told.body)
    transport.close()


def _not_http(text: str) -> Problem:
    return problem(400, "bad-request", "This is no HTTP request", text)


_TOO_SLOW = problem(
    408, "too-slow", "The request came too slowly", "the head of a request did not come in time"
)
_NOT_ONE_HOST = _not_http("a request of HTTP/1.1 has one Host header")
_HEAD_TOO_LARGE = problem(
    431,
    "head-too-large",
    "The headers are too large",
    f"a head of up to {HEAD_BYTES} bytes is read",
)
