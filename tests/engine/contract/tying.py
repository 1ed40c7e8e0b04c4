"""Edges in few words, for tests that read as sentences."""

from __future__ import annotations

import uuid

from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.model.job import Edge, Job, Receipt, Refusal, State, When
from backlane.model.outcome import ErrorRecord, Outcome

ENDED = When.ENDED
ON_FAILURE = When.FAILED


def after(*jobs: bytes | Job, when: When = When.SUCCEEDED) -> tuple[Edge, ...]:
    return tuple(Edge(job if isinstance(job, bytes) else job.id, when) for job in jobs)


def skipped(job: bytes, state: State) -> ErrorRecord:
    told = f"job {uuid.UUID(bytes=job)}, which it waited for, ended as {state}"
    return ErrorRecord("Skipped", told)


def took(answer: list[Receipt] | Refusal) -> None:
    assert isinstance(answer, list), answer
    assert all(receipt.is_new for receipt in answer)


def end(desk: Desk, job: bytes, outcome: Outcome = SUCCEEDED, queue: str = "mail") -> None:
    """Lease this very job and settle it."""
    (lease,) = desk.claim(1, queue, ids=(job,)).leases
    desk.settle(lease, outcome)
