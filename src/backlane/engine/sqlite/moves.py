"""Moves: rows on their way between the tables of states, and the counters with them.

A verb takes rows out of where they are, says here where they go, and `store` writes
each kind of row in one go. Counters change with the rows they count, once a verb and
line of a queue, never once a job.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite import group
from backlane.engine.sqlite.transaction import SqliteTx
from backlane.model.job import ERRORS_KEPT, State
from backlane.model.outcome import ErrorRecord, Reason

FINAL_CODES = {State.SUCCEEDED: 1, State.FAILED: 2, State.CANCELLED: 3, State.EXPIRED: 4}
FINAL_STATES = {code: state for state, code in FINAL_CODES.items()}

READY: Sql[tuple[()]] = Sql(
    """
    insert into backlane_ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
SCHEDULED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_scheduled (due_ms, seq, queue, lane, priority, attempt, token,
        revision, crashes, parked_ms, size)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
PLACED: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set lane = ?, place = ?, started_ms = ?, owner = ?
    where seq = ?
    """
)
FINISHED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_finished (seq, state, reason, queue, attempt, token, revision,
        started_ms, ended_ms, ran_ms, owner, result)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
KEY_FREED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where (scope, name) = (select key_scope, key_name from backlane_job where seq = ?1)
    and seq = ?1
    """
)
DEADLINE_FORGOTTEN: Sql[tuple[()]] = Sql(
    """
    delete from backlane_deadline
    where (deadline_ms, seq) = (select deadline_ms, seq from backlane_job where seq = ?)
    """
)
# A sweep forgets the deadlines it finds behind it, also those of running jobs.
DEADLINE_AGAIN: Sql[tuple[()]] = Sql(
    """
    insert or ignore into backlane_deadline (deadline_ms, seq)
    select deadline_ms, seq
    from backlane_job
    where seq = ?
    and deadline_ms is not null
    """
)
ERROR: Sql[tuple[()]] = Sql(
    """
    insert into backlane_attempt_error (seq, token, attempt, at_ms, kind, message, traceback,
        fingerprint)
    values (?, ?, ?, ?, ?, ?, ?, ?)
    """
)
# Served by backlane_attempt_error_of.
ERRORS_DROPPED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_attempt_error
    where seq = ?1
    and token <= (
        select token
        from backlane_attempt_error
        where seq = ?1
        order by token desc
        limit 1
        offset ?2
    )
    """
)
COUNTED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_counter (queue, priority, scheduled, ready, running, bytes, appended,
        retried, succeeded, failed, cancelled, expired, kept_done, kept_failed, started,
        ended, ran_ms, foretold, foretold_ms, waited_ms)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
        waited_ms = waited_ms + excluded.waited_ms
    """
)


class Held(NamedTuple):
    """A row of backlane_lease, in the order of `settle.HELD`."""

    id: bytes
    token: int
    seq: int
    queue: int
    priority: int
    attempt: int
    revision: int
    size: int
    started_ms: int | None
    owner: str | None
    is_plain: int
    cancelling: int
    lane: int
    place: int
    crashes: int
    parked_ms: int | None


class Counts:
    """What changes in the counters of one queue and priority."""

    __slots__ = (
        "appended",
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
        self.scheduled = self.ready = self.running = self.bytes = 0
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
        )


