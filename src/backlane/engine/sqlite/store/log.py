"""The log file, kept longer than what is written to it.

A commit that makes the log longer has the file system sync the file's length as well,
which here costs as much as the data does: 0.31 ms a commit, and 0.17 ms where the
blocks are there already. So a log that is in use is grown ahead with zeros, which
SQLite takes for the end of the log (a frame of page 0 is never valid). After a
checkpoint the log starts again from its beginning, over blocks that stay.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger("backlane")

FRAME_BYTES = 4096 + 24  # a page and its header
IN_USE_BYTES = 64 * 1024  # a log shorter than this is of a process that comes and goes
AHEAD_BYTES = 256 * 1024  # a full turn writes less
GROW_BYTES = 1024 * 1024  # about 3 ms, each 60 enqueues or more


class Log:
    """The log beside one database."""

    __slots__ = ("_path", "_size", "_used")

    def __init__(self, database: Path) -> None:
        self._path = f"{database}-wal"
        self._used = 0
        self._size = 0

    def saw(self, pages: int) -> None:
        """Hear of the log's length after a commit."""
        self._used = pages * FRAME_BYTES

    @property
    def is_short(self) -> bool:
        """Whether it is in use, and may end soon."""
        return self._used > IN_USE_BYTES and self._used + AHEAD_BYTES > self._size

    def grow(self) -> None:
        """Add zeros at the end. Only within a write transaction: nobody else may write."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                self._size = os.fstat(descriptor).st_size
                if self.is_short:
                    os.pwrite(descriptor, bytes(GROW_BYTES), self._size)
                    self._size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        except OSError as error:
            # It only makes commits quicker: a full disk is told by the commit itself.
            log.debug("%s is not grown ahead: %s", self._path, error)
            self._size = self._used + AHEAD_BYTES + GROW_BYTES
