"""Settle: carry outcomes out, each fenced by its token. Lapse: what nobody settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.protocol import Settled
from backlane.engine.sqlite.bells.ringing import ring_limited, ring_queues
from backlane.engine.sqlite.limits import resource
from backlane.engine.sqlite.record.moves import FINAL_CODES, Moves
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.policy import decode_policy
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.engine.sqlite.workflow import edges, ends
from backlane.model.clock import Clock
from backlane.model.job import Lane, State
from backlane.model.outcome import (
    POISON_CAP,
    Awaiting,
    Cancelled,
    Crashed,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

SUCCEEDED = FINAL_CODES[State.SUCCEEDED]

HeldRow = tuple[
    bytes,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    str,
    int,
    int,
    int,
    int,
    int,
    int | None,
]

# The forced order makes this one lookup in the key of backlane_lease for each id.
HELD: Sql[HeldRow] = Sql(
    """
    select id, token, seq, queue, priority, attempt, revision, size, started_ms, owner,
        is_plain, cancelling, lane, place, crashes, parked_ms
    from carray(?) as given
    cross join backlane_lease on id = given.value
    """
)
# What most stores have none of, so that a settle need not look job by job.
BESIDE: Sql[tuple[int, int]] = Sql(
    """
    select exists (select 1 from backlane_edge), exists (select 1 from backlane_limit)
    """
)
UNLEASE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_lease
    where id = ?
    """
)
POLICY: Sql[tuple[int, bytes | None]] = Sql(
    """
    select seq, policy
    from backlane_job
    where seq = ?
    """
)


async def settle(tx: SqliteTx, clock: Clock, settlements: Sequence[Settlement]) -> Settled:
    """Carry outcomes out; a lease that is not the current one changes nothing."""
    moves = Moves(clock)
    settled = await settle_into(tx, clock, settlements, moves)
    await moves.store_counts(tx)
    return settled


async def settle_into(
    tx: SqliteTx, clock: Clock, settlements: Sequence[Settlement], moves: Moves
) -> Settled:
    """Like `settle`, the counters still to be stored by the caller."""
    if not settlements:
        return Settled()
    rows = await tx.rows(HELD, array([one.job for one in settlements]))
    held = {row[0]: row for row in rows}
    now = clock.wall_ms()
    lost, rest, done = [], [], []
    of_resources: dict[int, list[tuple[bytes, Outcome]]] = {}
    for one in settlements:
        row = held.get(one.job)
        if row is None or row[1] != one.token:
            lost.append(one.job)
            continue
        del held[one.job]  # a second outcome for the same lease is late
        if row[12] > 1:  # the lane is a resource's
            of_resources.setdefault(resource.resource_of(row[12]), []).append(
                (one.job, one.outcome)
            )
        outcome = one.outcome
        if type(outcome) is Succeeded:
            done.append((row, one.ran_ms, outcome.result))
        else:
            rest.append((Held._make(row), one))
    _succeed(moves, done, now)
    ended = [row[0] for row, _, _ in done] + [row.id for row, _ in rest]
    await tx.each(UNLEASE, [(job,) for job in ended])
    tx.rings.jobs += ended
    has_edges, has_limits = (await tx.rows(BESIDE))[0]
    if done and has_limits:
        await ring_limited(tx, {queue for queue, _ in moves.counts})
    awaiting: list[tuple[Held, Sequence[bytes]]] = []
    buried = await _settle_rest(tx, rest, moves, now, awaiting) if rest else []
    await moves.store_rows(tx)
    if has_edges or moves.special:
        await ends.follow(tx, now, moves)
    moves.ended.clear()
    if awaiting:  # last: what ended in the same call is not waited for
        for it, jobs in awaiting:
            await edges.await_jobs(tx, moves, it, jobs)
        await moves.store_rows(tx)
    turned = await resource.feed(tx, clock, of_resources) if of_resources else []
    return Settled(lost, buried, turned)


