"""Presence: a worker is there for as long as anything of it keeps its file locked.

The lock goes with the last copy of its descriptor, however the processes end, so a
killed worker is known dead at once and a stopped one never is. An owner without a file
(a receiver of raw messages) never locked one, so it is never known dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

PREFIX = "o."


class Roll:
    """The directory of owners' files beside one database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def enlist(self, owner: str) -> Presence:
        """Lock a file for this owner."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        # Locked under another name first: the file must never be seen without its lock.
        draft = self._directory / f"new.{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(self._directory / f"{PREFIX}{owner}")
        os.set_inheritable(descriptor, True)  # noqa: FBT003
        return Presence(descriptor)

    def departed(self) -> list[str]:
        """Return the owners whose file nobody keeps locked any more."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        owned = sorted(name for name in names if name.startswith(PREFIX))
        return [name[len(PREFIX) :] for name in owned if not self._is_locked(name)]

    def forget(self, owner: str) -> None:
        """Remove the file of an owner that has departed."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / f"{PREFIX}{owner}").unlink()

    def _is_locked(self, name: str) -> bool:
        try:
            descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True  # forgotten by another process just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)


class Presence:
    """One owner's lock."""

    def __init__(self, descriptor: int) -> None:
        self.descriptors: tuple[int, ...] = (descriptor,)

    def close(self) -> None:
        """Give the lock up, unless an executor still keeps it."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()
