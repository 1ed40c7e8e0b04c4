"""Moves: rows that people move between the tables of states, and the counters with them.

An amend, a discard and a restore say here where rows go, and `store` writes each kind of
row in one statement, however many there are. What changed of the counters becomes rows of
`tally`, one for each queue and priority: no verb waits for another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.postgres.limits.limits import LINED_UP, UNPLACED
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import State

FINAL_CODES = {State.SUCCEEDED: 1, State.FAILED: 2, State.CANCELLED: 3, State.EXPIRED: 4}
FAILED = FINAL_CODES[State.FAILED]

# -- into the tables of states --

READY: Sql[tuple[()]] = Sql(
    """
    insert into backlane.ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size, is_gated)
    select queue, lane, 9 - priority, place, seq, priority, attempt, token, revision, crashes,
        parked_ms, size,
        (select true from backlane.job where job.seq = given.seq and gates is not null)
    from unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::smallint[], $6::int[],
        $7::bigint[], $8::int[], $9::int[], $10::bigint[], $11::int[]) as given (queue, lane,
        place, seq, priority, attempt, token, revision, crashes, parked_ms, size)
    """
)
SCHEDULED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.scheduled (queue, lane, due_ms, seq, priority, attempt, token,
        revision, crashes, parked_ms, size, is_gated)
    select given.*,
        (select true from backlane.job where job.seq = given.seq and gates is not null)
    from unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::smallint[], $6::int[],
        $7::bigint[], $8::int[], $9::int[], $10::bigint[], $11::int[]) as given (queue, lane,
        due_ms, seq, priority, attempt, token, revision, crashes, parked_ms, size)
    """
)
BLOCKED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.blocked (queue, lane, place, seq, priority, attempt, token, revision,
        crashes, parked_ms, size, rank, gate, limit_no, waits_for)
    select queue, lane, place, seq, priority, attempt, token, revision, crashes, parked_ms, size,
        case when limit_no < 0 then 0 else 9 - priority end, gate, limit_no, waits_for
    from unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::smallint[], $6::int[],
        $7::bigint[], $8::int[], $9::int[], $10::bigint[], $11::int[], $12::bigint[], $13::int[],
        $14::int[]) as given (queue, lane, place, seq, priority, attempt, token, revision,
        crashes, parked_ms, size, gate, limit_no, waits_for)
    """
)
# Where a job waits, and what it was when it last came back.
PLACED: Sql[tuple[()]] = Sql(
    """
    update backlane.job
    set queue = given.queue,
        lane = given.lane,
        place = given.place,
        priority = given.priority,
        started_ms = given.started_ms,
        owner = given.owner
    from unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[], $5::smallint[], $6::bigint[],
        $7::text[]) as given (seq, queue, lane, place, priority, started_ms, owner)
    where job.seq = given.seq
    """
)
FINISHED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.finished (seq, state, queue, attempt, token, revision, started_ms,
        ended_ms, ran_ms, owner, result)
    select *
    from unnest($1::bigint[], $2::smallint[], $3::int[], $4::int[], $5::bigint[], $6::int[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bytea[])
    """
)
BURIED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.failed (seq, reason, queue, attempt, token, revision, started_ms,
        ended_ms, ran_ms, owner)
    select *
    from unnest($1::bigint[], $2::text[], $3::int[], $4::int[], $5::bigint[], $6::int[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])
    """
)

# -- out of them --

# Each finds its rows by key. The caller has locked them, so none is missing.
UNREADY: Sql[tuple[()]] = Sql(
    """
    delete from backlane.ready
    using unnest($1::int[], $2::int[], $3::smallint[], $4::bigint[], $5::bigint[])
        as given (queue, lane, rank, place, seq)
    where ready.queue = given.queue
    and ready.lane = given.lane
    and ready.rank = given.rank
    and ready.place = given.place
    and ready.seq = given.seq
    """
)
UNSCHEDULE: Sql[tuple[()]] = Sql(
    """
    delete from backlane.scheduled
    using unnest($1::bigint[], $2::bigint[]) as given (due_ms, seq)
    where scheduled.due_ms = given.due_ms
    and scheduled.seq = given.seq
    """
)
UNBLOCK: Sql[tuple[()]] = Sql(
    """
    delete from backlane.blocked
    where seq = any ($1::bigint[])
    """
)
UNFINISH: Sql[tuple[()]] = Sql(
    """
    delete from backlane.finished
    where seq = any ($1::bigint[])
    """
)
UNBURY: Sql[tuple[()]] = Sql(
    """
    delete from backlane.failed
    where seq = any ($1::bigint[])
    """
)

# -- beside them --

FREE_KEYS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.unique_key
    using unnest($1::text[], $2::text[], $3::bigint[]) as given (scope, name, seq)
    where unique_key.digest = backlane.digest(given.scope, given.name)
    and unique_key.seq = given.seq
    and unique_key.until_ms is null
    """
)
# What jobs wait for, or waited for.
FORGET_EDGES: Sql[tuple[()]] = Sql(
    """
    delete from backlane.edge
    where waiting = any ($1::bigint[])
    """
)
FORGET_DEADLINES: Sql[tuple[()]] = Sql(
    """
    delete from backlane.deadline
    using unnest($1::bigint[], $2::bigint[]) as given (deadline_ms, seq)
    where deadline.deadline_ms = given.deadline_ms
    and deadline.seq = given.seq
    """
)
GROUPED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.group_tally (queue, name, jobs)
    select *
    from unnest($1::int[], $2::text[], $3::int[])
    """
)
COUNTED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.tally (queue, priority, scheduled, ready, running, bytes, appended,
        retried, succeeded, failed, cancelled, expired, kept_done, kept_failed, started, ended,
        ran_ms, blocked)
    select queue, priority, nullif(scheduled, 0), nullif(ready, 0), nullif(running, 0),
        nullif(bytes, 0), nullif(appended, 0), nullif(retried, 0), nullif(succeeded, 0),
        nullif(failed, 0), nullif(cancelled, 0), nullif(expired, 0), nullif(kept_done, 0),
        nullif(kept_failed, 0), nullif(started, 0), nullif(ended, 0), nullif(ran_ms, 0),
        nullif(blocked, 0)
    from unnest($1::int[], $2::smallint[], $3::int[], $4::int[], $5::int[], $6::bigint[],
        $7::int[], $8::int[], $9::int[], $10::int[], $11::int[], $12::int[], $13::int[],
        $14::int[], $15::int[], $16::int[], $17::bigint[], $18::int[]) as given (queue, priority,
        scheduled, ready, running, bytes, appended, retried, succeeded, failed, cancelled,
        expired, kept_done, kept_failed, started, ended, ran_ms, blocked)
    """
)


