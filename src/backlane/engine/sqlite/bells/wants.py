"""Wants: what the processes listen for, so that those who ring send nothing in vain.

A file beside each socket has a byte for each value of the last two bytes of a name: how
many such names are listened for. The process that listens writes it, all others map it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from enum import IntEnum
from pathlib import Path

SLOTS = 65_536


class Table(IntEnum):
    """What names are names of, and so where in the file they are looked for."""

    QUEUES = 0
    JOBS = 1  # that may have changed
    STARTS = 2  # jobs that a worker took


OVERFLOWN = SLOTS * len(Table)  # a byte that says: rings were lost, for the socket was full
COUNTS = OVERFLOWN + 1  # a byte a table: 0 where nothing in it is listened for
FILE_BYTES = COUNTS + len(Table)
MOST = 255  # a byte's; how many more there are is not known, so it never goes down again


def slot(table: Table, name: bytes) -> int:
    """Return where in the file the byte for this name is.

    The last bytes of an id are random; two names that share a slot cost a ring in vain.
    """
    number = zlib.crc32(name) & 0xFFFF if table is Table.QUEUES else name[-2] << 8 | name[-1]
    return table * SLOTS + number


def file_of(name: str) -> str:
    """Return the name of the file beside a socket."""
    return f"{name}.wants"


def opened(path: Path) -> mmap.mmap:
    """Map the file of another process, to be read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ)


def tell_overflow(path: Path) -> None:
    """Tell another process that it was not told all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, b"\1", OVERFLOWN)
        finally:
            os.close(descriptor)


class Wants:
    """The file of this process.

    It is written by calls and not by a mapping: on a full disk that would end the process,
    while a want that cannot be written costs no more than the wait for the next poll.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor: int | None = os.open(path, flags, 0o600)
        os.truncate(self._descriptor, FILE_BYTES)

    def add(self, table: Table, name: bytes, number: int) -> None:
        """One name more, of `number` in its table."""
        at = slot(table, name)
        self._write(at, min(MOST, self._read(at) + 1))
        self._write(COUNTS + table, min(MOST, number))

    def remove(self, table: Table, name: bytes, number: int) -> None:
        """One name less; `number` are left in its table."""
        at = slot(table, name)
        if (count := self._read(at)) < MOST:
            self._write(at, max(0, count - 1))
        self._write(COUNTS + table, min(MOST, number))

    def has_overflown(self) -> bool:
        """Say, once, whether rings were lost."""
        if not self._read(OVERFLOWN):
            return False
        self._write(OVERFLOWN, 0)
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, at: int, value: int) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, bytes((value,)), at)

    def _read(self, at: int) -> int:
        if self._descriptor is None:
            return 0
        try:
            return os.pread(self._descriptor, 1, at)[0]
        except (OSError, IndexError):
            return 0
