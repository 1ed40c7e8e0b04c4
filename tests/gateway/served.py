"""A gateway as `backlane serve` serves it, in a thread, asked over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import uvicorn

from backlane import Backlane
from backlane.gateway import gateway
from backlane.gateway.application import Gateway
from backlane.gateway.server import Settings, listening, server
from backlane.gateway.site import Limits

PATIENCE = 20.0


@dataclass
class Served:
    """A gateway and a client of it."""

    app: Backlane
    gateway: Gateway
    port: int
    client: httpx2.Client
    server: uvicorn.Server

    def submit(self, task: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """Submit a call: `arguments` and options."""
        return self.client.post(f"/v1/tasks/{task}/jobs", json=body, headers=headers)

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        """Post JSON, or nothing."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return (
            self.client.post(path, json=body, headers=told)
            if body is not None
            else (self.client.post(path, headers=told))
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def raw(self, sent: bytes) -> bytes:
        """Send bytes and return all that comes back until the gateway ends the connection."""
        with self.connect() as connection:
            connection.sendall(sent)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes; a reset counts as an end."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


def status(answer: bytes) -> int:
    """Return the status of a raw answer."""
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def problem(answer: bytes) -> dict[str, Any]:
    """Return the problem document of a raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer[:500]
    told: dict[str, Any] = msgspec.json.decode(body)
    return told


@contextmanager
def served(
    app: Backlane,
    *,
    limits: Limits | None = None,
    head_seconds: float = 10.0,
    write_seconds: float = 60.0,
    room: int = 1_000,
    **options: Any,
) -> Iterator[Served]:
    """Serve an application's gateway within the block."""
    made = gateway(app, **options)
    if limits is not None:
        made.site.limits = limits
    settings = Settings(
        port=0, head_seconds=head_seconds, write_seconds=write_seconds, max_connections=room
    )
    began = threading.Event()
    with listening(settings, has_tokens=made.site.tokens is not None) as listener:
        port = listener.getsockname()[1]
        running = server(made, settings, listener, lambda _: began.set())
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            assert began.wait(PATIENCE)
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                yield Served(app, made, port, client, running)
        finally:
            running.handle_exit(15, None)
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the gateway does not end"


def passed(seconds: float, began: float) -> bool:
    """Say whether about that much time has passed since `began`, and not much more."""
    return seconds * 0.9 <= time.monotonic() - began <= seconds + 5
