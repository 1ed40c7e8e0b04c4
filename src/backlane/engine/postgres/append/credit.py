"""Credit: places of queues that a process may fill without asking the store again.

The exact way of an append takes the queue's lock, sums what is held, and judges. On the
way it is granted a share of the room that is left, in a row of `credit`. The quick way
then spends of that: one statement, no lock, and the sum of what is held and what is
granted never passes the bound. Near the bound nothing is granted, and what others were
granted is taken back, so that the last place is found as well.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from backlane.engine.portion import Line
from backlane.model.job import Job
from backlane.model.limit import Limit
from backlane.model.queue import Bounds

SHARE = 64  # of the room that is left, one part is granted
LEAST, MOST = 4, 10_000  # places worth a grant
FRESH_SECONDS = 0.25  # how long the depth that was read is good enough for a wait foretold
LIFE_MS = 60_000  # a grant that was not renewed is taken back
USED_SECONDS = 1.0  # who appended within this may well do so again


@dataclass(slots=True)
class Account:
    """What a process knows of one queue, and may fill of it."""

    line: Line
    credit: int = 0  # of the row; 0: none
    jobs: int = 0
    bytes: int = 0
    until: float = 0.0  # how long it holds, by `time.monotonic`
    fresh_until: float = 0.0

    def renew(self) -> None:
        """It was granted just now."""
        now = time.monotonic()
        self.until = now + LIFE_MS / 2000  # long before a sweep takes it back
        self.fresh_until = now + FRESH_SECONDS


class Purse:
    """The accounts of one process. Safe for all its threads."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.owner = uuid.uuid4().hex
        self._pid = os.getpid()
        self.forgotten_ms = -1
        self.resources: dict[str, int] = {}  # numbers of names; never change
        self.limits: dict[str, int] = {}  # the same
        self.declared: dict[str, Limit] = {}  # limits, as this process said last
        self._accounts: dict[str, Account] = {}
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def undeclare(self, limit: str) -> None:
        """Forget what this process said of a limit: somebody else did."""
        self.declared.pop(limit, None)

    def lines(self, jobs: Sequence[Job]) -> dict[str, Account] | None:
        """Return what is known of the queues of these jobs; None: not enough."""
        if self._pid != os.getpid():
            self._begin()  # a fork must not spend what its parent was granted
        now = time.monotonic()
        found: dict[str, Account] = {}
        for name in {job.queue for job in jobs}:
            account = self._accounts.get(name)
            if account is None or now > min(account.until, account.fresh_until):
                return None
            found[name] = account
        return found

    def spend(self, needs: dict[str, tuple[int, int]]) -> list[Account] | None:
        """Take places and bytes of these queues, all or nothing."""
        with self._lock:
            taken = []
            for name, (jobs, size) in needs.items():
                account = self._accounts.get(name)
                if account is None or account.jobs < jobs or account.bytes < size:
                    return None
                taken.append((account, jobs, size))
            for account, jobs, size in taken:
                account.jobs -= jobs
                account.bytes -= size
            return [account for account, _, _ in taken]

    def is_busy(self, queue: str) -> bool:
        """Whether this process appended to the queue a moment ago, so that a grant pays."""
        now = time.monotonic()
        before = self._asked.get(queue, 0.0)
        self._asked[queue] = now
        return now - before < USED_SECONDS

    def keep(self, account: Account) -> None:
        """Let this be what is known of its queue."""
        self._accounts[account.line.name] = account

    def forget(self, queues: Sequence[str] | None = None) -> None:
        """Know nothing any more of these queues, or of any; what was granted is given back
        by the next append, or by a sweep."""
        with self._lock:
            if queues is None:
                self._accounts.clear()
            for name in queues or ():
                self._accounts.pop(name, None)


def granted(line: Line, bounds: Bounds, open_jobs: int, open_bytes: int) -> tuple[int, int]:
    """Return how many places and bytes to grant of a queue that holds what `line` says."""
    jobs = min(MOST, (bounds.max_jobs - line.jobs - open_jobs) // SHARE)
    size = (bounds.max_bytes - line.bytes - open_bytes) // SHARE
    return (jobs, size) if jobs >= LEAST and size > 0 else (0, 0)
