"""The outbox of an executor: outcomes and progress on their way to the dispatcher.

Any thread puts something in, any thread flushes. Outcomes leave together, in one
frame a flush; progress leaves at most once a second for each job.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from backlane.engine.protocol import Settled
from backlane.model.job import Lease, Note, Progress
from backlane.model.outcome import Settlement
from backlane.worker.channel import Completed, Ended, Frame, Noted

NOTE_SECONDS = 1.0  # progress is for people; each report is a write in the store


class Outbox:
    """Collects settlements and notes until they are flushed to `send`."""

    __slots__ = ("_latest", "_lock", "_noted", "_send", "_settlements", "put")

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._settlements: deque[Settlement] = deque()
        self.put = self._settlements.append
        self._noted: dict[bytes, float] = {}  # job -> when its progress was last sent
        self._latest: dict[bytes, Note] = {}  # job -> progress that waits for its second

    def __len__(self) -> int:
        return len(self._settlements)

    def flush(self) -> None:
        """Send all outcomes that have been put in so far."""
        with self._lock:
            number = len(self._settlements)
            if number:
                take = self._settlements.popleft
                self._send(Ended([take() for _ in range(number)]))

    def note(self, lease: Lease, progress: Progress) -> None:
        """Send a job's progress, or keep it until its second is over."""
        now = time.monotonic()
        note = Note(lease.job, lease.token, progress)
        with self._lock:
            if now - self._noted.get(lease.job, -NOTE_SECONDS) < NOTE_SECONDS:
                self._latest[lease.job] = note
                return
            self._noted[lease.job] = now
            self._latest.pop(lease.job, None)
            self._send(Noted([note]))

    def completed(self, lease: Lease, settled: Settled) -> None:
        """Send word that a job has settled itself, ahead of its end.

        At once: until it is heard, the dispatcher believes in a lease that is gone.
        """
        with self._lock:
            self._send(Completed(lease.job, lease.token, settled.turned))

    @property
    def has_notes(self) -> bool:
        return bool(self._latest)

    def flush_notes(self) -> None:
        """Send the progress whose second is over."""
        now = time.monotonic()
        with self._lock:
            due = [job for job in self._latest if now - self._noted[job] >= NOTE_SECONDS]
            if due:
                self._send(Noted([self._latest.pop(job) for job in due]))
                self._noted.update(dict.fromkeys(due, now))

    def forget(self, job: bytes) -> None:
        """Drop the unsent progress of a job that has ended: its outcome says more."""
        if self._noted:
            with self._lock:
                self._noted.pop(job, None)
                self._latest.pop(job, None)
