"""Amend: what people do to jobs: cancel, redrive, reprioritise, delete, move.

All jobs of a call are changed by a handful of statements. One that changed between our
look at it and our lock on its row (`taking`) is looked at again, so that what is said of
it is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from backlane.engine.moving import Seal
from backlane.engine.plan import Sql
from backlane.engine.postgres.append.enter import make_line
from backlane.engine.postgres.record.find import select
from backlane.engine.postgres.record.forget import forget
from backlane.engine.postgres.record.moves import Moves
from backlane.engine.postgres.record.record import (
    RUNNING,
    SCHEDULED,
    WAITING,
    Standing,
    standings,
)
from backlane.engine.postgres.record.taking import hold, let_go, placed, take_out, wait_on
from backlane.engine.postgres.store.seal import sealed_for_changes
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep import edges
from backlane.engine.postgres.upkeep.redrive import Redriving
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
from backlane.model.job import State
from backlane.model.queue import DEFAULT_BOUNDS

AMENDED = 1_000  # jobs an amend changes at most
LOOKS = 20  # at one job: each further one means that somebody changed it just then
CHANGEABLE = (RUNNING, *WAITING)

FLAG: Sql[tuple[()]] = Sql(
    """
    update backlane.lease
    set cancelling = true,
        revision = revision + 1
    where id = any ($1::bytea[])
    and not cancelling
    """
)
REPRIORITISE_LEASES: Sql[tuple[()]] = Sql(
    """
    update backlane.lease
    set priority = $2::smallint,
        revision = revision + 1
    where id = any ($1::bytea[])
    """
)
REPRIORITISE: Sql[tuple[()]] = Sql(
    """
    update backlane.job
    set priority = $2::smallint
    where seq = any ($1::bigint[])
    """
)
LINE: Sql[tuple[int, str]] = Sql(
    """
    select id, kind
    from backlane.queue
    where name = $1::text
    """
)


async def amend(
    tx: PostgresTx, selection: Selection, change: Change, cursor: bytes | None
) -> Amended:
    """Change up to 1,000 selected jobs."""
    seal, now = await sealed_for_changes(tx)
    seqs, cursor = await select(tx, selection, AMENDED, cursor)
    amending = Amending(tx, seal, now)
    if isinstance(change, Move):
        await amending.aim(change.queue)
    found = await standings(tx, seqs)
    newest_first = {one.id: at for at, one in enumerate(found)}.__getitem__
    for _ in range(LOOKS):
        again = await amending.apply(found, change)
        found = await standings(tx, again)
        if not found:
            break
    for one in found:
        amending.skip(one, "others keep changing it; try again")
    await amending.follow()
    return Amended(
        sorted(amending.changed, key=newest_first),
        sorted(amending.flagged, key=newest_first),
        sorted(amending.skipped, key=lambda one: newest_first(one.job)),
        cursor,
    )


class Amending:
    """One amend."""

    def __init__(self, tx: PostgresTx, seal: Seal | None, now: int) -> None:
        self.changed: list[bytes] = []
        self.flagged: list[bytes] = []
        self.skipped: list[Skipped] = []
        self._tx = tx
        self._seal = seal
        self._now = now
        self._target: tuple[int, str] | None = None  # of a move: the queue, and its kind
        self._moves = Moves()
        self._gone: list[bytes] = []
        self._ended: list[tuple[bytes, int]] = []  # jobs that waited, whose edges to follow

    async def aim(self, queue: str) -> None:
        """Look where jobs are to move to."""
        found = await self._tx.rows(LINE, queue)
        self._target = found[0] if found else None

    def skip(self, one: Standing, why: str) -> None:
        self.skipped.append(Skipped(one.id, why))

    async def apply(self, found: Sequence[Standing], change: Change) -> list[int]:
        """Change jobs, or say why not; return those to be looked at again."""
        tx = self._tx
        chosen = []
        for one in found:
            why_not = self._why_not(one, change)
            if why_not:
                self.skip(one, why_not)
            else:
                chosen.append(one)
        held = await hold(tx, chosen)
        mine = [one for one in chosen if one.seq in held]
        if mine:
            self._moves = Moves()
            await self._carry_out(mine, change)
            await self._moves.store(tx)
        return [one.seq for one in chosen if one.seq not in held]

    async def follow(self) -> None:
        """Follow the edges of those that ended, or are gone, once all were changed."""
        await edges.follow(self._tx, self._ended)
        if self._gone:
            await edges.forget(self._tx, self._gone)

    # -- whether --

    def _why_not(self, one: Standing, change: Change) -> str | None:
        if self._seal and not (isinstance(change, Cancel) and one.code == RUNNING):
            return self._seal.why_not
        match change:
            case Cancel() | Reprioritise():
                return None if one.code in CHANGEABLE else f"it is {one.state} already"
            case Redrive():
                has_ended = one.code not in CHANGEABLE and one.state is not State.SUCCEEDED
                return None if has_ended or one.code == SCHEDULED else f"it is {one.state}"
            case Delete():
                return "it is running; cancel it first" if one.code == RUNNING else None
            case Move(queue=queue):
                return self._why_not_to(one, queue)
            case _:
                assert_never(change)

    def _why_not_to(self, one: Standing, queue: str) -> str | None:
        if one.code not in WAITING:
            return f"it is {one.state}"
        if one.queue_name == queue:
            return "it is there already"
        if self._target and self._target[1] != one.kind:
            return f"queue {queue!r} holds {self._target[1]}"
        return None

    # -- what --

    async def _carry_out(self, mine: Sequence[Standing], change: Change) -> None:
        match change:
            case Cancel():
                await self._cancel(mine)
            case Redrive():
                await self._redrive(mine)
            case Reprioritise(priority=priority):
                await self._reprioritise(mine, priority)
            case Delete():
                await self._delete(mine)
            case Move(queue=queue):
                await self._move(mine, queue)
            case _:
                assert_never(change)

    def _tell(self, changed: Sequence[Standing]) -> None:
        self.changed += [one.id for one in changed]
        self._ring(changed)

    def _ring(self, changed: Sequence[Standing]) -> None:
        self._tx.rings.jobs += [one.id for one in changed]
        self._tx.rings.queues |= {one.queue_name for one in changed}

    async def _cancel(self, mine: Sequence[Standing]) -> None:
        running = [one for one in mine if one.code == RUNNING]
        if running:
            await self._tx.rows(FLAG, [one.id for one in running])
            self.flagged += [one.id for one in running]
            self._ring(running)
        waiting = [one for one in mine if one.code != RUNNING]
        await take_out(self._tx, waiting, self._moves)
        await let_go(self._tx, waiting, self._moves)
        for one in waiting:
            counts = self._moves.at(one.queue, one.priority)
            counts.cancelled += 1
            if one.keep_ms is None:
                counts.keep(State.CANCELLED, 1)
            self._moves.finish(_ended(one, self._now), State.CANCELLED, None)
        self._ended += [(one.id, edges.CANCELLED) for one in waiting]
        self._tell(waiting)

    async def _redrive(self, mine: Sequence[Standing]) -> None:
        redriving = Redriving(self._tx, self._moves, self._now)
        scheduled = [one for one in mine if one.code == SCHEDULED]
        await redriving.hasten(scheduled)
        ended = [one for one in mine if one.code != SCHEDULED]
        renewed = await redriving.renew(ended) if ended else set()
        self.skipped += redriving.skipped
        self._tell([one for one in mine if one.code == SCHEDULED or one.seq in renewed])

    async def _reprioritise(self, mine: Sequence[Standing], priority: int) -> None:
        tx, moves = self._tx, self._moves
        for one in mine:
            moves.at(one.queue, one.priority).bytes -= one.size
            moves.at(one.queue, priority).bytes += one.size
        running = [one for one in mine if one.code == RUNNING]
        if running:
            for one in running:
                moves.at(one.queue, one.priority).running -= 1
                moves.at(one.queue, priority).running += 1
            await tx.rows(REPRIORITISE_LEASES, [one.id for one in running], priority)
            await tx.rows(REPRIORITISE, [one.seq for one in running], priority)
        waiting = [one for one in mine if one.code != RUNNING]
        await take_out(tx, waiting, moves)
        for one in waiting:
            wait_on(moves, one, placed(one)._replace(priority=priority))
        self._tell(mine)

    async def _move(self, mine: Sequence[Standing], queue: str) -> None:
        tx, moves = self._tx, self._moves
        if self._target is None:
            kind = mine[0].kind
            self._target = (await make_line(tx, queue, kind, DEFAULT_BOUNDS), kind)
        number, kind = self._target
        # Of several kinds the first one decides what the new queue is.
        for one in mine:
            if one.kind != kind:
                self.skip(one, f"queue {queue!r} holds {kind}")
        mine = [one for one in mine if one.kind == kind]
        await take_out(tx, mine, moves)
        for one in mine:
            moves.at(one.queue, one.priority).bytes -= one.size
            moves.at(number, one.priority).bytes += one.size
            moves.gather(one.queue, one.group, -1)
            moves.gather(number, one.group, 1)
            then = placed(one)._replace(queue=number)
            if one.code == SCHEDULED:
                moves.wait(then, is_due=False)
            else:
                due_ms = one.place if one.due_ms is None else one.due_ms
                moves.line_up(then, due_ms, waits_for=one.waits_for or 0)
        tx.rings.queues.add(queue)
        self._tell(mine)

    async def _delete(self, mine: Sequence[Standing]) -> None:
        await take_out(self._tx, mine, self._moves)
        waiting = [one for one in mine if one.code in CHANGEABLE]
        await let_go(self._tx, waiting, self._moves)
        self._ended += [(one.id, edges.CANCELLED) for one in waiting]
        self._gone += [one.id for one in mine]
        await forget(self._tx, [one.seq for one in mine])
        self._tell(mine)


def _ended(one: Standing, now: int) -> tuple[Any, ...]:
    return (
        one.seq,
        one.queue,
        one.attempt,
        one.token,
        one.revision + 1,
        one.started_ms,
        now,
        0,
        one.owner,
    )
