"""A proxy before any server, that is a bad network when told to be.

What goes wrong is told to it between two commands: connections end, hang for ever, or
lose an answer whose command was carried out.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

PIECE = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


@dataclass(eq=False)
class Call:
    """A client's connection and ours to the server."""

    client: socket.socket
    server: socket.socket
    is_stranded: bool = False
    is_over: bool = False

    def end(self, *, reset: bool) -> None:
        """End both halves: with a reset as after a crash, or orderly."""
        self.is_over = True
        for half in (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:
                    half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                half.shutdown(socket.SHUT_RDWR)  # wakes who reads it


@dataclass
class Network:
    """The way to one server. Its faults are plain fields and methods, for any thread."""

    to: tuple[str, int]
    delay: float = 0.0  # seconds that every piece takes, each way
    is_shut: bool = False  # new connections are reset
    lost_answers: int = 0  # so many answers are taken from the server and kept
    torn_answers: int = 0  # so many answers end after `torn_after` bytes
    torn_after: int = 1
    calls: set[Call] = field(default_factory=set)
    _door: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _flows: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._flows.set()

    @property
    def port(self) -> int:
        return int(self._door.getsockname()[1])

    def before(self, url: str) -> str:
        """Return the URL with this proxy in the place of the server."""
        parts = urlsplit(url)
        who, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{self.port}"))

    # -- faults --

    def reset(self) -> int:
        """Reset every connection that there is; return how many."""
        return self._end_all(reset=True)

    def cut(self) -> int:
        """End every connection that there is, orderly; return how many."""
        return self._end_all(reset=False)

    def strand(self) -> int:
        """Leave every connection that there is half-open: nothing comes of it, ever.

        New ones work. So it is when a firewall forgets, or a standby takes an address over.
        """
        standing = [call for call in set(self.calls) if not call.is_over]
        for call in standing:
            call.is_stranded = True
        return len(standing)

    def hold(self) -> None:
        """Let nothing through, either way, until `resume`; nothing is lost by it."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.is_shut = True
        self.resume()
        self._door.close()
        self.reset()

    # -- its work --

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._take(client)

    def _take(self, client: socket.socket) -> None:
        if self.is_shut:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        try:
            server = socket.create_connection(self.to, timeout=5)
        except OSError:
            client.close()
            raise
        for half in (client, server):
            half.settimeout(None)
            half.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        call = Call(client, server)
        self.calls.add(call)
        for work in (self._ask, self._answer):
            threading.Thread(target=work, args=(call,), daemon=True).start()

    def _ask(self, call: Call) -> None:
        with contextlib.suppress(OSError):
            while data := call.client.recv(PIECE):
                if self._passes(call):
                    call.server.sendall(data)
        self._over(call)

    def _answer(self, call: Call) -> None:
        with contextlib.suppress(OSError):
            while data := call.server.recv(PIECE):
                if not self._passes(call):
                    continue
                if self.lost_answers > 0:
                    self.lost_answers -= 1
                    call.end(reset=True)
                    break
                if self.torn_answers > 0:
                    self.torn_answers -= 1
                    call.client.sendall(data[: self.torn_after])
                    call.end(reset=True)
                    break
                call.client.sendall(data)
        self._over(call)

    def _passes(self, call: Call) -> bool:
        """Wait as long as the network takes; False when the connection is stranded."""
        if self.delay:
            time.sleep(self.delay)
        self._flows.wait()
        return not call.is_stranded

    def _over(self, call: Call) -> None:
        """One half has ended: the other hears of it, unless nothing is heard of it any more."""
        if not call.is_stranded and not call.is_over:
            call.end(reset=False)
        self.calls.discard(call)

    def _end_all(self, *, reset: bool) -> int:
        standing = [call for call in set(self.calls) if not call.is_over]
        for call in standing:
            call.end(reset=reset)
        return len(standing)


@contextlib.contextmanager
def network(url: str) -> Iterator[Network]:
    """Put a proxy before the server of a URL, for as long as the block lasts."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    made = Network((parts.hostname, parts.port))
    threading.Thread(target=made.serve, daemon=True).start()
    try:
        yield made
    finally:
        made.close()
