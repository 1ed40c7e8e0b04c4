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

from backlane.engine.postgres.store.fork import Twin
from backlane.engine.postgres.store.wire import Wire


class Lent:
    """A wire that an event loop watches."""

    __slots__ = ("twin", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.twin = Twin(wire.pgconn)


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
        self._reading: dict[asyncio.AbstractEventLoop, Lent | None] = {}
        self._change = threading.Lock()  # of the two above

    @property
    def is_lent(self) -> bool:
        """Whether some event loop reads."""
        with self._change:
            for loop in [loop for loop in self._reading if loop.is_closed()]:
                if (lent := self._reading.pop(loop)) is not None:
                    lent.twin.close()
            return self._wire is not None and self._reads(self._wire)

    def _reads(self, wire: Wire) -> bool:
        return any(lent is not None and lent.wire is wire for lent in self._reading.values())

    def open(self, wire: Wire) -> None:
        """Let loops read this connection from now on."""
        with self._change:
            self._wire = wire
            loops = list(self._reading)
        for loop in loops:
            _call(loop, self.enter, loop)

    def close(self, wire: Wire) -> None:
        """Close a connection, once no loop watches it."""
        with self._change:
            self._wire = None
            loops = [loop for loop, lent in self._reading.items() if lent and lent.wire is wire]
        for loop in loops:
            if not _call(loop, self._leave, loop, wire):
                self._leave(loop, wire)
        if not loops:
            wire.close()

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine of the running loop waits: read here, as long as the loop lives."""
        lent = self._reading.get(loop)
        if loop in self._reading and (None if lent is None else lent.wire) is self._wire:
            return
        with self._change:
            wire = self._wire
            self._give_back(loop)
            with contextlib.suppress(psycopg.Error):  # lost just now: another one comes
                if wire is not None:
                    lent = self._reading[loop] = Lent(wire)
                    loop.add_reader(lent.twin.number, self._readable, loop, wire)

    def _leave(self, loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
        with self._change:
            lent = self._reading.get(loop)
            if lent is not None and lent.wire is wire:
                self._give_back(loop)
            is_last = wire is not self._wire and not self._reads(wire)
        if is_last:
            wire.close()

    def _give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop watch nothing."""
        lent = self._reading.get(loop)
        self._reading[loop] = None
        if lent is not None:
            if not loop.is_closed():
                loop.remove_reader(lent.twin.number)
            lent.twin.close()

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
