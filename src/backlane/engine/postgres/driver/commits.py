"""Commits: when a caller's transaction has ended, where its library does not tell.

Psycopg tells nobody of a commit. So one thread looks at the connections whose
transactions hold jobs, for as long as there are any, and rings once they have ended: a
field in memory is read, nothing is sent. A ring too many only has somebody look.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from psycopg.pq import TransactionStatus

from backlane.engine.postgres.store.transaction import Rings

LOOK_SECONDS = 0.002  # 500 looks a second are 0.2 % of a core
LATER_SECONDS = 0.02  # for transactions that have been open for a second
GIVEN_UP_SECONDS = 60.0  # a worker's own look has found the job long before

_OPEN = (TransactionStatus.INTRANS, TransactionStatus.ACTIVE, TransactionStatus.INERROR)


class Commits:
    """The callers' transactions that one process waits to see the end of."""

    def __init__(self, ring: Callable[[Rings], None]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._open: dict[int, tuple[weakref.ref[Any], Rings, float]] = {}
        self._thread: threading.Thread | None = None

    def expect(self, driver: Any, rings: Rings) -> None:
        """Ring these once the transaction that is open on a connection has ended."""
        with self._lock:
            known = self._open.get(id(driver))
            if known is not None and known[0]() is driver:
                known[1].add(rings)
                return
            self._open[id(driver)] = (weakref.ref(driver), rings, time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._look, name="backlane-commits", daemon=True
                )
                self._thread.start()

    def _look(self) -> None:
        while True:
            now = time.monotonic()
            ended, youngest = [], GIVEN_UP_SECONDS
            with self._lock:
                for key, (driver, rings, since) in list(self._open.items()):
                    if _has_ended(driver()) or now - since > GIVEN_UP_SECONDS:
                        del self._open[key]
                        ended.append(rings)
                    else:
                        youngest = min(youngest, now - since)
                if not self._open:
                    self._thread = None
            for rings in ended:
                self._ring(rings)
            if self._thread is not threading.current_thread():
                return
            time.sleep(LOOK_SECONDS if youngest < 1.0 else LATER_SECONDS)


def _has_ended(driver: Any) -> bool:
    return driver is None or driver.pgconn.transaction_status not in _OPEN
