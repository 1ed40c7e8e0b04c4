"""Restore: whole jobs and settings that another store had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.moving import Part, Settings, Whole
from backlane.engine.moving import Repeat as MovedRepeat
from backlane.engine.plan import Sql
from backlane.engine.portion import Line
from backlane.engine.sqlite.append import keys, schedules
from backlane.engine.sqlite.append.append import (
    INSERT,
    NEWEST,
    SET_DEADLINE,
    TAKEN,
    make_line,
    read_lines,
)
from backlane.engine.sqlite.limits import limits, resource
from backlane.engine.sqlite.limits.line import hold_turns
from backlane.engine.sqlite.record import keeping, steps
from backlane.engine.sqlite.record.moves import FINAL_CODES, Moves, storable
from backlane.engine.sqlite.rows import group, tags
from backlane.engine.sqlite.rows.extra import encode_extra
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.policy import encode_policy
from backlane.engine.sqlite.rows.rows import ERROR
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.engine.sqlite.upkeep.sweep import RAISE_FORGOTTEN
from backlane.engine.sqlite.workflow import ties
from backlane.model.clock import Clock
from backlane.model.job import DEFAULT_POLICY, JobRecord, State
from backlane.model.limit import Use
from backlane.model.queue import DEFAULT_BOUNDS, Kind, QueueRecord

COUNTED_AT = 5  # the priority under which the lifetime counts of another store are kept

KEEP_PROGRESS: Sql[tuple[()]] = Sql(
    """
    insert into backlane_progress (seq, token, fraction, message)
    values (?, ?, ?, ?)
    """
)
# One whose time is over gives way.
KEEP_REPEAT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_idempotency (scope, name, id, print, until_ms)
    values (?, ?, ?, ?, ?)
    on conflict do update
    set id = excluded.id,
        print = excluded.print,
        until_ms = excluded.until_ms
    where backlane_idempotency.until_ms <= ?
    """
)
ARRIVED: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane_meta
    where name = ?
    """
)
SET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_meta (name, value)
    values (?, ?)
    on conflict do update
    set value = excluded.value
    """
)
FORGET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_meta
    where name = ?
    """
)
SET_QUEUE: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set declared_jobs = ?,
        declared_bytes = ?,
        declared_wait_ms = ?,
        declared_share = ?,
        tuned_jobs = ?,
        tuned_bytes = ?,
        tuned_wait_ms = ?,
        tuned_share = ?,
        paused = ?,
        is_fair = ?
    where name = ?
    and kind = ?
    """
)
SET_SECRET: Sql[tuple[()]] = Sql(
    """
    update backlane_meta
    set value = ?
    where name = 'secret'
    """
)


async def restore(tx: SqliteTx, clock: Clock, part: Part, move: bytes) -> list[bytes]:
    """Take whole jobs in; return those that were new."""
    new = await _new(tx, part.jobs, await _arrived(tx, move))
    if new:
        await Arriving(tx, clock).take_in(new)
    if part.repeats:
        await _keep_repeats(tx, part.repeats, clock.wall_ms())
    if move:
        name = f"arrived {move.hex()}"
        if part.jobs:
            await tx.rows(SET_ARRIVED, name, b"".join(whole.record.id for whole in part.jobs))
        else:
            await tx.rows(FORGET_ARRIVED, name)
    return [whole.record.id for whole in new]


async def _arrived(tx: SqliteTx, move: bytes) -> set[bytes]:
    """Return the jobs of the latest part of this move."""
    rows = await tx.rows(ARRIVED, f"arrived {move.hex()}") if move else []
    ids = rows[0][0] if rows else b""
    return {ids[at : at + 16] for at in range(0, len(ids), 16)}


async def _new(tx: SqliteTx, jobs: Sequence[Whole], known: set[bytes]) -> list[Whole]:
    if not jobs:
        return []
    ids = [whole.record.id for whole in jobs]
    known = known | {job for (job,) in await tx.rows(TAKEN, array(ids))}
    return [whole for whole in jobs if whole.record.id not in known]


async def _keep_repeats(tx: SqliteTx, repeats: Sequence[MovedRepeat], now: int) -> None:
    rows = [(one.scope, one.name, one.job, one.print, one.until_ms, now) for one in repeats]
    await tx.each(KEEP_REPEAT, rows)


