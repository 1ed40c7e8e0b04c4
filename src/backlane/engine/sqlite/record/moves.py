"""Moves: rows on their way between the tables of states, and the counters with them.

A verb takes rows out of where they are, says here where they go, and `store` writes
each kind of row in one go. Counters change with the rows they count, once a verb and
line of a queue, never once a job. Whatever becomes ready comes through `stand_in_line`.
"""

from __future__ import annotations

from typing import Any

from backlane.engine.sqlite.limits import fair
from backlane.engine.sqlite.limits.gates import Gate
from backlane.engine.sqlite.limits.letting import ENDED, RUNNING, Leaving, let_go
from backlane.engine.sqlite.limits.line import Asking, stand_in_line
from backlane.engine.sqlite.rows import group
from backlane.engine.sqlite.rows.counts import COUNTED, Counts
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.rows import (
    BLOCKED,
    DEADLINE_AGAIN,
    DEADLINE_FORGOTTEN,
    ERROR,
    ERRORS_DROPPED,
    FINISHED,
    KEY_FREED,
    PLACED,
    READY,
    SCHEDULED,
    UNDUE,
)
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock
from backlane.model.job import ERRORS_KEPT, State
from backlane.model.limit import Use
from backlane.model.outcome import ErrorRecord, Reason

FINAL_CODES = {State.SUCCEEDED: 1, State.FAILED: 2, State.CANCELLED: 3, State.EXPIRED: 4}
FINAL_STATES = {code: state for state, code in FINAL_CODES.items()}


class Moves:
    """Where the rows of one verb go. Who puts jobs in line says what time it is."""

    __slots__ = (
        "_clock",
        "_leaving",
        "_line",
        "_runs",
        "_undue",
        "blocked",
        "counts",
        "deleted",
        "ended",
        "errors",
        "finished",
        "freed",
        "placed",
        "ready",
        "scheduled",
        "special",
        "waiting",
    )

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._leaving: list[Leaving] = []  # not plain, and no more where they were
        self._runs: list[fair.Run] = []
        self._line: list[Asking] = []  # not plain, and in line from now on
        self._undue: list[tuple[int]] = []
        self.ready: list[tuple[Any, ...]] = []
        self.scheduled: list[tuple[Any, ...]] = []
        self.blocked: list[tuple[Any, ...]] = []
        self.placed: list[tuple[Any, ...]] = []
        self.finished: list[tuple[Any, ...]] = []
        self.ended: list[tuple[Any, ...]] = []  # rows of those whose edges are to be followed
        self.special: list[int] = []  # those of them that are not plain
        self.deleted: dict[int, bytes] = {}  # ids of those that are gone by then
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

    def leave(self, seq: int, queue: int, was: int, gate: int | None = None) -> None:
        """A job that is not plain is no more where its uses count it."""
        self._leaving.append(Leaving(seq, queue, was, gate))

    def stop_running(self, held: Held, ran_ms: int | None = None) -> None:
        """A lease has ended; None: the attempt does not count as one that ran."""
        self.at(held.queue, held.priority).running -= 1
        if not held.is_plain:
            self.leave(held.seq, held.queue, RUNNING)
            if ran_ms is not None:
                self._runs.append(fair.Run(held.seq, held.queue, ran_ms))

    def stand_in_line(self, held: Held) -> None:
        """In line at the place it had: ready, or blocked if a use of it has no room.

        What ageing gave is lost.
        """
        if held.is_plain:
            self.put_ready(held, 9 - held.priority)
        else:
            self._line.append(Asking(held, 9 - held.priority))

    def wake(self, held: Held, rank: int, use: Use) -> None:
        """In line again, for there is room in the use that it was blocked on."""
        self._line.append(Asking(held, rank, use))

    def arrive(self, held: Held, blocked_on: Use | None) -> None:
        """As it was elsewhere: ready, or blocked on a use."""
        self._line.append(Asking(held, 9 - held.priority, blocked_on, is_settled=True))

    def put_ready(self, held: Held, rank: int) -> None:
        """Ready, whatever its uses say: it is so already."""
        self.at(held.queue, held.priority).ready += 1
        self._wait(held)
        self.ready.append(_row(held, rank))

    def put_off(self, held: Held, due_ms: int, *, is_due: bool) -> None:
        """Due at a new time, at the place that it gives."""
        held = held._replace(place=due_ms)
        if not held.is_plain:
            self._undue.append((held.seq,))
        if is_due:
            self.stand_in_line(held)
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
                held.is_plain,
            )
        )

    def block(
        self, held: Held, gate: Gate | None = None, *, rank: int | None = None, waits_for: int = 0
    ) -> None:
        """Blocked: at a gate, or (None) until jobs that it waits for have ended."""
        self._wait(held)
        rank = 9 - held.priority if rank is None else rank
        is_turn = gate is not None and gate.use.turn
        self.block_at(held, gate.id if gate else None, rank, is_turn=is_turn, waits_for=waits_for)

    def block_at(
        self, held: Held, gate: int | None, rank: int, *, is_turn: bool, waits_for: int = 0
    ) -> None:
        """Like `block`, for a job that keeps its place."""
        self.at(held.queue, held.priority).blocked += 1
        self.blocked.append((*_row(held, rank), 0 if is_turn else rank, gate, waits_for))

    async def line_up(self, tx: SqliteTx) -> int:
        """Put who asked into ready or in front of a gate; return how many are ready."""
        jobs, self._line = self._line, []
        ready = 0
        if jobs and self._clock is not None:
            for held, rank, gate in await stand_in_line(tx, self._clock, jobs, self.counts):
                if gate is not None:
                    self.block(held, gate, rank=rank)
                else:
                    self.put_ready(held, rank)
                    ready += 1
        return ready

    async def let_go(self, tx: SqliteTx) -> None:
        """Count jobs no more where they were, so that others find room."""
        if self._leaving:
            now_us = self._clock.wall_ms() * 1000 if self._clock else 0
            await let_go(tx, self._leaving, now_us)
        self._leaving.clear()
        if self._runs:
            await fair.count(tx, self._runs)
            self._runs.clear()

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
            self._free(held.seq, held.queue)
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

    def end_run(self, seq: int, queue: int, ran_ms: int) -> None:
        """A job that is not plain succeeded: what it holds is free."""
        self.leave(seq, queue, RUNNING)
        self._runs.append(fair.Run(seq, queue, ran_ms))
        self._free(seq, queue)

    def _free(self, seq: int, queue: int) -> None:
        self.freed.append((seq,))
        self.leave(seq, queue, ENDED)

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
            self.ended += self.finished
        if self.freed:
            self.special += [seq for (seq,) in self.freed]
            await tx.each(KEY_FREED, self.freed)
            await tx.each(DEADLINE_FORGOTTEN, self.freed)
            await group.leave(tx, [seq for (seq,) in self.freed])
        if self._undue:
            await tx.each(UNDUE, self._undue)
            self._undue.clear()
        await self.let_go(tx)
        if self._line:
            await self.line_up(tx)
        if self.ready:
            await tx.each(READY, self.ready)
        if self.scheduled:
            await tx.each(SCHEDULED, self.scheduled)
        if self.blocked:
            await tx.each(BLOCKED, self.blocked)
            self.blocked.clear()
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


def _row(held: Held, rank: int) -> tuple[Any, ...]:
    return (
        held.queue,
        held.lane,
        rank,
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
