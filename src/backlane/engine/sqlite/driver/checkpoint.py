"""The checkpointer: moves the log into the database, one process at a time.

The bulk is copied beside the writers; only the rest, and with it the moment at which
the log can start again from its beginning, needs the gate. Without that second step a
busy writer would never let the log end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import apsw

from backlane.engine.sqlite.store.connection import Database
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.gate import Gate
from backlane.errors import BacklaneError

log = logging.getLogger("backlane")

LOG_BYTES = 16 * 1024 * 1024


class Checkpointer:
    """A thread that is started when the log has grown, and ends when it has shrunk."""

    def __init__(
        self, database: Database, exclusively: Callable[[Callable[[], object]], None]
    ) -> None:
        self._database = database
        self._exclusively = exclusively
        self._lock = Gate(database.side / "checkpoint")
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        self._page_bytes = 4096

    def saw_log(self, pages: int) -> None:
        """Hear of the log's length after a commit."""
        if pages * self._page_bytes >= LOG_BYTES and self._busy.acquire(blocking=False):
            self._thread = threading.Thread(
                target=self._work, name="backlane-checkpoint", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Wait for what is under way."""
        if self._thread is not None:
            self._thread.join()
        self._lock.close()

    def abandon(self) -> None:
        """Close a descriptor inherited by a fork."""
        self._lock.abandon()

    def _work(self) -> None:
        try:
            if self._lock.try_acquire():
                try:
                    self.copy()
                finally:
                    self._lock.release()
        except (apsw.Error, BacklaneError, OSError) as error:
            # The log only grows on; the next commit tries again.
            log.warning("%s: its log could not be copied: %s", self._database.name, error)
        finally:
            self._busy.release()

    def copy(self) -> None:
        """Move the whole log into the database."""
        with inside_sqlite:
            connection = self._database.connect()
        try:
            _copy_by(connection)
            self._exclusively(lambda: _copy_by(connection))
        finally:
            with inside_sqlite:
                connection.close(force=True)


def _copy_by(connection: apsw.Connection) -> None:
    with inside_sqlite:
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
