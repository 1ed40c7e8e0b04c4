"""The ear: what comes in on the side connection is read by whoever waits for it.

An event loop in which coroutines wait reads by itself, so that a ring reaches them
without another thread in between. Otherwise the side thread reads: while threads wait,
and while nobody does, for the server hangs up on who reads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import psycopg

from backlane.engine.postgres.wire import Wire


class Ear:
    """Who reads the side connection of one process.

    Args:
        hear: takes out what has come in.
        lose: called where a loop found the connection to have ended.
    """

    def __init__(self, hear: Callable[[Wire], None], lose: Callable[[], None]) -> None:
        self._hear = hear
        self._lose = lose
        self.lock = threading.Lock()  # whoever speaks on the wire, or reads it, holds it
        self._wire: Wire | None = None
        self._reading: dict[asyncio.AbstractEventLoop, Wire | None] = {}
        self._change = threading.Lock()  # of the two above

    @property
    def is_lent(self) -> bool:
        """Whether some event loop reads."""
        with self._change:
            for loop in [loop for loop in self._reading if loop.is_closed()]:
                del self._reading[loop]
            return self._wire is not None and self._wire in self._reading.values()

    def open(self, wire: Wire) -> None:
        """Let loops read this connection from now on."""
        with self._change:
            self._wire = wire
            loops = list(self._reading)
        for loop in loops:
            _call(loop, self.enter, loop)

    def close(self, wire: Wire) -> None:
        """Close a connection: once no loop watches its socket, whose number is used again."""
        with self._change:
            self._wire = None
            loops = [loop for loop, read in self._reading.items() if read is wire]
        for loop in loops:
            if not _call(loop, self._leave, loop, wire):
                self._leave(loop, wire)
        if not loops:
            wire.close()

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine of the running loop waits: read here, as long as the loop lives."""
        wire = self._wire
        if loop in self._reading and self._reading[loop] is wire:
            return
        with self._change:
            wire = self._wire
            self._reading[loop] = wire
            if wire is not None:
                loop.add_reader(wire.pgconn.socket, self._readable, loop, wire)

    def _leave(self, loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
        with self._change:
            if self._reading.get(loop) is wire:
                self._reading[loop] = None
                if not loop.is_closed():
                    loop.remove_reader(wire.pgconn.socket)
            is_last = wire is not self._wire and wire not in self._reading.values()
        if is_last:
            wire.close()

    def _readable(self, loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
        if not self.lock.acquire(blocking=False):
            return  # whoever speaks on it reads this too
        try:
            wire.pgconn.consume_input()
            self._hear(wire)
        except psycopg.Error:
            self._leave(loop, wire)
            self._lose()
        finally:
            self.lock.release()


def _call(loop: asyncio.AbstractEventLoop, do: Callable[..., None], *given: object) -> bool:
    """Have a loop do something; False if it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(do, *given)
        return True
    return False
