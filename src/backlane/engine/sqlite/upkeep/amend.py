"""Amend: what people do to jobs: cancel, redrive, reprioritise, delete, move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from backlane.engine.moving import Seal
from backlane.engine.plan import Sql
from backlane.engine.portion import Line
from backlane.engine.selection import (
    Amended,
    Cancel,
    Change,
    Delete,
    Move,
    Redrive,
    Reprioritise,
    Selection,
    Skipped,
)
from backlane.engine.sqlite.append import keys
from backlane.engine.sqlite.append.append import make_line, read_lines
from backlane.engine.sqlite.limits.letting import ENDED
from backlane.engine.sqlite.record import keeping, steps
from backlane.engine.sqlite.record.exits import take_out
from backlane.engine.sqlite.record.find import select
from backlane.engine.sqlite.record.moves import FINAL_CODES, Moves
from backlane.engine.sqlite.record.record import (
    BLOCKED,
    READY,
    RUNNING,
    SCHEDULED,
    Standing,
    standings,
)
from backlane.engine.sqlite.rows import group, tags
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.rows.rows import UNBLOCK
from backlane.engine.sqlite.store.seal import sealed
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.engine.sqlite.workflow import edges, ends
from backlane.model.clock import Clock
from backlane.model.job import State
from backlane.model.queue import DEFAULT_BOUNDS, group_places

AMENDED = 1_000  # jobs an amend changes at most
CHANGEABLE = (RUNNING, SCHEDULED, READY, BLOCKED)

FLAG: Sql[tuple[()]] = Sql(
    """
    update backlane_lease
    set cancelling = 1,
        revision = revision + 1
    where id = ?
    and cancelling = 0
    """
)
REPRIORITISE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set priority = ?
    where seq = ?
    """
)
REPRIORITISE_READY: Sql[tuple[()]] = Sql(
    """
    update backlane_ready
    set priority = ?,
        rank = ?,
        revision = ?
    where queue = ?
    and lane = ?
    and rank = ?
    and place = ?
    and seq = ?
    """
)
REPRIORITISE_LEASE: Sql[tuple[()]] = Sql(
    """
    update backlane_lease
    set priority = ?,
        revision = revision + 1
    where id = ?
    """
)
RELOCATE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set queue = ?
    where seq = ?
    """
)
NO_DEADLINE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set deadline_ms = null
    where seq = ?
    """
)
FORGET_JOB: Sql[tuple[()]] = Sql(
    """
    delete from backlane_job
    where seq = ?
    """
)
FORGET_ERRORS: Sql[tuple[()]] = Sql(
    """
    delete from backlane_attempt_error
    where seq = ?
    """
)
FORGET_PROGRESS: Sql[tuple[()]] = Sql(
    """
    delete from backlane_progress
    where seq = ?
    """
)
FORGET_DEADLINE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_deadline
    where deadline_ms = ?
    and seq = ?
    """
)


async def amend(
    tx: SqliteTx, clock: Clock, selection: Selection, change: Change, cursor: bytes | None
) -> Amended:
    """Change up to 1,000 selected jobs."""
    seqs, cursor = await select(tx, selection, AMENDED, cursor)
    amending = Amending(tx, clock, await sealed(tx))
    found = await standings(tx, seqs)
    stuck = await edges.why_stuck(tx, found) if isinstance(change, Redrive) else {}
    for one in found:
        await amending.apply(one, change, stuck.get(one.id))
    # Of those that were selected too nobody is told that he waited in vain.
    await ends.follow(tx, clock.wall_ms(), amending.moves)
    await tx.each(edges.FORGET, [(seq,) for seq in amending.moves.deleted])
    await amending.moves.store_counts(tx)
    return Amended(amending.changed, amending.flagged, amending.skipped, cursor)


class Amending:
    """One amend: changes jobs one by one, for people change few at a time."""

    def __init__(self, tx: SqliteTx, clock: Clock, seal: Seal | None) -> None:
        self.changed: list[bytes] = []
        self.flagged: list[bytes] = []
        self.skipped: list[Skipped] = []
        self.moves = Moves(clock)
        self._tx = tx
        self._now = clock.wall_ms()
        self._seal = seal
        self._lines: dict[str, Line] = {}

    async def apply(self, one: Standing, change: Change, stuck: str | None) -> None:
        """Change one job, or say why not."""
        why_not = await self._why_not(one, change) or stuck
        if why_not:
            self.skipped.append(Skipped(one.id, why_not))
            return
        if isinstance(change, Cancel) and one.code == RUNNING:
            await self._tx.rows(FLAG, one.id)
            self.flagged.append(one.id)
        else:
            await self._carry_out(one, change)
            await self.moves.store_rows(self._tx)
            self.changed.append(one.id)
        self._tx.rings.jobs.append(one.id)
        self._tx.rings.queues.add(one.queue_name)

    # -- whether --

    async def _why_not(self, one: Standing, change: Change) -> str | None:
        if self._seal and not (isinstance(change, Cancel) and one.code == RUNNING):
            return self._seal.why_not
        match change:
            case Cancel() | Reprioritise():
                return None if one.code in CHANGEABLE else f"it is {one.state} already"
            case Redrive():
                return await self._why_not_again(one)
            case Delete():
                return "it is running; cancel it first" if one.code == RUNNING else None
            case Move(queue=queue):
                return await self._why_not_to(one, queue)
            case _:
                assert_never(change)

    async def _why_not_again(self, one: Standing) -> str | None:
        if one.code == SCHEDULED:
            return None
        if one.code in CHANGEABLE or one.state is State.SUCCEEDED:
            return f"it is {one.state}"
        if keys.taking_again(one, self._now):
            held = await self._tx.rows(keys.HOLDER, one.key_scope, one.key_name, self._now)
            if held and held[0][2] != one.id:
                return f"its key is held by job {held[0][2].hex()}"
        line = await self._line(one.queue_name)
        if line is None:
            return None
        bounds = line.bounds(None)
        if line.jobs + 1 > bounds.max_jobs or line.bytes + one.size > bounds.max_bytes:
            return f"queue {one.queue_name!r} is full"
        if one.group is not None and bounds.group_share is not None:
            held_by = await self._tx.rows(group.HELD, line.id, one.group)
            if held_by and held_by[0][2] >= group_places(bounds):
                return f"group {one.group!r} fills its share of queue {one.queue_name!r}"
        return None

    async def _why_not_to(self, one: Standing, queue: str) -> str | None:
        if one.code not in (SCHEDULED, READY, BLOCKED):
            return f"it is {one.state}"
        if one.queue_name == queue:
            return "it is there already"
        target = await self._line(queue)
        if target and target.kind != one.kind:
            return f"queue {queue!r} holds {target.kind}"
        return None

    async def _line(self, name: str) -> Line | None:
        """The queue as it is, with what this amend has added to it."""
        if name not in self._lines:
            self._lines |= await read_lines(self._tx, {name})
        return self._lines.get(name)

    # -- what --

    async def _carry_out(self, one: Standing, change: Change) -> None:
        match change:
            case Cancel():
                await self._take_out(one)
                self.moves.finish(one.held(), State.CANCELLED, self._now)
            case Redrive():
                await self._redrive(one)
            case Reprioritise(priority=priority):
                await self._reprioritise(one, priority)
            case Delete():
                await self._delete(one)
            case Move(queue=queue):
                await self._move(one, queue)
            case _:
                assert_never(change)

    async def _take_out(self, one: Standing) -> None:
        """Take a waiting or finished job out of the table of its state."""
        await take_out(self._tx, self.moves, [one])

    async def _redrive(self, one: Standing) -> None:
        await self._take_out(one)
        if one.code == SCHEDULED:
            self.moves.put_off(one.held(), self._now, is_due=True)
            return
        tx, line = self._tx, self._lines.get(one.queue_name)
        if line is not None:
            line.jobs += 1
            line.bytes += one.size
        self.moves.at(one.queue, one.priority).bytes += one.size
        key = keys.taking_again(one, self._now)
        if key:
            await tx.rows(keys.TAKE, *key)
        if one.group is not None:
            await group.join(tx, {(one.queue, one.group): 1})
        await tx.rows(NO_DEADLINE, one.seq)
        await tx.rows(FORGET_PROGRESS, one.seq)
        renewed = one.held()._replace(attempt=0, crashes=0, parked_ms=None)
        await edges.close(tx, one.seq)
        after = decode_extra(one.extra).after
        tied = await edges.tie(tx, {one.seq: after}, {}) if after else edges.NOTHING
        if tied.open.get(one.seq):
            self.moves.block(renewed._replace(place=self._now), waits_for=tied.open[one.seq])
        else:
            self.moves.put_off(renewed, self._now, is_due=True)

    async def _reprioritise(self, one: Standing, priority: int) -> None:
        self.moves.at(one.queue, one.priority).bytes -= one.size
        self.moves.at(one.queue, priority).bytes += one.size
        await self._tx.rows(REPRIORITISE, priority, one.seq)
        if one.code == RUNNING:
            self.moves.at(one.queue, one.priority).running -= 1
            self.moves.at(one.queue, priority).running += 1
            await self._tx.rows(REPRIORITISE_LEASE, priority, one.id)
            return
        await self._shift(one, one._replace(priority=priority))

    async def _move(self, one: Standing, queue: str) -> None:
        line = await self._line(queue)
        if line is None:
            number = await make_line(self._tx, queue, one.kind, DEFAULT_BOUNDS)
            line = self._lines[queue] = Line(number, queue, one.kind, DEFAULT_BOUNDS)
        self.moves.at(one.queue, one.priority).bytes -= one.size
        self.moves.at(line.id, one.priority).bytes += one.size
        await self._take_out(one)
        await group.leave(self._tx, [one.seq])
        await self._tx.rows(RELOCATE, line.id, one.seq)
        if one.group is not None:
            await group.join(self._tx, {(line.id, one.group): 1})
        self._put_in(one._replace(queue=line.id))
        self._tx.rings.queues.add(queue)

    async def _shift(self, one: Standing, changed: Standing) -> None:
        """Let a waiting job stand elsewhere in the same state, whatever its uses say."""
        held, moves, rank = changed.held(), self.moves, 9 - changed.priority
        if one.code == READY:
            moves.at(one.queue, one.priority).ready -= 1
            moves.at(one.queue, changed.priority).ready += 1
            place = (one.queue, one.lane, one.rank, one.place, one.seq)
            await self._tx.rows(REPRIORITISE_READY, changed.priority, rank, held.revision, *place)
        elif one.code == BLOCKED:
            moves.at(one.queue, one.priority).blocked -= 1
            await self._tx.rows(UNBLOCK, one.seq)
            waits_for, is_turn = one.waits_for or 0, bool(one.is_turn)
            moves.block_at(held, one.gate, rank, is_turn=is_turn, waits_for=waits_for)
        else:
            await self._take_out(one)
            self._put_in(changed)

    def _put_in(self, one: Standing) -> None:
        """Put a waiting job back in its state, in line by when it was due."""
        if one.code == BLOCKED and one.gate is None:
            self.moves.block(one.held(), waits_for=one.waits_for or 0)
            return
        due_ms = one.place if one.due_ms is None else one.due_ms
        self.moves.put_off(one.held(), due_ms, is_due=one.code != SCHEDULED)

    async def _delete(self, one: Standing) -> None:
        await self._take_out(one)
        if one.code in CHANGEABLE:
            self.moves.at(one.queue, one.priority).bytes -= one.size
            if one.deadline_ms is not None:
                await self._tx.rows(FORGET_DEADLINE, one.deadline_ms, one.seq)
            await group.leave(self._tx, [one.seq])
            self.moves.leave(one.seq, one.queue, ENDED)
            self.moves.ended.append((one.seq, FINAL_CODES[State.CANCELLED]))
            self.moves.special.append(one.seq)
        self.moves.deleted[one.seq] = one.id
        await self.moves.let_go(self._tx)  # while it is known still what it uses
        if one.key_name is not None:
            await self._tx.rows(keys.FREE, one.key_scope, one.key_name, one.seq)
        await forget(self._tx, [one.seq])


async def forget(tx: SqliteTx, seqs: Sequence[int]) -> None:
    """Delete what is kept of jobs beside the table of their state."""
    rows = [(seq,) for seq in seqs]
    await tags.untag(tx, seqs)
    for statement in (FORGET_JOB, FORGET_ERRORS, FORGET_PROGRESS, steps.FORGET, keeping.FORGET):
        await tx.each(statement, rows)