class Moves:
    """Where the rows of one verb go."""

    __slots__ = (
        "counts",
        "errors",
        "finished",
        "freed",
        "placed",
        "ready",
        "scheduled",
        "waiting",
    )

    def __init__(self) -> None:
        self.ready: list[tuple[Any, ...]] = []
        self.scheduled: list[tuple[Any, ...]] = []
        self.placed: list[tuple[Any, ...]] = []
        self.finished: list[tuple[Any, ...]] = []
        self.freed: list[tuple[int]] = []
        self.waiting: list[tuple[int]] = []  # again, with a deadline perhaps
        self.errors: list[tuple[Any, ...]] = []
        self.counts: dict[tuple[int, int], Counts] = {}

    def at(self, queue: int, priority: int) -> Counts:
        """The counts of one queue and priority."""
        found = self.counts.get((queue, priority))
        if found is None:
            found = self.counts[queue, priority] = Counts()
        return found

    def place(self, held: Held) -> None:
        """Say where the job waits, or would wait again."""
        self.placed.append((held.lane, held.place, held.started_ms, held.owner, held.seq))

    def _wait(self, held: Held) -> None:
        self.place(held)
        if not held.is_plain:
            self.waiting.append((held.seq,))

    def put_back(self, held: Held) -> None:
        """Ready, at the place it had; what ageing gave is lost."""
        self.at(held.queue, held.priority).ready += 1
        self._wait(held)
        self.ready.append(_ready(held))

    def put_off(self, held: Held, due_ms: int, *, is_due: bool) -> None:
        """Due at a new time, at the place that it gives."""
        held = held._replace(place=due_ms)
        if is_due:
            self.put_back(held)
            return
        self.at(held.queue, held.priority).scheduled += 1
        self._wait(held)
        self.scheduled.append(
            (
                due_ms,
                held.seq,
                held.queue,
                held.lane,
                held.priority,
                held.attempt,
                held.token,
                held.revision,
                held.crashes,
                held.parked_ms,
                held.size,
            )
        )

    def finish(
        self,
        held: Held,
        state: State,
        now_ms: int,
        *,
        reason: Reason | None = None,
        result: bytes | None = None,
        ran_ms: int = 0,
    ) -> None:
        """Ended: no longer counted as depth, its key free."""
        counts = self.at(held.queue, held.priority)
        counts.bytes -= held.size
        counts.end(state)
        if not held.is_plain:
            self.freed.append((held.seq,))
        self.finished.append(
            (
                held.seq,
                FINAL_CODES[state],
                reason,
                held.queue,
                held.attempt,
                held.token,
                held.revision,
                held.started_ms,
                now_ms,
                ran_ms,
                held.owner,
                result,
            )
        )

    def keep_error(self, held: Held, error: ErrorRecord | None, now_ms: int) -> None:
        """Keep what ended the execution after `held.attempt` others."""
        if error is not None:
            text = (error.kind, error.message, error.traceback, error.fingerprint)
            self.errors.append(
                (held.seq, held.token, held.attempt + 1, now_ms, *map(storable, text))
            )

    async def store(self, tx: SqliteTx) -> None:
        """Write all rows and counters."""
        await self.store_rows(tx)
        await self.store_counts(tx)

    async def store_rows(self, tx: SqliteTx) -> None:
        """Write the rows, so that the next verb of the same plan finds them."""
        if self.finished:
            await tx.each(FINISHED, self.finished)
        if self.freed:
            await tx.each(KEY_FREED, self.freed)
            await tx.each(DEADLINE_FORGOTTEN, self.freed)
            await group.leave(tx, [seq for (seq,) in self.freed])
        if self.ready:
            await tx.each(READY, self.ready)
        if self.scheduled:
            await tx.each(SCHEDULED, self.scheduled)
        if self.placed:
            await tx.each(PLACED, self.placed)
        if self.waiting:
            await tx.each(DEADLINE_AGAIN, self.waiting)
        if self.errors:
            await tx.each(ERROR, self.errors)
            await tx.each(ERRORS_DROPPED, [(row[0], ERRORS_KEPT) for row in self.errors])
        for rows in (self.finished, self.freed, self.ready, self.scheduled, self.placed):
            rows.clear()
        self.waiting.clear()
        self.errors.clear()

    async def store_counts(self, tx: SqliteTx) -> None:
        """Write the counters, once for all verbs of a plan."""
        if self.counts:
            await tx.each(COUNTED, [(*line, *c.columns()) for line, c in self.counts.items()])
            self.counts.clear()


def _ready(held: Held) -> tuple[Any, ...]:
    return (
        held.queue,
        held.lane,
        9 - held.priority,
        held.place,
        held.seq,
        held.priority,
        held.attempt,
        held.token,
        held.revision,
        held.crashes,
        held.parked_ms,
        held.size,
    )


def storable(text: str) -> str:
    """Return text that SQLite can keep: lone surrogates become question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
