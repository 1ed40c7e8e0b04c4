"""Forks: a child lets go of the sockets it inherited, without a word to the server.

Its copies would keep a parent's connection open after the parent's death, and with it
the locks that say that the parent is alive. Python runs this for `os.fork` and
`multiprocessing`; programs that are started never see the sockets.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

import psycopg
from psycopg import pq

# One for the process, as its descriptors are.
live: weakref.WeakSet[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = weakref.WeakSet()

numbers: set[int] = set()  # further descriptors of theirs


class Twin:
    """A second number of a connection's socket, for an event loop to watch.

    libpq closes its socket as soon as it finds the connection lost, in whatever call and
    thread that is, and the next socket of the process gets its number: one that the loop
    may watch by then for something else, which it would never hear again.
    """

    __slots__ = ("number",)

    def __init__(self, connection: pq.abc.PGconn) -> None:
        self.number = -1  # closed
        self.number = os.dup(connection.socket)
        numbers.add(self.number)

    def close(self) -> None:
        number, self.number = self.number, -1
        if number in numbers:  # else this is a child, which has let go of it
            numbers.discard(number)
            os.close(number)

    def __del__(self) -> None:
        self.close()


def _let_go() -> None:
    for connection in list(live):
        with contextlib.suppress(OSError, psycopg.Error):
            # Not `close`, which tells the server that the parent leaves.
            os.close(connection.pgconn.socket)
    for number in numbers:
        with contextlib.suppress(OSError):
            os.close(number)
    live.clear()
    numbers.clear()


os.register_at_fork(after_in_child=_let_go)
