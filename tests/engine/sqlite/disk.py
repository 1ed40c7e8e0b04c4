"""Disks that remember or fail: apsw file systems for what a disk can do to a store.

The shared memory file (`-shm`) is not recorded: a power loss ends it, and SQLite
rebuilds it from the log.
"""

# ruff: noqa: N802 - the names of these methods are those of SQLite

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

_names = itertools.count()


@dataclass(frozen=True)
class Event:
    """One call that changes a file, or makes its changes durable."""

    kind: str  # "write" | "truncate" | "sync" | "delete"
    name: str
    offset: int = 0
    data: bytes = b""


class RecordingDisk(apsw.VFS):
    """Passes everything on and keeps what would reach a disk, in order."""

    def __init__(self) -> None:
        self.name = f"recording{next(_names)}"
        self.events: list[Event] = []
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: Any) -> apsw.VFSFile:
        return RecordingFile(self, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        self.events.append(Event("delete", Path(name).name))
        super().xDelete(name, syncdir)


class RecordingFile(apsw.VFSFile):
    def __init__(self, disk: RecordingDisk, name: Any, flags: Any) -> None:
        self._events = disk.events
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(path).name if path else ""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._events.append(Event("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._events.append(Event("truncate", self._name, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._events.append(Event("sync", self._name))


@dataclass
class Platter:
    """One file as it would be found: what was synced, and what was only written."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        for event in self.pending:
            apply(self.durable, event)
        self.pending.clear()

    def after_power_loss(self, chance: random.Random | None) -> bytes:
        """What is found again: without the unsynced writes, or with some of them."""
        found = bytearray(self.durable)
        for event in self.pending:
            if chance is not None and chance.random() < 0.5:
                apply(found, event)
        return bytes(found)


def apply(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del content[event.offset :]
        return
    end = event.offset + len(event.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[event.offset : end] = event.data


def replay(events: list[Event]) -> Iterator[tuple[int, dict[str, Platter]]]:
    """Yield the disk as it is after each number of events, from 0."""
    platters: dict[str, Platter] = {}
    yield 0, platters
    for number, event in enumerate(events, 1):
        if event.kind == "delete":
            platters.pop(event.name, None)
        elif event.kind == "sync":
            platters.setdefault(event.name, Platter()).sync()
        else:
            platters.setdefault(event.name, Platter()).pending.append(event)
        yield number, platters


class FailingDisk(apsw.VFS):
    """Fails the n-th write or sync of database and log, counted from when it is armed.

    `lasting` failures go on until `mend`; others happen once.
    """

    def __init__(self, code: int) -> None:
        self.name = f"failing{next(_names)}"
        self.code = code
        self.calls = 0
        self.fails_at: int | None = None
        self.is_lasting = False
        self.has_failed = False
        super().__init__(self.name, "")

    def arm(self, number: int, *, lasting: bool = False) -> None:
        self.calls, self.fails_at, self.is_lasting = 0, number, lasting
        self.has_failed = False

    def mend(self) -> None:
        self.fails_at = None

    def xOpen(self, name: Any, flags: Any) -> apsw.VFSFile:
        return FailingFile(self, name, flags)

    def guard(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.fails_at is not None and (
            self.calls == self.fails_at or (self.is_lasting and self.calls > self.fails_at)
        ):
            self.has_failed = True
            raise apsw.exception_for(self.code)
        return call()


class FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: Any) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.guard(lambda: apsw.VFSFile.xWrite(self, data, offset))

    def xSync(self, flags: int) -> None:
        self._disk.guard(lambda: apsw.VFSFile.xSync(self, flags))