def _succeed(moves: Moves, done: Sequence[tuple[HeldRow, int, bytes | None]], now: int) -> None:
    """Finish what succeeded; flat, because this is the path of nearly every job."""
    line = (-1, -1)
    number = held = ran = 0
    for row, ran_ms, result in done:
        _, token, seq, queue, priority, attempt, revision, size, started_ms, owner, is_plain = row[
            :11
        ]
        if line != (queue, priority):
            _count_succeeded(moves, line, number, held, ran)
            line = (queue, priority)
            number = held = ran = 0
        number += 1
        held += size
        ran += ran_ms
        if not is_plain:
            moves.end_run(seq, queue, ran_ms)
        moves.finished.append(
            (
                seq,
                SUCCEEDED,
                None,
                queue,
                attempt + 1,
                token,
                revision + 1,
                started_ms,
                now,
                ran_ms,
                owner,
                result,
            )
        )
    _count_succeeded(moves, line, number, held, ran)


def _count_succeeded(
    moves: Moves, line: tuple[int, int], number: int, held: int, ran_ms: int
) -> None:
    if number:
        counts = moves.at(*line)
        counts.running -= number
        counts.bytes -= held
        counts.succeeded += number
        counts.kept_done += number
        counts.ended += number
        counts.ran_ms += ran_ms


async def _settle_rest(
    tx: SqliteTx,
    rest: Sequence[tuple[Held, Settlement]],
    moves: Moves,
    now: int,
    awaiting: list[tuple[Held, Sequence[bytes]]],
) -> list[bytes]:
    """Carry out what is not a success; return the jobs that became dead letters.

    Those that are to wait for others are put into `awaiting`.
    """
    attempts = await _attempts(tx, [held for held, _ in rest])
    buried = []
    for held, one in rest:
        ending = Ending(moves, now, attempts[held.seq], one.ran_ms)
        if ending.carry_out(held, one.outcome) is State.FAILED:
            buried.append(one.job)
        if ending.awaiting is not None and isinstance(one.outcome, Awaiting):
            awaiting.append((ending.awaiting, one.outcome.jobs))
    await ring_queues(tx, {held.queue for held, _ in rest})
    return buried


async def lapse(tx: SqliteTx, clock: Clock, lapsed: Sequence[Held], moves: Moves) -> list[Held]:
    """End leases that nobody holds any more; return those whose job was buried."""
    attempts = await _attempts(tx, lapsed)
    now = clock.wall_ms()
    await tx.each(UNLEASE, [(held.id,) for held in lapsed])
    buried = [
        held
        for held in lapsed
        if Ending(moves, now, attempts[held.seq]).lapse(held) is State.FAILED
    ]
    await moves.store_rows(tx)
    await ends.follow(tx, now, moves)
    tx.rings.jobs += [held.id for held in lapsed]
    await ring_queues(tx, {held.queue for held in lapsed})
    return buried


async def _attempts(tx: SqliteTx, held: Sequence[Held]) -> dict[int, int]:
    """How often each job may run; once, where that cannot be read any more."""
    rows = await tx.each(POLICY, [(one.seq,) for one in held])
    return {seq: allowed_attempts(policy) for seq, policy in rows}


def allowed_attempts(stored: bytes | None) -> int:
    """Return how many executions a stored policy allows; 1 when it is damaged."""
    try:
        return decode_policy(stored).attempts
    except msgspec.MsgspecError:  # a damaged row must not stop the rows beside it
        return 1


