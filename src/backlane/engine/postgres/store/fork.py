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

# One for the process, as its descriptors are.
live: weakref.WeakSet[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = weakref.WeakSet()

numbers: set[int] = set()  # further descriptors of theirs


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
