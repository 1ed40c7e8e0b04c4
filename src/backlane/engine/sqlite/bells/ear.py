"""The ear: one socket by which a process hears for all who wait in it.

It is a Unix datagram socket in `<database>-side/bells`, with a file beside it that tells
others what to ring for. What comes in is handed on in memory, by name, to threads and to
coroutines of any loop. Where no socket can be, bells look at the database's version.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backlane.engine.rung import Rung
from backlane.engine.sqlite.bells.sleep import Sleeper
from backlane.engine.sqlite.bells.wants import Table, Wants, file_of
from backlane.engine.waiter import Waiter

POLL_SECONDS = 0.02  # without a socket: 50 reads of the version a second are 0.1 % CPU


class Ear:
    """The bells of one process, and the socket they share.

    Args:
        directory: where the socket and its file are made.
        name: of the socket, unlike any other there.
        address: what to bind for a name.
        version: a number that changes with every commit, for where no socket can be.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        address: Callable[[str], str],
        version: Callable[[], int],
    ) -> None:
        self.name = name
        self._paths = (directory / name, directory / file_of(name))  # in the order they go
        self._version = version
        self._pid = os.getpid()
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self.mutex = threading.RLock()
        self._bells: tuple[dict[bytes, list[Bell]], ...] = tuple({} for _ in Table)
        self._number = 0  # of bells
        self._is_ending = False
        self._wants: Wants | None = None
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):  # no room, no right, no sockets here
            self._wants = Wants(self._paths[1])
            self._socket = _bound(address(name))
        self._last = version() if self._socket is None else 0
        self._looked = 0.0
        self._loops: dict[asyncio.AbstractEventLoop, int] = {}  # coroutines waiting in each
        self._leader: Sleeper | None = None  # the thread that waits for the socket itself
        self._line: list[Sleeper] = []  # threads that wait for the leader
        self._poke: tuple[int, int] | None = None  # a pipe that wakes the leader

    # -- subscriptions --

    def hang(self, tables: Sequence[Table], names: Iterable[bytes]) -> Bell:
        """Make a bell that hears these names."""
        bell = Bell(self, tables)
        with self.mutex:
            self._number += 1
        bell.add(names)
        return bell

    def want(self, bell: Bell, name: bytes) -> None:
        """Hand rings for a name on to a bell."""
        with self.mutex:
            for table in bell.tables:
                bells = self._bells[table]
                if name in bells:
                    bells[name].append(bell)
                    continue
                bells[name] = [bell]
                if self._wants is not None:
                    self._wants.add(table, name, len(bells))

    def drop(self, bell: Bell, name: bytes) -> None:
        """No longer hand rings for a name on to a bell."""
        with self.mutex:
            for table in bell.tables:
                bells = self._bells[table]
                bells[name].remove(bell)
                if bells[name]:
                    continue
                del bells[name]
                if self._wants is not None:
                    self._wants.remove(table, name, len(bells))

    def take_down(self) -> None:
        """One bell less."""
        with self.mutex:
            self._number -= 1
            if self._is_ending and not self._number:
                self._end()

    def end(self) -> None:
        """Close the socket as soon as there is no bell."""
        with self.mutex:
            self._is_ending = True
            if not self._number:
                self._end()

    @property
    def is_ending(self) -> bool:
        return self._is_ending

    @property
    def is_socket(self) -> bool:
        return self._socket is not None

    def abandon(self) -> None:
        """In a forked child: close the copies, which would outlive the parent's own."""
        self._close()
        self._loops = {}

    def _end(self) -> None:
        self._close()
        if self._pid == os.getpid():
            for path in self._paths:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _close(self) -> None:
        bound, self._socket = self._socket, None
        if bound is not None:
            bound.close()
        if self._wants is not None:
            self._wants.close()
        for end in self._poke or ():
            os.close(end)
        self._poke = None

    # -- hearing --

    def take_in(self) -> None:
        """Hand on all rings that have come."""
        with self.mutex:
            if self._socket is None:
                self._look_at_version()
                return
            while True:
                try:
                    message = self._socket.recv(65_536)
                except BlockingIOError:
                    break
                self._hand_on(message)
            if self._wants is not None and self._wants.has_overflown():
                self._ring_all()

    def _hand_on(self, message: bytes) -> None:
        if not message or message[0] not in (0, 1, 2):
            return
        bells = self._bells[message[0]]
        for name in _names(message):
            for bell in tuple(bells.get(name, ())):
                bell.rung.ring(name)

    def _look_at_version(self) -> None:
        now = time.monotonic()
        if now - self._looked < POLL_SECONDS / 2 or self._pid != os.getpid() or not self._number:
            return
        self._looked = now
        version = self._version()
        if version != self._last:
            self._last = version
            self._ring_all()

    def _ring_all(self) -> None:
        for bell in {bell for table in self._bells for bells in table.values() for bell in bells}:
            bell.rung.ring(None)

    # -- waiting --

    def wait(self, bell: Bell, seconds: float) -> None:
        """Let this thread wait until the bell rings, or something may have come."""
        if self._socket is None:
            time.sleep(min(seconds, POLL_SECONDS))
            return
        sleeper = Sleeper(self._rouse)
        with self.mutex:
            if not bell.rung.begin(sleeper):
                return
            if self._leader is None:
                self._leader = sleeper
            else:
                self._line.append(sleeper)
        until = time.monotonic() + seconds
        try:
            if self._leader is not sleeper:
                sleeper.sleep(seconds)  # until its bell rings, or it is to lead
            if self._leader is sleeper:
                self._wait_for_socket(bell, until - time.monotonic())
        finally:
            with self.mutex:
                bell.rung.end(sleeper)
                if self._leader is sleeper:
                    self._leader = self._line.pop(0) if self._line else None
                    if self._leader is not None:
                        self._leader.rouse()
                else:
                    self._line.remove(sleeper)

    def _wait_for_socket(self, bell: Bell, seconds: float) -> None:
        """Wait for a datagram or a poke; `poll`, for `select` ends at descriptor 1,023."""
        with self.mutex:
            if self._socket is None or bell.rung or seconds <= 0:
                return
            if self._poke is None:
                self._poke = os.pipe()
                os.set_blocking(self._poke[0], False)
                os.set_blocking(self._poke[1], False)
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            poll.register(self._poke[0], select.POLLIN)
        poll.poll(seconds * 1000)
        with self.mutex:
            if self._poke is not None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._poke[0], 4_096)

    def _rouse(self, sleeper: Sleeper) -> None:
        """Wake one thread, wherever it waits."""
        if sleeper is not self._leader:
            sleeper.rouse()
        elif self._poke is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._poke[1], b".")

    async def await_ring(self, bell: Bell, seconds: float) -> None:
        """Suspend the coroutine until the bell rings, or something may have come."""
        if self._socket is None:
            await asyncio.sleep(min(seconds, POLL_SECONDS))
            return
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop)
        with self.mutex:
            if not bell.rung.begin(waiter):
                return
        timer = loop.call_later(seconds, waiter.set)
        self._enter(loop)
        try:
            await waiter.future
        finally:
            timer.cancel()
            self._leave(loop)
            with self.mutex:
                bell.rung.end(waiter)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        number = self._loops.get(loop, 0)
        self._loops[loop] = number + 1
        if not number and self._socket is not None:
            # By number: for the socket itself a selector would format its repr.
            loop.add_reader(self._socket.fileno(), self.take_in)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        number = self._loops.pop(loop, 0) - 1
        if number > 0:
            self._loops[loop] = number
        elif self._socket is not None:
            loop.remove_reader(self._socket.fileno())


