"""Forks: none happens while a thread of this process is inside SQLite.

SQLite has locks of its own for all connections of a process. A child forked while
another thread held one would wait for ever at its first use, so a fork waits until all
threads have come out. Python runs these hooks for `os.fork` and `multiprocessing`.
"""

from __future__ import annotations

import os
import threading

# Longer than any transaction of ours; a fork that waited this long goes ahead.
PATIENCE_SECONDS = 10.0


class Inside:
    """Entered by a thread for as long as it uses SQLite."""

    def __init__(self) -> None:
        self._change = threading.Condition(threading.Lock())
        self._number = 0
        self._is_forking = False
        self._mine = threading.local()  # how often this thread has entered

    def __enter__(self) -> None:
        depth = getattr(self._mine, "depth", 0)
        if not depth:
            with self._change:
                while self._is_forking:
                    self._change.wait()
                self._number += 1
        self._mine.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._mine.depth -= 1
        if not self._mine.depth:
            with self._change:
                self._number -= 1
                if self._is_forking:
                    self._change.notify_all()

    def wait_for_all_out(self) -> None:
        """Let no more threads in, and wait for those inside."""
        with self._change:
            self._is_forking = True
            own = 1 if getattr(self._mine, "depth", 0) else 0
            self._change.wait_for(lambda: self._number == own, PATIENCE_SECONDS)

    def go_on(self) -> None:
        """Let threads in again."""
        with self._change:
            self._is_forking = False
            self._change.notify_all()

    def start_anew(self) -> None:
        """In a child: its only thread is the one that forked."""
        self.__init__()  # type: ignore[misc]


# One for the process, as SQLite's own locks are.
inside_sqlite = Inside()

os.register_at_fork(
    before=inside_sqlite.wait_for_all_out,
    after_in_parent=inside_sqlite.go_on,
    after_in_child=inside_sqlite.start_anew,
)
