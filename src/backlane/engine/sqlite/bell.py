"""Bells: one datagram from who changed something to who waits for it.

Each bell is a Unix datagram socket in `<database>-side/bells`; its name says what it
hears. Ringing is for speed only: a lost ring costs the wait until the next poll. Where
a socket cannot be bound, a bell looks at the database's version instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from backlane.engine.sqlite.transaction import Rings

QUEUES, JOBS, JOB = "q", "j", "j-"  # how names begin; a bell for one job names it
POLL_SECONDS = 0.02  # without a socket: 50 reads of the version a second are 0.1 % CPU
DATAGRAM_JOBS = 1_000  # 16 kB: far below what a socket takes at once


class Belfry:
    """The directory of bells beside one database."""

    def __init__(self, directory: Path, version: Callable[[], int]) -> None:
        self._directory = directory
        self._version = version
        self._seen: tuple[int, int] | None = None
        self._queue_bells: list[str] = []
        self._job_bells: list[str] = []
        self._sender: socket.socket | None = None
        self._descriptor: int | None = None

    def hang(self, kind: str, names: Sequence[bytes]) -> Bell:
        """Hang a bell that hears these names."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        name = f"{kind}{secrets.token_hex(6)}"
        if kind == JOBS and len(names) == 1:
            name = f"{JOB}{names[0].hex()}-{secrets.token_hex(6)}"
        return Bell(self._bind(name), self._directory / name, frozenset(names), self._version)

    def _bind(self, name: str) -> socket.socket | None:
        bound = _datagrams()
        try:
            bound.bind(self._address(name))
        except OSError:  # the path is too long here, or the file system has no sockets
            bound.close()
            return None
        return bound

    def ring(self, rings: Rings) -> None:
        """Ring for a committed transaction, if anybody listens."""
        if not self.is_listened(rings):
            return
        if rings.queues and self._queue_bells:
            message = b"\0".join(queue.encode() for queue in rings.queues)
            for name in self._queue_bells:
                self._send(name, message)
        if rings.jobs and self._job_bells:
            self._ring_jobs(rings.jobs)

    def is_listened(self, rings: Rings) -> bool:
        """Say whether there is a bell for any of this."""
        if not rings.queues and not rings.jobs:
            return False
        self._look()
        return bool(rings.queues and self._queue_bells) or bool(rings.jobs and self._job_bells)

    def close(self) -> None:
        """Let go of what was opened for ringing."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._seen = None

    def _ring_jobs(self, jobs: Sequence[bytes]) -> None:
        changed = {job.hex() for job in jobs}
        for name in self._job_bells:
            if not name.startswith(JOB):
                for start in range(0, len(jobs), DATAGRAM_JOBS):
                    self._send(name, b"".join(jobs[start : start + DATAGRAM_JOBS]))
            elif name[len(JOB) : len(JOB) + 32] in changed:
                self._send(name, bytes.fromhex(name[len(JOB) : len(JOB) + 32]))

    def _look(self) -> None:
        """Read the directory again if a bell was hung or taken down since."""
        try:
            status = self._directory.stat()
        except OSError:
            self._queue_bells = self._job_bells = []
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        names = os.listdir(self._directory)  # noqa: PTH208 - a tenth of the price of iterdir
        self._queue_bells = [name for name in names if name.startswith(QUEUES)]
        self._job_bells = [name for name in names if name.startswith(JOBS)]
        # A directory changed within the clock's tick may change again with the same time.
        is_settled = time.time_ns() - status.st_mtime_ns > 20_000_000
        self._seen = seen if is_settled else None

    def _send(self, name: str, message: bytes) -> None:
        if self._sender is None:
            self._sender = _datagrams()
        try:
            self._sender.sendto(message, self._address(name))
        except BlockingIOError:
            return  # its buffer is full of rings it has not heard yet
        except (ConnectionRefusedError, FileNotFoundError):
            # Whoever hung it is gone; a bell that is in use is always bound.
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()
            self._seen = None
        except OSError:
            return

    def _address(self, name: str) -> str:
        """Return a path short enough to bind (about 100 bytes), if there is one."""
        path = str(self._directory / name)
        if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
            return path
        if self._descriptor is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._descriptor = os.open(self._directory, flags)
        return f"/proc/self/fd/{self._descriptor}/{name}"


def _datagrams() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(0)
    return made


class Bell:
    """One subscription to queues, or to jobs."""

    def __init__(
        self,
        bound: socket.socket | None,
        path: Path,
        names: frozenset[bytes],
        version: Callable[[], int],
    ) -> None:
        self._socket = bound
        self._path = path
        self._names = names
        self._version = version
        self._last = version() if bound is None else 0

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""
        until = time.monotonic() + seconds
        while not self._rang():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self._socket is None:
                time.sleep(min(left, POLL_SECONDS))
            else:
                _wait(self._socket, left)
        return True

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""
        until = time.monotonic() + seconds
        while not self._rang():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self._socket is None:
                await asyncio.sleep(min(left, POLL_SECONDS))
            else:
                await _readable(self._socket, left)
        return True

    def close(self) -> None:
        """End the subscription."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _rang(self) -> bool:
        """Take in all rings that have come; say whether one was meant for us."""
        if self._socket is None:
            version = self._version()
            has_changed, self._last = version != self._last, version
            return has_changed
        is_ours = False
        while True:
            try:
                message = self._socket.recv(65_536)
            except BlockingIOError:
                return is_ours
            is_ours = is_ours or not self._names.isdisjoint(self._parts(message))

    def _parts(self, message: bytes) -> list[bytes]:
        if self._path.name.startswith(QUEUES):
            return message.split(b"\0")
        return [message[start : start + 16] for start in range(0, len(message), 16)]


def _wait(waiting: socket.socket, seconds: float) -> None:
    """Wait until a socket can be read; `poll`, for `select` ends at descriptor 1,023."""
    poll = select.poll()
    poll.register(waiting, select.POLLIN)
    poll.poll(seconds * 1000)


async def _readable(waiting: socket.socket, seconds: float) -> None:
    """Suspend until a socket can be read, or for `seconds`."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = loop.call_later(seconds, wake)
    descriptor = waiting.fileno()  # for the socket itself a selector would format its repr
    loop.add_reader(descriptor, wake)
    try:
        await woken
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)
