"""A counter: jobs handed to a bare engine, and what it hands out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from backlane.engine.bare import Bare
from backlane.engine.protocol import Admission, Claimed, Settled, Wanted
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job, Lane, Lease, Receipt, Refusal
from backlane.model.outcome import ErrorRecord, Outcome, Settlement
from backlane.model.queue import Bounds, Kind

QUEUE = "mail"
BROKEN = ErrorRecord("builtins.OSError", "the line is down", "Traceback …")
SECONDS = 10.0


def job(body: bytes = b'{"user_id":7}', **fields: Any) -> Job:
    """Return a job of a task, with an id of its own."""
    given = {"id": new_id(SystemClock().wall_ms()), "queue": QUEUE, "task": "send", "body": body}
    return Job(**{**given, **fields})


class Counter:
    """One process at a bare engine."""

    def __init__(self, engine: Bare) -> None:
        self.engine = engine

    def append(
        self, *jobs: Job, bounds: Mapping[str, Bounds] | None = None
    ) -> list[Receipt] | Refusal:
        return self.engine.run(self.engine.append(jobs, Admission(bounds or {})))

    def claim(self, number: int = 10, **wanted: Any) -> Claimed:
        given: dict[str, Any] = {"queues": (QUEUE,), "lease_ms": 30_000, **wanted}
        return self.engine.run(self.engine.claim(Wanted(owner="w", number=number, **given)))

    def take(self, number: int = 1, seconds: float = SECONDS, **wanted: Any) -> list[Lease]:
        """Claim until there are so many, or the time is over."""
        queues = wanted.get("queues", (QUEUE,))
        until, leases = time.monotonic() + seconds, list[Lease]()
        bell = self.engine.listen(queues)
        try:
            while len(leases) < number:
                leases += self.claim(number - len(leases), **wanted).leases
                left = until - time.monotonic()
                if left <= 0 or len(leases) >= number:
                    break
                bell.heard(min(left, 0.2))
        finally:
            bell.close()
        return leases

    def messages(self, number: int = 1, seconds: float = SECONDS, **wanted: Any) -> list[Lease]:
        """Take raw messages."""
        return self.take(number, seconds, kind=Kind.MESSAGES, lane=None, **wanted)

    def alone(self, number: int = 1, seconds: float = SECONDS) -> list[Lease]:
        """Take jobs that run alone in a process."""
        return self.take(number, seconds, lane=int(Lane.EXCLUSIVE))

    def settle(self, *leases: Lease, outcome: Outcome) -> Settled:
        settlements = [Settlement(lease.job, lease.token, outcome) for lease in leases]
        return self.engine.run(self.engine.settle(settlements))

    def is_empty(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        return not self.take(1, seconds)
