"""A job of the memory engine, and all that changes about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from backlane.model.job import (
    ERRORS_KEPT,
    AttemptError,
    Idempotency,
    Job,
    Lane,
    Progress,
    State,
)
from backlane.model.limit import Use
from backlane.model.outcome import ErrorRecord, Reason

Order = tuple[int, int, int]  # inverted rank, place, seq: the smallest goes first


@dataclass(slots=True)
class Row:
    """A job and all that changes about it."""

    job: Job
    seq: int  # order of append in the whole store
    enqueued_ms: int
    queue: str
    lane: Lane
    priority: int
    rank: int  # the priority it waits at: ageing raises it, up to 9
    place_ms: int  # when it is or was due: its order among equals of its rank
    deadline_ms: int | None
    virtual_ms: int | None = None  # its place in a fair queue instead, once it is in line
    predicted_ms: int | None = None  # the wait it was told, if its append was measured by it
    state: State = State.READY
    waits_for: int = 0  # jobs that have not ended: until then it is blocked
    blocked_on: Use | None = None  # what a blocked one waits for, if not for jobs
    turns: tuple[Use, ...] = ()  # that it holds until it ends
    revision: int = 0
    attempt: int = 0
    token: int = 0
    crashes: int = 0
    owner: str | None = None
    lease_end_ms: int = 0  # boot clock
    cancelling: bool = False
    parked_since_ms: int | None = None
    progress: Progress | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    ran_ms: int = 0  # of the attempt that ended it
    reason: Reason | None = None
    result: bytes | None = None
    errors: tuple[AttemptError, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Its order among equals of its rank."""
        return (self.place_ms if self.virtual_ms is None else self.virtual_ms, self.seq)

    @property
    def order(self) -> Order:
        return (-self.rank, *self.place)

    def keep_error(self, error: ErrorRecord | None, now_ms: int) -> None:
        """Keep what ended the execution that is now running."""
        if error is not None:
            kept = AttemptError(self.attempt + 1, now_ms, error)
            self.errors = (*self.errors, kept)[-ERRORS_KEPT:]


class Repeat(NamedTuple):
    """An idempotency key that was used: by which job, for what, and until when it counts."""

    job: bytes
    asked: Idempotency
    until_ms: int  # wall clock
