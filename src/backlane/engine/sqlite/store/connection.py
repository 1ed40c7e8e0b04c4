"""Connections: a SQLite file opened with the settings that its promises need."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from backlane.engine.sqlite.store.address import check_place
from backlane.engine.sqlite.store.gate import WAIT_SECONDS, lock_holder
from backlane.errors import EngineBusy, EngineUnavailable

RETRY_SECONDS = 0.0002
# 4 MiB: the leaves that a turn of 300 touches fit with room to spare; 16 MiB was no faster.
CACHE_KIB = 4096
WRITE_LOCK_BYTE = 120  # of the -shm file: WAL_WRITE_LOCK in SQLite's file format


@dataclass(frozen=True, slots=True)
class Database:
    """A file, how it is to be opened, and the directory of locks and bells beside it."""

    path: Path
    durability: str = "full"
    may_be_remote: bool = False
    vfs: str | None = None
    side: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", Path(f"{self.path}-side"))

    @property
    def name(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Make the file and the directory beside it, if they are missing.

        Raises:
            EngineUnavailable: there is no place for them.
        """
        check_place(self.path, may_be_remote=self.may_be_remote)
        self.side.mkdir(mode=0o700, exist_ok=True)
        # Exclusively: to open and close a file that SQLite has open in this process would
        # drop the locks it holds there.
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self.path, flags, 0o600))
            sync_directory(self.path.parent)

    def connect(self) -> apsw.Connection:
        """Open the file, which exists."""
        connection = apsw.Connection(self.name, flags=apsw.SQLITE_OPEN_READWRITE, vfs=self.vfs)
        try:
            self._settle_in(connection)
        except BaseException:
            connection.close(force=True)
            raise
        return connection

    def begin(self, connection: apsw.Connection) -> None:
        """Open a write transaction, inside the gate.

        Raises:
            EngineBusy: a transaction outside the gate held the lock for too long.
        """
        self.patiently(lambda: connection.execute("begin immediate"))

    def patiently(self, work: Callable[[], object]) -> None:
        """Try again while another connection has the lock; SQLite's own waiting is off."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                work()
            except (apsw.BusyError, apsw.LockedError) as error:
                if time.monotonic() > until:
                    raise self._busy() from error
                time.sleep(RETRY_SECONDS)
            else:
                return

    def _settle_in(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(0)
        connection.wal_autocheckpoint(0)  # `Checkpointer` does it, one at a time
        # Patiently: who turns the log on, or closes the file as the last, has it alone for
        # a moment, and then even a pragma that sets nothing in the file is refused.
        self.patiently(lambda: self._set_pragmas(connection))

    def _set_pragmas(self, connection: apsw.Connection) -> None:
        connection.pragma("synchronous", self.durability)
        connection.pragma("fullfsync", 1)  # macOS: past the disk's own cache
        connection.pragma("checkpoint_fullfsync", 1)
        connection.pragma("temp_store", "memory")
        connection.pragma("cache_size", -CACHE_KIB)
        if connection.pragma("journal_mode") != "wal":
            self._use_wal(connection)

    def _use_wal(self, connection: apsw.Connection) -> None:
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise EngineUnavailable(
                f"{self.path} cannot use a write-ahead log (its journal mode stays {mode!r}): "
                "the file system lacks shared memory; use a local disk"
            )

    def _busy(self) -> EngineBusy:
        pid = lock_holder(Path(f"{self.path}-shm"), "POSIX", WRITE_LOCK_BYTE)
        who = f"process {pid}" if pid else "another connection"
        return EngineBusy(
            f"{self.path}: a write transaction of {who} was open for {WAIT_SECONDS:.0f} s; "
            "commit or roll it back sooner"
        )


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_boot_id() -> str:
    """Return what differs between any two starts of this machine."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
