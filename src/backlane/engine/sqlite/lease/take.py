"""Take: leases from the head of a line, or of very jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import NoneType

import msgspec

from backlane.engine.protocol import Wanted
from backlane.engine.sqlite.append import keys
from backlane.engine.sqlite.lease.settle import UNLEASE
from backlane.engine.sqlite.lease.wake import Waking
from backlane.engine.sqlite.limits import fair
from backlane.engine.sqlite.limits.gates import Gate, Gates
from backlane.engine.sqlite.limits.resource import KINDS, LANES, Rooms, resource_of
from backlane.engine.sqlite.record.exits import UNREADY
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.rows import damage
from backlane.engine.sqlite.rows.counts import Counts
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.rows.head import (
    BEHEAD,
    GIVE_HEAD,
    GIVE_PICKED,
    HEAD,
    OPEN,
    ORDER,
    PICK,
    Order,
    Place,
    Source,
    TakenRow,
    held_of,
)
from backlane.engine.sqlite.rows.policy import decode_policy
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.engine.sqlite.workflow import ends
from backlane.model.clock import Clock
from backlane.model.job import DEFAULT_POLICY, Lease, State
from backlane.model.limit import Use
from backlane.model.outcome import Reason


class Taking:
    """The taking of leases for one claim."""

    __slots__ = (
        "_clock",
        "_counts",
        "_ended",
        "_leases",
        "_line",
        "_moves",
        "_rooms",
        "_started",
        "_terms",
        "_tx",
        "_virtual",
        "_waking",
        "_wall",
        "_wanted",
    )

    def __init__(
        self,
        tx: SqliteTx,
        clock: Clock,
        wanted: Wanted,
        moves: Moves,
        rooms: Rooms,
        waking: Waking | None = None,  # None: no job is under a limit
    ) -> None:
        self._tx = tx
        self._clock = clock
        self._rooms = rooms
        self._waking = waking
        self._virtual: dict[int, int] = {}  # by fair queue: the greatest place taken
        self._wanted = wanted
        self._moves = moves
        self._wall = clock.wall_ms()
        self._terms = (self._wall, wanted.owner, clock.boot_ms() + wanted.lease_ms)
        self._leases: list[Lease] = []
        self._line: tuple[int, int] | None = None  # the last one counted: mostly the next too
        self._counts = Counts()
        self._ended: list[tuple[bytes]] = []
        self._started: list[tuple[int]] = []  # that have a key, for the first time

    async def take(self) -> list[Lease]:
        """Take up to the wanted number; expired and undecodable jobs end on the way."""
        if self._wanted.number > 0:
            if self._wanted.ids:
                await self._take_ids()
            elif self._wanted.queues:
                await self._take_heads()
        if self._ended:
            await self._tx.each(UNLEASE, self._ended)
            await self._moves.store_rows(self._tx)
            await ends.follow(self._tx, self._wall, self._moves)
        if self._virtual:
            await self._tx.each(fair.TAKEN, [(at, queue) for queue, at in self._virtual.items()])
        if self._started:
            await self._tx.each(keys.STARTED, self._started)
        self._tx.rings.starts += [lease.job for lease in self._leases]
        return self._leases

    async def _take_heads(self) -> None:
        wanted = self._wanted
        if self._waking is not None:
            await self._take_within_limits(self._waking)
            return
        opened = await self._tx.rows(OPEN, array(wanted.queues), wanted.kind)
        lined_up = await self._sources(opened)
        while (missing := wanted.number - len(self._leases)) > 0:
            sources = [it for it in lined_up if self._left(it) != 0]
            if not sources:
                break
            taken: list[tuple[TakenRow, Source]] = []
            ended = len(self._ended)
            shares, is_cut = await self._shares(sources, missing)
            for source, share in shares:
                head = await self._head(source, share)
                await self._give_head(source, head)
                taken += [(row, source) for row in head]
            if len(sources) > 1:
                taken.sort(key=lambda one: one[0][14:17])
            for row, source in taken:
                self._take_row(row, source.queue, source.name)
            if len(taken) < missing and len(self._ended) == ended and not is_cut:
                break

    async def _sources(self, opened: Sequence[tuple[int, str]]) -> list[Source]:
        """Where leases may come from; lanes of resources only where something waits there."""
        kinds = (0, 1) if self._wanted.lane is None else (self._wanted.lane,)
        if not self._rooms.has_any:
            return [Source(queue, name, lane) for queue, name in opened for lane in kinds]
        names = dict(opened)
        used = await self._tx.each(LANES, [(queue,) for queue in names])
        await self._rooms.read(self._tx, {resource_of(lane) for _, lane in used})
        return [
            Source(queue, names[queue], lane)
            for queue, lane in used
            if lane & 1 in kinds and self._rooms.left(resource_of(lane)) != 0
        ]

    async def _shares(
        self, sources: Sequence[Source], number: int
    ) -> tuple[list[tuple[Source, int]], bool]:
        """How many to take of each source, to have the first in line; and whether to look again."""
        if len(sources) == 1:
            left = self._left(sources[0])
            return [(sources[0], number if left is None else min(left, number))], False
        orders = []
        for source in sources:
            rows = await self._tx.rows(ORDER, source.queue, source.lane, number)
            orders += [(order, source) for order in rows]
        orders = sorted(orders)[:number]
        within = orders
        if self._rooms.are_limited or self._waking is not None:
            within = self._within_rooms(orders)
        shares: dict[Source, int] = {}
        for _, source in within:
            shares[source] = shares.get(source, 0) + 1
        return list(shares.items()), len(within) < len(orders)

    def _within_rooms(self, orders: Sequence[tuple[Order, Source]]) -> list[tuple[Order, Source]]:
        """Up to the first that a resource that is tried, or a queue's own limit, does not allow.

        It would, should one before it have expired or have to wait: nothing may pass it by yet.
        """
        picked: Counter[int] = Counter()
        of_queue: Counter[int] = Counter()
        within = []
        for order, source in orders:
            number, queue = resource_of(source.lane), source.queue
            left = self._rooms.left(number)
            own = self._waking.left(queue) if self._waking is not None else None
            if picked[number] == left or of_queue[queue] == own:
                break
            picked[number] += 1
            of_queue[queue] += 1
            within.append((order, source))
        return within

    def _left(self, source: Source) -> int | None:
        """How many may come from one source; None: any number."""
        lefts = [self._rooms.left(resource_of(source.lane))]
        if self._waking is not None:
            lefts.append(self._waking.left(source.queue))
        return min((left for left in lefts if left is not None), default=None)

    async def _head(self, source: Source, number: int) -> list[TakenRow]:
        """Read the first rows of one source."""
        try:
            return await self._tx.rows(HEAD, source.queue, source.lane, number)
        except UnicodeDecodeError:
            await damage.spoil(self._tx, source.queue, source.lane, number)
            return await self._tx.rows(HEAD, source.queue, source.lane, number)

    async def _give_head(self, source: Source, rows: Sequence[TakenRow]) -> None:
        """Move the first rows of one source from ready to lease."""
        if rows:
            line = (source.queue, source.lane)
            await self._tx.rows(GIVE_HEAD, *self._terms, *line, len(rows))
            await self._tx.rows(BEHEAD, *line, *rows[-1][14:17])

    # -- within limits --

    async def _take_within_limits(self, waking: Waking) -> None:
        """Like `_take_heads`, where jobs or queues are under limits."""
        lined_up = await self._sources(waking.giving)
        while (missing := self._wanted.number - len(self._leases)) > 0:
            sources = [source for source in lined_up if self._left(source) != 0]
            if not sources or waking.is_at_its_end:
                break
            shares, is_cut = await self._shares(sources, missing)
            heads = [(source, await self._head(source, share)) for source, share in shares]
            rows = [(row, source) for source, head in heads for row in head]
            rows.sort(key=lambda one: one[0][14:17])
            before = len(self._ended) + waking.stopped
            if any(row[21] is not None and decode_extra(row[21]).uses for row, _ in rows):
                leased = await self._take_limited(waking, rows)
            else:
                for source, head in heads:
                    await self._give_head(source, head)
                leased = [row for row, source in rows if self._lease(waking, row, source)]
            stayed = len(self._ended) + waking.stopped == before
            if len(leased) < missing and stayed and not is_cut:
                break

    async def _take_limited(
        self, waking: Waking, rows: Sequence[tuple[TakenRow, Source]]
    ) -> list[TakenRow]:
        """Take these rows as far as their uses have room; return those that were leased."""
        uses = [decode_extra(row[21]).uses for row, _ in rows]
        wanted: dict[Use, set[int]] = {}
        for (_, source), its in zip(rows, uses, strict=True):
            for use in its:
                wanted.setdefault(use, set()).add(source.queue)
        gates = Gates(self._tx, self._clock)
        if wanted:
            await gates.read(wanted)
        given, gone, leased = list[Place](), list[Place](), list[TakenRow]()
        for (row, source), its in zip(rows, uses, strict=True):
            if len(self._leases) >= self._wanted.number or waking.is_at_its_end:
                break
            if self._left(source) == 0:
                continue
            gone.append((source.queue, row[7], *row[14:17]))
            for use in its:
                gates[use].line(source.queue).ready -= not use.turn
            has_expired = row[11] is not None and row[11] <= self._wall
            gate = None if has_expired else gates.full(its, row[16])
            if gate is not None:
                self._stop(row, source.queue, gate)
                waking.stopped += 1
                continue
            given.append(gone[-1])
            if self._lease(waking, row, source):
                leased.append(row)
                for use in its:
                    gates[use].take(gates.now_us)
        await self._give_picked(given, gone)
        await gates.store()
        waking.has_open |= bool(wanted)
        if waking.stopped:
            await self._moves.store_rows(self._tx)
        return leased

    def _lease(self, waking: Waking, row: TakenRow, source: Source) -> bool:
        """Make the lease of a row; False: its job ended instead."""
        number = len(self._leases)
        self._take_row(row, source.queue, source.name)
        is_leased = len(self._leases) > number
        if is_leased:
            waking.lease(source.queue)
        return is_leased

    def _stop(self, row: TakenRow, queue: int, gate: Gate) -> None:
        """The job has to wait, blocked: a use of it has no room."""
        held = held_of(row, queue)
        self._moves.at(queue, held.priority).ready -= 1
        self._moves.block_at(held, gate.id, row[14], is_turn=gate.use.turn)
        gate.line(queue).blocked += 1
        self._tx.rings.jobs.append(held.id)

    # -- one by one --

    async def _take_ids(self) -> None:
        """Take the best; who ended or had to wait is not among those of the next look."""
        ids = sorted(set(self._wanted.ids))  # neighbours are quicker to find
        are_all = False  # looked at: those that may be taken stand behind others
        while (missing := self._wanted.number - len(self._leases)) > 0:
            most, before = len(ids) if are_all else missing, self._gone
            rows = await self._pick(ids, most)
            await self._take_picked(rows)
            if len(rows) < most or (are_all and self._gone == before):
                break
            are_all = self._gone == before

    async def _pick(self, ids: Sequence[bytes], number: int) -> list[TakenRow]:
        """Read the first in line of very jobs."""
        asked = (array(ids), self._wanted.kind, self._wanted.lane, number)
        try:
            return await self._tx.rows(PICK, *asked)
        except UnicodeDecodeError:
            await damage.spoil_jobs(self._tx, ids)
            return await self._tx.rows(PICK, *asked)

    @property
    def _gone(self) -> int:
        """How many are not ready any more."""
        stopped = self._waking.stopped if self._waking is not None else 0
        return len(self._leases) + len(self._ended) + stopped

    async def _take_picked(self, rows: Sequence[TakenRow]) -> None:
        """Take of these as many as may be."""
        if self._rooms.has_any:
            await self._rooms.read(self._tx, {resource_of(row[7]) for row in rows})
        if self._waking is not None:
            given = {queue for queue, _ in self._waking.giving}
            found = [(row[:23], Source(row[23], row[24], row[7])) for row in rows]
            await self._take_limited(self._waking, [it for it in found if it[1].queue in given])
            return
        places: list[Place] = []
        for row in rows:
            if len(self._leases) >= self._wanted.number:
                break
            if self._rooms.left(resource_of(row[7])) != 0:
                places.append((row[23], row[7], row[14], row[15], row[16]))
                self._take_row(row[:23], row[23], row[24])
        await self._give_picked(places, places)

    async def _give_picked(self, given: Sequence[Place], gone: Sequence[Place]) -> None:
        """Move jobs from ready to lease; others that are gone have to wait."""
        if given:
            packed = integers([seq << 4 | rank for _, _, rank, _, seq in given])
            await self._tx.rows(GIVE_PICKED, *self._terms, packed)
        await self._tx.each(UNREADY, gone)

    def _take_row(self, row: TakenRow, queue: int, name: str) -> None:
        """Make the lease of one row, or end its job when it cannot run any more."""
        (
            job, token, attempt, task, body, headers, priority, lane, policy, group, enqueued_ms,
            deadline_ms, parked_ms, crashes, _, place, seq, _, _, key, predicted_ms, extra, due_ms,
        ) = row  # fmt: skip
        if (queue, priority) != self._line:
            self._line, self._counts = (queue, priority), self._moves.at(queue, priority)
        counts = self._counts
        counts.ready -= 1
        if deadline_ms is not None and deadline_ms <= self._wall:
            self._end(row, queue, State.EXPIRED, None)
            return
        try:
            lease = Lease(
                job,
                token,
                attempt,
                name,
                task,
                body,
                headers,
                priority,
                KINDS[lane & 1],
                DEFAULT_POLICY if policy is None else decode_policy(policy),
                group,
                enqueued_ms,
                deadline_ms,
                None if parked_ms is None else max(0, self._wall - parked_ms),
                crashes,
            )
        except (msgspec.MsgspecError, IndexError, TypeError):
            lease = None
        if lease is None or type(body) is not bytes or type(headers) not in (bytes, NoneType):
            # One damaged row must not stop the rows behind it.
            self._end(row, queue, State.FAILED, Reason.UNDECODABLE)
            return
        if lane > 1:
            self._rooms.give(resource_of(lane), job)
            lease = msgspec.structs.replace(lease, resource=self._rooms.name(lane))
        if extra is not None and key is not None and token == 1:
            self._started.append((seq,))
        counts.started += 1
        if predicted_ms is not None and token == 1:
            counts.foretold += 1
            counts.foretold_ms += predicted_ms
            counts.waited_ms += max(0, self._wall - (place if due_ms is None else due_ms))
        if due_ms is not None:
            self._virtual[queue] = max(self._virtual.get(queue, 0), place)
        self._leases.append(lease)

    def _end(self, row: TakenRow, queue: int, state: State, reason: Reason | None) -> None:
        """The job ends unrun."""
        self._ended.append((row[0],))
        held = held_of(row, queue)
        self._moves.finish(held, state, self._wall, reason=reason)
        self._tx.rings.jobs.append(row[0])