class Ending:
    """What becomes of one job whose lease has ended."""

    __slots__ = ("_allowed", "_moves", "_now", "_ran_ms", "awaiting")

    def __init__(self, moves: Moves, now: int, allowed: int, ran_ms: int = 0) -> None:
        self._moves = moves
        self._now = now
        self._allowed = allowed
        self._ran_ms = ran_ms
        self.awaiting: Held | None = None  # it is to wait for others

    def carry_out(self, held: Held, outcome: Outcome) -> State:
        """Do what the outcome asks; return the state the job is in then."""
        held = self._leave(held, None if isinstance(outcome, Released) else self._ran_ms)
        if not isinstance(outcome, Released):  # of that the attempt may not have started
            counts = self._moves.at(held.queue, held.priority)
            counts.ended += 1
            counts.ran_ms += self._ran_ms
        if not isinstance(outcome, Snoozed | Released):
            held = held._replace(parked_ms=None)  # a worker knew its task
        match outcome:
            case Succeeded(result=result):
                return self._finish(_counted(held), State.SUCCEEDED, result=result)
            case Failed(reason=reason, error=error):
                self._moves.keep_error(held, error, self._now)
                return self._finish(_counted(held), State.FAILED, reason=reason)
            case Cancelled(error=error):
                self._moves.keep_error(held, error, self._now)
                return self._finish(held, State.CANCELLED)
            case RetryAfter():
                return self._retry(held, outcome)
            case Crashed(alone=alone, error=error):
                self._moves.keep_error(held, error, self._now)
                held = held._replace(crashes=held.crashes + alone, lane=held.lane | Lane.EXCLUSIVE)
                self._moves.place(held)  # also if it ends here: redriven, it runs alone
                return self._go_on(_counted(held))
            case Snoozed():
                return self._snooze(held, outcome)
            case Released():
                return self._give_back(held)
            case Awaiting():
                return self._await(held)
            case _:
                assert_never(outcome)

    def lapse(self, held: Held) -> State:
        """Nobody holds the lease any more: the execution counts, the place is kept."""
        return self._go_on(_counted(self._leave(held)))

    def _leave(self, held: Held, ran_ms: int | None = None) -> Held:
        self._moves.stop_running(held, ran_ms)
        return held._replace(revision=held.revision + 1)

    def _finish(
        self, held: Held, state: State, reason: Reason | None = None, result: bytes | None = None
    ) -> State:
        self._moves.finish(
            held, state, self._now, reason=reason, result=result, ran_ms=self._ran_ms
        )
        return state

    def _retry(self, held: Held, outcome: RetryAfter) -> State:
        self._moves.keep_error(held, outcome.error, self._now)
        held = _counted(held)
        if held.cancelling:
            return self._finish(held, State.CANCELLED)
        if held.attempt >= self._allowed:
            return self._finish(held, State.FAILED, reason=Reason.ATTEMPTS)
        self._moves.at(held.queue, held.priority).retried += 1
        return self._put_off(held, outcome.delay_ms)

    def _snooze(self, held: Held, outcome: Snoozed) -> State:
        if held.cancelling:
            return self._finish(held, State.CANCELLED)
        since = held.parked_ms if held.parked_ms is not None else self._now
        held = held._replace(parked_ms=since if outcome.parked else None)
        return self._put_off(held, outcome.delay_ms)

    def _give_back(self, held: Held) -> State:
        if held.cancelling:
            return self._finish(held, State.CANCELLED)
        self._moves.stand_in_line(held)
        return State.READY

    def _await(self, held: Held) -> State:
        if held.cancelling:
            return self._finish(held, State.CANCELLED)
        self.awaiting = held
        return State.BLOCKED

    def _go_on(self, held: Held) -> State:
        """After an execution that nobody saw the end of: again from its place, if it may."""
        if held.cancelling:
            return self._finish(held, State.CANCELLED)
        if held.attempt >= self._allowed or held.crashes >= POISON_CAP:
            return self._finish(held, State.FAILED, reason=Reason.CRASHED)
        self._moves.stand_in_line(held)
        return State.READY

    def _put_off(self, held: Held, delay_ms: int) -> State:
        self._moves.put_off(held, self._now + max(0, delay_ms), is_due=delay_ms <= 0)
        return State.READY if delay_ms <= 0 else State.SCHEDULED


def _counted(held: Held) -> Held:
    return held._replace(attempt=held.attempt + 1)
