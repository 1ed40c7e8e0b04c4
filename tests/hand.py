"""The worker's part by hand: takes jobs and settles them, for tests without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane import Backlane
from backlane.engine.protocol import Settled, Wanted
from backlane.model.job import Lease
from backlane.model.outcome import ErrorRecord, Failed, Outcome, Reason, Settlement, Succeeded

LEASE_MS = 30_000
BOOM = ErrorRecord("builtins.OSError", "no route to host")


def take(app: Backlane, queue: str = "default", number: int = 1) -> list[Lease]:
    """Claim jobs as a worker would, from both lanes."""
    wanted = Wanted(owner="hand", number=number, lease_ms=LEASE_MS, queues=(queue,), lane=None)
    return app.engine.run(app.engine.claim(wanted)).leases


def settle(app: Backlane, lease: Lease, outcome: Outcome) -> Settled:
    return app.engine.run(app.engine.settle([Settlement(lease.job, lease.token, outcome)]))


def succeed(app: Backlane, value: Any, queue: str = "default") -> None:
    """Take the next job and let it succeed with a value."""
    lease = only(take(app, queue))
    settle(app, lease, Succeeded(app.tasks[lease.task or ""].codec.encode_result(value)))


def fail(app: Backlane, queue: str = "default") -> None:
    """Take the next job and let it fail for good."""
    settle(app, only(take(app, queue)), Failed(Reason.ERROR, BOOM))


def only(leases: Sequence[Lease]) -> Lease:
    assert len(leases) == 1, f"{len(leases)} jobs to take"
    return leases[0]
