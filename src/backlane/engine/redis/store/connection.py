"""Connections: each to one server, signed in, blocking.

hiredis packs and parses; the rest of a client library would cost a short script more
than its round trip (`redis-py` 8: 60 µs a call beside 25 of this). Every wait ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import hiredis

from backlane.engine.redis.store.address import Address
from backlane.engine.redis.store.faults import Said, refused, unreachable
from backlane.engine.url import place

RECEIVE_BYTES = 65_536
IDLE_SECONDS = 0.05  # after a rest of so long it is looked whether the server has hung up
_NOTHING = object()


def new_reader() -> Any:
    """Return a parser of what a server sends."""
    return hiredis.Reader(protocolError=ConnectionError, replyError=Said, notEnoughData=_NOTHING)


def pack(*words: Any) -> bytes:
    """Return a command as it is sent."""
    packed: bytes = hiredis.pack_command(words)
    return packed


def is_whole(reply: Any) -> bool:
    """Whether a parser had a whole reply."""
    return reply is not _NOTHING


class Connection:
    """An open connection, signed in."""

    __slots__ = ("_reader", "pid", "place", "sock", "used_at")

    def __init__(self, sock: socket.socket, where: str) -> None:
        self.sock = sock
        self.place = where
        self.pid = os.getpid()
        self.used_at = time.monotonic()
        self._reader = new_reader()

    def send(self, data: bytes) -> None:
        """Send; where this raises, the server cannot have got the whole of it."""
        self.sock.sendall(data)

    def receive(self) -> Any:
        """Return the next reply; an error that the server tells of is returned too.

        Raises:
            OSError: the connection is lost, or nothing came in time.
        """
        reader, sock = self._reader, self.sock
        while not is_whole(reply := reader.gets()):
            try:
                data = sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                raise TimeoutError("no answer in time") from None
            if not data:
                raise ConnectionError("the server closed the connection")
            reader.feed(data)
        self.used_at = time.monotonic()
        return reply

    def ask(self, *words: Any) -> Any:
        """Send a command and return its reply; an error that the server tells of is raised."""
        self.send(pack(*words))
        reply = self.receive()
        if isinstance(reply, Said):
            raise reply
        return reply

    def is_fresh(self) -> bool:
        """Whether the connection may be used, as far as this side can know."""
        if time.monotonic() - self.used_at < IDLE_SECONDS:
            return True
        try:
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            return not poll.poll(0)  # nothing was asked, so what there is to read is an end
        except (OSError, ValueError):
            return False

    def disconnect(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.sock.close()


def open_connection(
    address: Address, target: tuple[str, int] | None, *, is_sentinel: bool = False
) -> Connection:
    """Connect to a server (None: the unix socket) and sign in.

    Raises:
        EngineUnavailable: it cannot be reached, or lets nobody in.
    """
    where = address.path or place(*(target or ("", 0)))
    deadline = time.monotonic() + address.connect_seconds
    sock: socket.socket | None = None
    try:
        sock = _connected(address, target)
        connection = Connection(sock, where)
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        _sign_in(connection, address, is_sentinel=is_sentinel)
        _limit(sock, address.seconds)
    except Said as said:
        _close(sock)
        raise refused(said, where) from said
    except (OSError, ValueError) as error:
        _close(sock)
        raise unreachable(error, where) from error
    return connection


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _connected(address: Address, target: tuple[str, int] | None) -> socket.socket:
    if target is None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(address.connect_seconds)
        sock.connect(address.path or "")
        return sock
    sock = socket.create_connection(target, address.connect_seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock)
    if address.tls:
        return _context(address).wrap_socket(sock, server_hostname=target[0])
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Let the system find out that the other side has gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _limit(sock: socket.socket, seconds: float) -> None:
    """Let every wait end. Where the system can see to that, Python need not ask before each
    call whether there is something: two calls of the system less for each command."""
    if sys.platform != "linux" or isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    sock.settimeout(None)
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.ca)
    if not address.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.cert:
        context.load_cert_chain(address.cert, address.key)
    return context


def _sign_in(connection: Connection, address: Address, *, is_sentinel: bool) -> None:
    password = address.sentinel_password if is_sentinel else address.password
    if password is not None:
        user = () if is_sentinel or address.user is None else (address.user,)
        connection.ask("AUTH", *user, password)
    if address.db and not is_sentinel:
        connection.ask("SELECT", str(address.db))


Opener = Callable[[], Connection]
