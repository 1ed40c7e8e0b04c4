"""The wire: a connection on which the server tells what has rung.

It is read and written without blocking, by whichever thread is there. Sharded channels
(Redis 7.0): in a cluster a message then stays on the node of the namespace.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable
from typing import Any

import hiredis

from backlane.engine.redis.store.connection import RECEIVE_BYTES, Connection, is_whole, new_reader

# Not yet, says a socket that does not block; with TLS also when it has to write first.
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(Exception):
    """The connection has ended, or says what it never should."""


class Wire:
    """A connection that is used for hearing only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket = connection.sock
        self._socket.settimeout(0)
        self._reader = new_reader()
        self.number: int = self._socket.fileno()

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Ask for the messages of these channels; the server confirms each."""
        self._send(b"SSUBSCRIBE", *channels)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Ask for them no longer."""
        self._send(b"SUNSUBSCRIBE", *channels)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send(b"PING")

    def _send(self, *words: bytes) -> None:
        try:
            self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type] # any number
        except OSError as error:
            # A few hundred bytes that find no room: nobody reads at the other end.
            raise Lost(str(error)) from error

    def take_in(self) -> list[list[Any]]:
        """Return what has come since.

        Raises:
            Lost: nothing more will come.
        """
        came: list[list[Any]] = []
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except _LATER:
                return came
            except (OSError, ValueError) as error:
                raise Lost(str(error)) from error
            if not data:
                raise Lost("the server closed the connection")
            self._reader.feed(data)
            self._parse(came)
            if len(data) < RECEIVE_BYTES and not self._has_more():
                return came

    def _has_more(self) -> bool:
        """Whether TLS holds bytes back that no poll would tell of."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _parse(self, came: list[list[Any]]) -> None:
        try:
            while is_whole(message := self._reader.gets()):
                if isinstance(message, Exception):  # no such command, no such right, moved
                    raise Lost(str(message))
                if isinstance(message, list):
                    came.append(message)
        except OSError as error:
            raise Lost(str(error)) from error

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(Exception):  # what is wrong with it no longer matters
            self._connection.disconnect()

    def abandon(self) -> None:
        """In a forked child: close the copy of the socket, and say nothing on it."""
        with contextlib.suppress(OSError):
            self._socket.close()
