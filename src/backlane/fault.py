"""Faults: refusals of the store that waiting would not mend, as the errors they mean."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from backlane.errors import (
    Duplicate,
    KeyReused,
    OutcomeUnknown,
    Refused,
    StaleId,
    StoreMoved,
    WrongUse,
)
from backlane.model.job import Job, Refusal


def fault(refusal: Refusal) -> Refused | WrongUse | None:
    """Return the error of a refusal that is the caller's own fault: waiting would not help."""
    match refusal.limit:
        case "stale":
            job = "" if refusal.job is None else f" {uuid.UUID(bytes=refusal.job)}"
            return StaleId(
                f"the id{job} is older than the history of queue {refusal.queue!r}, which alone "
                "could tell whether the job ran already; enqueue it without an id if it did not"
            )
        case "kind":
            return WrongUse(
                f"queue {refusal.queue!r} does not hold this kind: a queue holds tasks or "
                "messages, and its first use has fixed which; name another one"
            )
        case "moving":
            return StoreMoved(refusal.to or "another one")
        case "reused":
            return KeyReused(
                f"the idempotency key came with another call of queue {refusal.queue!r} in the "
                "last 24 h; use a new key for a new call, and the same arguments for a repeat"
            )
        case "after":
            job = "a job" if refusal.job is None else f"job {uuid.UUID(bytes=refusal.job)}"
            return WrongUse(
                f"{job} waits for one that the store does not know (any more), or for itself by "
                "way of others; append what it waits for before it, or with it"
            )
        case "key" if refusal.first is not None:
            first = uuid.UUID(bytes=refusal.first)
            return Duplicate(f"job {first} holds the key already, so no job was stored", first)
        case _:
            return None


def naming(jobs: Sequence[Job], error: OutcomeUnknown) -> OutcomeUnknown:
    """Return a doubt that names the ids to send again."""
    return OutcomeUnknown(str(error), tuple(uuid.UUID(bytes=job.id) for job in jobs))
