"""Bells: one datagram from who changed something to each process that waits for it.

Ringing is for speed only: a lost ring costs the wait until the next poll. It happens
after the commit, and costs one look at a directory where nobody listens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from pathlib import Path

from backlane.engine.sqlite.bells.ear import Bell, Ear, datagrams
from backlane.engine.sqlite.bells.wants import COUNTS, Table, file_of, opened, slot, tell_overflow
from backlane.engine.sqlite.store.transaction import Rings

DATAGRAM_JOBS = 1_000  # 16 kB: far below what a socket takes at once
FILE_PATIENCE_SECONDS = 60.0  # an ear makes its file a moment before its socket


class Belfry:
    """The directory of ears beside one database."""

    def __init__(self, directory: Path, version: Callable[[], int]) -> None:
        self._directory = directory
        self._version = version
        self._seen: tuple[int, int] | None = None
        self._ears: dict[str, mmap] = {}  # of all processes, with what they want
        self._ear: Ear | None = None  # this process's own
        self._hanging = threading.Lock()
        self._sender: socket.socket | None = None
        self._descriptor: int | None = None

    # -- hearing --

    def listen(self, queues: Iterable[str]) -> Bell:
        """Hang a bell that hears of queues."""
        return self._hang((Table.QUEUES,), [name.encode() for name in queues])

    def watch(self, jobs: Iterable[bytes], *, starts: bool) -> Bell:
        """Hang a bell that hears of jobs."""
        return self._hang((Table.JOBS, Table.STARTS) if starts else (Table.JOBS,), jobs)

    def _hang(self, tables: Sequence[Table], names: Iterable[bytes]) -> Bell:
        with self._hanging:
            if self._ear is None or self._ear.is_ending:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                self._sweep()
                name = secrets.token_hex(6)
                self._ear = Ear(self._directory, name, self._address, self._version)
            return self._ear.hang(tables, names)

    def _sweep(self) -> None:
        """Remove what dead processes left behind."""
        names = set(os.listdir(self._directory))  # noqa: PTH208 - as below
        for name in names:
            path = self._directory / name
            if not name.endswith(".wants"):
                self._connects(name)
            elif name.removesuffix(".wants") not in names:
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > FILE_PATIENCE_SECONDS:
                        path.unlink()

    def _connects(self, name: str) -> None:
        with datagrams() as probe:
            try:
                probe.connect(self._address(name))
            except ConnectionRefusedError:
                self._remove(name)
            except OSError:
                return

    # -- ringing --

    def ring(self, rings: Rings) -> None:
        """Ring for a committed transaction, if anybody listens."""
        if not rings.queues and not rings.jobs and not rings.starts:
            return
        self._look()
        for name, file in list(self._ears.items()):
            for message in _messages(rings, file):
                self._send(name, message)

    def is_listened(self, rings: Rings) -> bool:
        """Say whether there is a bell for any of this."""
        if not rings.queues and not rings.jobs and not rings.starts:
            return False
        self._look()
        return any(message for file in self._ears.values() for message in _messages(rings, file))

    def close(self) -> None:
        """Let go of what was opened; bells that hang go on."""
        with self._hanging:
            if self._ear is not None:
                self._ear.end()
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._seen, self._ears = None, {}

    def abandon(self) -> None:
        """In a forked child: close the copy of the parent's ear."""
        if self._ear is not None:
            self._ear.abandon()

    def _look(self) -> None:
        """Read the directory again if an ear came or went since."""
        try:
            status = self._directory.stat()
        except OSError:
            self._ears = {}
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        names = os.listdir(self._directory)  # noqa: PTH208 - a tenth of the price of iterdir
        known = self._ears
        found: dict[str, mmap] = {}
        for name in names:
            if not name.endswith(".wants"):
                with contextlib.suppress(OSError, ValueError):  # it went meanwhile
                    found[name] = known.get(name) or opened(self._directory / file_of(name))
        self._ears = found
        # A directory changed within the clock's tick may change again with the same time.
        is_settled = time.time_ns() - status.st_mtime_ns > 20_000_000
        self._seen = seen if is_settled else None

    def _send(self, name: str, message: bytes) -> None:
        if self._sender is None:
            self._sender = datagrams()
        try:
            self._sender.sendto(message, self._address(name))
        except BlockingIOError:
            # It is full of rings that were not heard yet; what is lost may matter.
            tell_overflow(self._directory / file_of(name))
        except (ConnectionRefusedError, FileNotFoundError):
            # Whoever made it is gone; an ear that is in use is always bound.
            self._remove(name)
            self._ears.pop(name, None)
            self._seen = None
        except OSError:
            return

    def _remove(self, name: str) -> None:
        for gone in (name, file_of(name)):
            with contextlib.suppress(OSError):
                (self._directory / gone).unlink()

    def _address(self, name: str) -> str:
        """Return a path short enough to bind (about 100 bytes), if there is one."""
        path = str(self._directory / name)
        if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
            return path
        if self._descriptor is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._descriptor = os.open(self._directory, flags)
        return f"/proc/self/fd/{self._descriptor}/{name}"


def _messages(rings: Rings, file: mmap) -> list[bytes]:
    """Return what one ear wants to be told of."""
    messages = []
    if rings.queues and file[COUNTS + Table.QUEUES]:
        names = [name.encode() for name in rings.queues]
        if told := [name for name in names if file[slot(Table.QUEUES, name)]]:
            messages.append(bytes((Table.QUEUES,)) + b"\0".join(told))
    for table, jobs in ((Table.JOBS, rings.jobs), (Table.STARTS, rings.starts)):
        if jobs and file[COUNTS + table]:
            told = [job for job in jobs if file[slot(table, job)]]
            messages += [
                bytes((table,)) + b"".join(told[start : start + DATAGRAM_JOBS])
                for start in range(0, len(told), DATAGRAM_JOBS)
            ]
    return messages
