"""Process: one set of handles on the file for each process that uses an engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from backlane.engine.sqlite.driver.handles import Handles


class Process:
    """The handles of this process, made when they are first needed, and after a fork anew."""

    def __init__(self, make: Callable[[], Handles]) -> None:
        self._make = make
        self._handles: Handles | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def handles(self) -> Handles:
        """Return this process's handles: those inherited by a fork are abandoned."""
        handles = self._handles
        if handles is not None and handles.is_own:
            return handles
        if self._pid != os.getpid():
            # Another thread of the parent may have held the lock when it forked.
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._handles is not None and not self._handles.is_own:
                self._handles.abandon()
                self._handles = None
            if self._handles is None:
                self._handles = self._make()
            return self._handles

    def opened(self) -> Handles:
        """Return them with the file open."""
        handles = self.handles()
        handles.open()
        return handles

    def close(self) -> None:
        """Let go of the file; the next use opens anew."""
        with self._lock:
            handles, self._handles = self._handles, None
        if handles is not None and handles.is_own:
            handles.close()
