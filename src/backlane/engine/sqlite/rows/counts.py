"""Counts: depth and lifetime of a queue's priorities, changed with the rows they count."""

from __future__ import annotations

from backlane.engine.plan import Sql
from backlane.model.job import State

COUNTED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_counter (queue, priority, scheduled, ready, running, bytes, appended,
        retried, succeeded, failed, cancelled, expired, kept_done, kept_failed, started,
        ended, ran_ms, foretold, foretold_ms, waited_ms, blocked)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict do update
    set scheduled = scheduled + excluded.scheduled,
        ready = ready + excluded.ready,
        running = running + excluded.running,
        bytes = bytes + excluded.bytes,
        appended = appended + excluded.appended,
        retried = retried + excluded.retried,
        succeeded = succeeded + excluded.succeeded,
        failed = failed + excluded.failed,
        cancelled = cancelled + excluded.cancelled,
        expired = expired + excluded.expired,
        kept_done = kept_done + excluded.kept_done,
        kept_failed = kept_failed + excluded.kept_failed,
        started = started + excluded.started,
        ended = ended + excluded.ended,
        ran_ms = ran_ms + excluded.ran_ms,
        foretold = foretold + excluded.foretold,
        foretold_ms = foretold_ms + excluded.foretold_ms,
        waited_ms = waited_ms + excluded.waited_ms,
        blocked = blocked + excluded.blocked
    """
)


class Counts:
    """What changes in the counters of one queue and priority."""

    __slots__ = (
        "appended",
        "blocked",
        "bytes",
        "cancelled",
        "ended",
        "expired",
        "failed",
        "foretold",
        "foretold_ms",
        "kept_done",
        "kept_failed",
        "ran_ms",
        "ready",
        "retried",
        "running",
        "scheduled",
        "started",
        "succeeded",
        "waited_ms",
    )

    def __init__(self) -> None:
        self.scheduled = self.ready = self.running = self.blocked = self.bytes = 0
        self.appended = self.retried = 0
        self.succeeded = self.failed = self.cancelled = self.expired = 0
        self.kept_done = self.kept_failed = 0
        self.started = 0  # leases given: they are running as well
        self.ended = self.ran_ms = 0
        self.foretold = self.foretold_ms = self.waited_ms = 0

    def end(self, state: State) -> None:
        """Count one more job that ended in this state, and its row in the history."""
        match state:
            case State.SUCCEEDED:
                self.succeeded += 1
            case State.FAILED:
                self.failed += 1
            case State.CANCELLED:
                self.cancelled += 1
            case _:
                self.expired += 1
        self.keep(state, 1)

    def keep(self, state: State, number: int) -> None:
        """Count rows that came to the history, or left it."""
        if state is State.FAILED:
            self.kept_failed += number
        else:
            self.kept_done += number

    def columns(self) -> tuple[int, ...]:
        return (
            self.scheduled,
            self.ready,
            self.running + self.started,
            self.bytes,
            self.appended,
            self.retried,
            self.succeeded,
            self.failed,
            self.cancelled,
            self.expired,
            self.kept_done,
            self.kept_failed,
            self.started,
            self.ended,
            self.ran_ms,
            self.foretold,
            self.foretold_ms,
            self.waited_ms,
            self.blocked,
        )
