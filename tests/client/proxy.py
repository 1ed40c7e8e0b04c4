"""A proxy that breaks connections where it is told to, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.serving import address, listening


class Proxy:
    """Forwards to one server.

    `drops` answers are taken from the server and kept, and the caller's connection
    ends: the request was done, and nobody knows. `cut_after` ends each answer after so
    many bytes, as often as `cuts` says.
    """

    def __init__(self, to: str) -> None:
        parts = urlsplit(to)
        self._to = (parts.hostname, parts.port)
        self._door = listening()
        self.url = address(self._door)
        self.drops = 0
        self.cuts = 0
        self.cut_after = 0
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        while True:
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            for work in (self._forward, self._answer):
                thread = threading.Thread(target=work, args=(caller, server), daemon=True)
                thread.start()

    def close(self) -> None:
        self._door.close()

    def _forward(self, caller: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := caller.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, caller: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.drops > 0:
                    self.drops -= 1
                    break
                if self.cuts > 0 and sent + len(data) > self.cut_after:
                    self.cuts -= 1
                    caller.sendall(data[: max(0, self.cut_after - sent)])
                    break
                sent += len(data)
                caller.sendall(data)
        for connection in (caller, server):
            with contextlib.suppress(OSError):  # not close(): another thread reads it
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(to: str) -> Iterator[Proxy]:
    """Run a proxy before a server, for as long as the block lasts."""
    proxy = Proxy(to)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