class Arriving:
    """The jobs of one part, on their way into the tables."""

    def __init__(self, tx: SqliteTx, clock: Clock) -> None:
        self._tx = tx
        self._clock = clock
        self._now = clock.wall_ms()
        self._moves = Moves(clock)
        self._rows: list[tuple[Any, ...]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._deadlines: list[tuple[int, int]] = []
        self._progress: list[tuple[Any, ...]] = []
        self._steps: list[tuple[Any, ...]] = []
        self._groups: dict[tuple[int, str], int] = {}
        self._tags: list[tuple[str, int]] = []
        self._kept: list[tuple[int, int]] = []
        self._new: dict[int, Whole] = {}
        self._turns: dict[Use, int] = {}

    async def take_in(self, jobs: Sequence[Whole]) -> None:
        """Insert new jobs in this order."""
        tx = self._tx
        records = [whole.record for whole in jobs]
        queues = await _queues(tx, records)
        named = {record.resource for record in records if record.resource}
        resources = await resource.number(tx, named)
        newest = (await tx.rows(NEWEST))[0][0]
        for seq, whole in enumerate(jobs, newest + 1):
            name = whole.record.resource
            self._add(whole, seq, queues[whole.record.queue], resources[name] if name else 0)
        await tx.each(INSERT, self._rows)
        await tx.each(keys.TAKE_FREE, self._keys)
        await tx.each(SET_DEADLINE, self._deadlines)
        await tx.each(KEEP_PROGRESS, self._progress)
        await tx.each(steps.KEEP, self._steps)
        await tx.each(ERROR, self._moves.errors)
        self._moves.errors.clear()
        await tx.each(tags.TAG, self._tags)
        await tx.each(keeping.KEEP, self._kept)
        await group.join(tx, self._groups)
        if self._turns:
            await hold_turns(tx, self._clock, self._turns)
        await self._moves.store_rows(tx)
        self._moves.ended.clear()  # they ended elsewhere
        await keeping.count(tx, list(self._new), 1)
        await ties.Arrival(tx, self._now, self._moves).tie(self._new)
        await self._moves.store_counts(tx)
        tx.rings.jobs += [record.id for record in records]

    def _add(self, whole: Whole, seq: int, line: Line, resource: int) -> None:
        record, moves, queue = whole.record, self._moves, line.id
        held = _held(whole, seq, line, 2 * resource + record.lane)
        self._rows.append(_row(record, held))
        self._new[seq] = whole
        self._tags += [(tag, seq) for tag in set(record.tags)]
        if record.policy.keep_ms is not None:
            self._kept.append((seq, record.policy.keep_ms))
        if record.progress is not None:
            progress = record.progress
            self._progress.append((seq, record.token, progress.fraction, progress.message))
        self._steps += [(seq, storable(step.name), step.result) for step in whole.steps]
        for number, kept in enumerate(record.errors, 1 - len(record.errors)):
            error = kept.error
            text = (error.kind, error.message, error.traceback, error.fingerprint)
            moves.errors.append(
                (seq, record.token + number, kept.attempt, kept.at_ms, *map(storable, text))
            )
        if record.key and keys.would_hold(record.rule, record, self._now):
            taking = keys.taking(record.key, record.rule, seq, record.id, record.enqueued_ms)
            self._keys.append((*taking, self._now))
        if record.state.is_final:
            moves.at(queue, record.priority).keep(record.state, 1)
            moves.finished.append(_finished(record, held))
            return
        moves.at(queue, record.priority).bytes += held.size
        self._turns |= dict.fromkeys(whole.turns, seq)
        if record.waits_for:
            moves.block(held, waits_for=record.waits_for)
        elif not held.is_plain and record.state is not State.SCHEDULED:
            uses = (use for use in record.uses if use.limit == record.blocked_on)
            moves.arrive(held, next(uses, None))
        else:
            moves.put_off(held, held.place, is_due=record.state is not State.SCHEDULED)
        if record.deadline_ms is not None:
            self._deadlines.append((record.deadline_ms, seq))
        if record.group is not None:
            of = (queue, record.group)
            self._groups[of] = self._groups.get(of, 0) + 1
        self._tx.rings.queues.add(record.queue)


async def _queues(tx: SqliteTx, records: Sequence[JobRecord]) -> dict[str, Line]:
    """Return the queues of these jobs, made if they are new."""
    kinds = {
        record.queue: Kind.MESSAGES if record.task is None else Kind.TASKS for record in records
    }
    lines = await read_lines(tx, set(kinds))
    for name, kind in kinds.items():
        if name not in lines:
            number = await make_line(tx, name, kind.value, DEFAULT_BOUNDS)
            lines[name] = Line(number, name, kind.value, DEFAULT_BOUNDS)
    return lines


def _held(whole: Whole, seq: int, line: Line, lane: int) -> Held:
    record = whole.record
    place = record.enqueued_ms if record.due_ms is None else record.due_ms
    return Held(
        id=record.id,
        token=record.token,
        seq=seq,
        queue=line.id,
        priority=record.priority,
        attempt=record.attempt,
        revision=record.revision,
        size=len(record.body) + len(record.headers or b""),
        started_ms=record.started_ms,
        owner=record.owner,
        is_plain=int(encode_extra(record) is None and not line.is_fair),
        cancelling=0,
        lane=lane,
        place=place,
        crashes=whole.crashes,
        parked_ms=whole.parked_ms,
    )


def _row(record: JobRecord, held: Held) -> tuple[Any, ...]:
    key = record.key
    return (
        held.seq,
        record.id,
        held.queue,
        held.lane,
        record.priority,
        held.place,
        record.enqueued_ms,
        record.deadline_ms,
        held.size,
        record.task,
        key.scope if key else None,
        key.name if key else None,
        record.group,
        record.parent,
        None if record.policy is DEFAULT_POLICY else encode_policy(record.policy),
        record.headers,
        record.body,
        encode_extra(record),
        record.workflow,
        None,
    )


def _finished(record: JobRecord, held: Held) -> tuple[Any, ...]:
    return (
        held.seq,
        FINAL_CODES[record.state],
        record.reason,
        held.queue,
        record.attempt,
        record.token,
        record.revision,
        record.started_ms,
        record.ended_ms or 0,
        record.ran_ms or 0,
        record.owner,
        record.result,
    )


# -- settings --


async def restore_settings(tx: SqliteTx, settings: Settings) -> None:
    """Take in what another store knew beside jobs."""
    names = {queue.name for queue in settings.queues}
    lines = await read_lines(tx, names) if names else {}
    moves = Moves()
    for queue in settings.queues:
        if queue.name not in lines:
            number = await make_line(tx, queue.name, queue.kind.value, queue.declared)
            _count(moves, number, queue)
        await tx.rows(SET_QUEUE, *_set(queue))
        tx.rings.queues.add(queue.name)
    await moves.store_counts(tx)
    await resource.keep_all(tx, settings.resources)
    for limit in settings.limits:
        await limits.restore(tx, limit)
    if settings.secret:
        await tx.rows(SET_SECRET, settings.secret)
    await tx.rows(RAISE_FORGOTTEN, settings.forgotten_ms)
    await schedules.keep(tx, settings.schedules, None)
    await steps.keep_latest(tx, settings.latest)


def _set(queue: QueueRecord) -> tuple[Any, ...]:
    declared = queue.declared
    return (
        declared.max_jobs,
        declared.max_bytes,
        declared.max_wait_ms,
        declared.group_share,
        queue.tuned_max_jobs,
        queue.tuned_max_bytes,
        queue.tuned_max_wait_ms,
        queue.tuned_group_share,
        int(queue.paused),
        int(queue.is_fair),
        queue.name,
        queue.kind.value,
    )


def _count(moves: Moves, number: int, queue: QueueRecord) -> None:
    """Begin with the lifetime counts of the same queue elsewhere."""
    counts = moves.at(number, COUNTED_AT)
    counts.appended, counts.retried = queue.appended, queue.retried
    counts.started, counts.ended, counts.ran_ms = queue.started, queue.ended, queue.ran_ms
    counts.running -= queue.started  # whatever is started counts as running: none is
    counts.succeeded, counts.failed = queue.succeeded, queue.failed
    counts.cancelled, counts.expired = queue.cancelled, queue.expired
