"""The gate: where writers of all processes queue for SQLite's write lock.

SQLite's own waiting lets the quickest in again and again (a worker was kept out for
3.4 s); `flock` wakes who waits. The lock only orders: what keeps writers apart is
SQLite's lock, so nothing breaks if the file is deleted.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from pathlib import Path

from backlane.errors import EngineBusy

WAIT_SECONDS = 5.0


class Gate:
    """One lock file, opened at first use. Used by one thread of a process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._change = threading.Condition()
        self._is_blocked = False  # the keeper waits in the kernel
        self._is_wanted = False
        self._is_granted = False
        self._calls: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None

    def acquire(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for the lock.

        Raises:
            EngineBusy: it was not free within `seconds`; names who holds it.
        """
        with self._change:
            if not self._is_blocked:
                if self.try_acquire():
                    return
                self._is_blocked = True
                self._call_keeper()
            self._is_wanted = True
            self._change.wait_for(lambda: self._is_granted, seconds)
            self._is_wanted = False
            if self._is_granted:
                self._is_granted = False
                return
        raise EngineBusy(
            f"{self._path} was held for {seconds:.0f} s by {self._holder()}; if that process "
            "is stopped or hangs, continue it or end it"
        )

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._open(), fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        self._calls.put("end")
        with self._change:
            if self._is_blocked:
                return  # the keeper still waits on it, and ends the process's wait with it
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptor; one inherited by a fork leaves the lock with the parent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def _call_keeper(self) -> None:
        """Have a thread wait in the kernel: only there one is woken in turn, without limit."""
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._keep, name="backlane-gate", daemon=True)
            self._keeper.start()
        self._calls.put("wait")

    def _keep(self) -> None:
        while self._calls.get() == "wait":
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with self._change:
                self._is_blocked = False
                if self._is_wanted:
                    self._is_granted = True
                    self._change.notify_all()
                else:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _holder(self) -> str:
        pid = lock_holder(self._path, "FLOCK")
        return f"process {pid}" if pid else "another process"


def lock_holder(path: Path, kind: str, start: int | None = None) -> int | None:
    """Return the process that holds a write lock on a file, where the system tells."""
    try:
        status = path.stat()
        locks = Path("/proc/locks").read_text("ascii", "replace")
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[1] != kind or fields[3] != "WRITE" or fields[5] != device:
            continue
        if start is None or fields[6] == str(start):
            return int(fields[4])
    return None