class Bell:
    """One subscription to queues, or to jobs. See `protocol.Watch`."""

    __slots__ = ("_ear", "_is_open", "_names", "rung", "tables")

    def __init__(self, ear: Ear, tables: Sequence[Table]) -> None:
        self.tables = tuple(tables)
        self._ear = ear
        self._is_open = True
        self.rung = Rung()
        self._names: set[bytes] = set()

    def add(self, names: Iterable[bytes]) -> None:
        """Hear these names too."""
        for name in names:
            if name not in self._names and self._is_open:
                self._names.add(name)
                self._ear.want(self, name)

    def discard(self, names: Iterable[bytes]) -> None:
        """Hear these names no longer."""
        for name in names:
            if name in self._names:
                self._names.discard(name)
                self._ear.drop(self, name)

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""
        until = time.monotonic() + seconds
        while True:
            self._ear.take_in()
            if self.rung:
                self.take()
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._ear.wait(self, left)

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""
        return bool(await self.arang(seconds))

    async def arang(self, seconds: float) -> set[bytes]:
        """Wait for a ring; return the names that rang."""
        until = time.monotonic() + seconds
        while True:
            self._ear.take_in()
            if self.rung:
                return self.take()
            left = until - time.monotonic()
            if left <= 0:
                return set()
            await self._ear.await_ring(self, left)

    def take(self) -> set[bytes]:
        """Take the names that have rung."""
        with self._ear.mutex:
            return self.rung.take(self._names)

    def close(self) -> None:
        """End the subscription."""
        if self._is_open:
            self._is_open = False
            self.discard(tuple(self._names))
            self._ear.take_down()


def datagrams() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(0)
    return made


def _bound(address: str) -> socket.socket:
    bound = datagrams()
    try:
        bound.bind(address)
    except OSError:  # the path is too long here, or the file system has no sockets
        bound.close()
        raise
    return bound


def _names(message: bytes) -> list[bytes]:
    if message[0] == Table.QUEUES:
        return message[1:].split(b"\0")
    return [message[start : start + 16] for start in range(1, len(message), 16)]
