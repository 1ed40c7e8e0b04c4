"""Edges: which jobs wait for which, and what of it is left to wait for.

Only the bookkeeping: what becomes of a row whose edges were followed is the store's
affair. An edge is open until its job has ended. It is remembered until the job that
waited has ended too: whatever that one waited for is not pruned, for it may still want
to read how it ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from backlane.model.job import Edge, State, When
from backlane.model.outcome import ErrorRecord


class Edges:
    """Who waits for whom, by ids."""

    def __init__(self) -> None:
        self._open: dict[bytes, dict[bytes, When]] = {}  # by who waits, then for whom
        self._waiters: dict[bytes, dict[bytes, When]] = {}  # the same from the other end
        self._waited: dict[bytes, dict[bytes, None]] = {}  # all that it waits or waited for
        self._needed: dict[bytes, set[bytes]] = {}  # the same from the other end

    def remember(self, waiter: bytes, job: bytes) -> None:
        """A job that has not ended waits, or waited, for another."""
        self._waited.setdefault(waiter, {})[job] = None
        self._needed.setdefault(job, set()).add(waiter)

    def open(self, waiter: bytes, job: bytes, when: When) -> None:
        """Let a job wait for another."""
        self.remember(waiter, job)
        self._open.setdefault(waiter, {})[job] = when
        self._waiters.setdefault(job, {})[waiter] = when

    def close(self, job: bytes) -> list[tuple[bytes, When]]:
        """A job has ended: return who waited for it, and how it was to end."""
        waiters = self._waiters.pop(job, {})
        for waiter in waiters:
            del self._open[waiter][job]
        return list(waiters.items())

    def drop(self, waiter: bytes) -> None:
        """A job has ended, or is gone: it waits for nothing, and needs nothing any more."""
        for job in self._open.pop(waiter, {}):
            del self._waiters[job][waiter]
        for job in self._waited.pop(waiter, {}):
            self._needed[job].discard(waiter)
            if not self._needed[job]:
                del self._needed[job]

    def left(self, waiter: bytes) -> int:
        """For how many jobs it waits."""
        return len(self._open.get(waiter, ()))

    def open_of(self, waiter: bytes) -> tuple[Edge, ...]:
        return tuple(Edge(job, when) for job, when in self._open.get(waiter, {}).items())

    def waited_of(self, waiter: bytes) -> tuple[bytes, ...]:
        """All jobs that it waits or waited for, if it has not ended."""
        return tuple(self._waited.get(waiter, ()))

    def is_needed(self, job: bytes) -> bool:
        """Whether a job that has not ended waits, or waited, for it."""
        return job in self._needed


def is_met(when: When, state: State) -> bool:
    """Whether a job that ended so ended as it had to."""
    match when:
        case When.SUCCEEDED:
            return state is State.SUCCEEDED
        case When.FAILED:
            return state is not State.SUCCEEDED
        case When.ENDED:
            return True


def by_job(after: Iterable[Edge]) -> dict[bytes, When]:
    """The edges of a job; of several to the same job the first counts."""
    found: dict[bytes, When] = {}
    for edge in after:
        found.setdefault(edge.job, edge.when)
    return found


def as_text(job: bytes) -> str:
    return str(uuid.UUID(bytes=job))


def skipped(job: bytes, state: State) -> ErrorRecord:
    """Why a job that waited for another never ran."""
    return ErrorRecord("Skipped", f"job {as_text(job)}, which it waited for, ended as {state}")