@dataclass(slots=True)
class Counts:
    """What one verb changed of the counters of a queue and priority."""

    scheduled: int = 0
    ready: int = 0
    running: int = 0
    bytes: int = 0
    appended: int = 0
    retried: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    kept_done: int = 0
    kept_failed: int = 0
    started: int = 0
    ended: int = 0
    ran_ms: int = 0
    blocked: int = 0

    def keep(self, state: State, number: int) -> None:
        """Count rows that came to the history, or left it."""
        if state is State.FAILED:
            self.kept_failed += number
        else:
            self.kept_done += number

    def columns(self) -> tuple[int, ...]:
        return astuple(self)


class Placed(NamedTuple):
    """A job that waits from now on."""

    seq: int
    queue: int
    lane: int
    place: int
    priority: int
    attempt: int
    token: int
    revision: int
    crashes: int
    parked_ms: int | None
    size: int
    started_ms: int | None
    owner: str | None

    @property
    def row(self) -> tuple[Any, ...]:
        """Its row in `ready` or `scheduled`."""
        return (self.queue, self.lane, self.place, self.seq, *self[4:11])


class Moves:
    """Where the rows of one verb go."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], Counts] = {}
        self.groups: dict[tuple[int, str], int] = {}
        self._ready: list[tuple[Any, ...]] = []
        self._scheduled: list[tuple[Any, ...]] = []
        self._blocked: list[tuple[Any, ...]] = []
        self._lined_up: list[tuple[Any, ...]] = []
        self._placed: list[tuple[Any, ...]] = []
        self._finished: list[tuple[Any, ...]] = []
        self._buried: list[tuple[Any, ...]] = []

    def at(self, queue: int, priority: int) -> Counts:
        """The counts of one queue and priority."""
        found = self.counts.get((queue, priority))
        if found is None:
            found = self.counts[queue, priority] = Counts()
        return found

    def gather(self, queue: int, group: str | None, by: int) -> None:
        """Count a job of a group (as stored), or one that is none of it any more."""
        if group is not None:
            self.groups[queue, group] = self.groups.get((queue, group), 0) + by

    def wait(self, one: Placed, *, is_due: bool) -> None:
        """Ready, or scheduled until its place comes."""
        counts = self.at(one.queue, one.priority)
        if is_due:
            counts.ready += 1
            self._ready.append(one.row)
        else:
            counts.scheduled += 1
            self._scheduled.append(one.row)
        self._placed.append((one.seq, *one[1:5], one.started_ms, one.owner))

    def block(
        self, one: Placed, *, waits_for: int, gate: int | None = None, limit_no: int | None = None
    ) -> None:
        """Waits for other jobs, or for a limit."""
        self.at(one.queue, one.priority).blocked += 1
        self._blocked.append((*one.row, gate, limit_no, waits_for))
        self._placed.append((one.seq, *one[1:5], one.started_ms, one.owner))

    def line_up(self, one: Placed, due_ms: int, *, waits_for: int = 0) -> None:
        """In line at a new place, for it is due, and counted when it is there."""
        self._lined_up.append(
            (
                *(one.seq, one.token, one.parked_ms, one.attempt, one.revision, one.crashes),
                *(due_ms, waits_for),
            )
        )
        self._placed.append((one.seq, *one[1:5], one.started_ms, one.owner))

    def finish(self, row: tuple[Any, ...], state: State, result: bytes | None) -> None:
        """Ended; `row` is queue, attempt, token, revision, started, ended, ran, owner."""
        seq, *rest = row
        self._finished.append((seq, FINAL_CODES[state], *rest, result))

    def bury(self, row: tuple[Any, ...], reason: str) -> None:
        """Failed; `row` is as of `finish`."""
        seq, *rest = row
        self._buried.append((seq, reason, *rest))

    async def store(self, tx: PostgresTx) -> None:
        """Write all rows and counters; once."""
        await many(tx, FINISHED, self._finished)
        await many(tx, BURIED, self._buried)
        await many(tx, READY, self._ready)
        await many(tx, SCHEDULED, self._scheduled)
        await many(tx, BLOCKED, self._blocked)
        await many(tx, PLACED, self._placed)
        if self._lined_up:
            # Newest first, whatever state they come from: who is first may take what is free.
            self._lined_up.sort(key=lambda row: -row[0])
            *columns, waits = (list(column) for column in zip(*self._lined_up, strict=True))
            await tx.rows(UNPLACED, columns[0])
            await tx.rows(LINED_UP, *columns, tx.wall_ms, tx.boot_ms, waits)
        await many(tx, GROUPED, [(*line, by) for line, by in self.groups.items() if by])
        rows = [(*line, *counts.columns()) for line, counts in self.counts.items()]
        await many(tx, COUNTED, [row for row in rows if any(row[2:])])


async def many(tx: PostgresTx, statement: Sql[Any], rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement that takes a column of values for each parameter, if there are rows."""
    if rows:
        await tx.rows(statement, *(list(column) for column in zip(*rows, strict=True)))
