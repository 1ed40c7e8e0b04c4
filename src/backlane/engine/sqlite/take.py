"""Take: leases from the head of a line, or of very jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.protocol import Wanted
from backlane.engine.sqlite import keys
from backlane.engine.sqlite.counts import Counts
from backlane.engine.sqlite.exits import UNREADY
from backlane.engine.sqlite.group import recount
from backlane.engine.sqlite.held import Held
from backlane.engine.sqlite.moves import Moves
from backlane.engine.sqlite.policy import decode_policy
from backlane.engine.sqlite.resource import KINDS, LANES, Rooms, resource_of
from backlane.engine.sqlite.settle import UNLEASE
from backlane.engine.sqlite.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.job import DEFAULT_POLICY, Lease, State
from backlane.model.outcome import Reason

OPEN: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane_queue
    where name in (select value from carray(?))
    and kind = ?
    and paused = 0
    """
)

TakenRow = tuple[Any, ...]
Order = tuple[int, int, int]  # rank, place, seq

# The head of a line: one ascending range of the key of backlane_ready.
HEAD: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        rank, ready.place, ready.seq, revision, ready.size, key_name,
        predicted_ms, extra
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    order by rank, ready.place, ready.seq
    limit ?
    """
)
GIVE_HEAD: Sql[tuple[()]] = Sql(
    """
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, parked_ms, until_ms)
    select job.id, ready.token + 1, ready.seq, ready.queue, ready.priority, ready.attempt,
        revision + 1, ready.size, ?, ?,
        key_name is null and deadline_ms is null and group_name is null and extra is null, 0,
        ready.lane, ready.place, crashes, parked_ms, ?
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    order by rank, ready.place, ready.seq
    limit ?
    """
)
BEHEAD: Sql[tuple[()]] = Sql(
    """
    delete from backlane_ready
    where queue = ?
    and lane = ?
    and (rank, place, seq) <= (?, ?, ?)
    """
)
ORDER: Sql[Order] = Sql(
    """
    select rank, place, seq
    from backlane_ready
    where queue = ?
    and lane = ?
    order by rank, place, seq
    limit ?
    """
)
# Rank is not known of a job: ten probes of the key of backlane_ready find it.
PICK: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        rank, ready.place, ready.seq, revision, ready.size, key_name,
        predicted_ms, extra, queue.id, queue.name
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    cross join backlane_queue as queue on queue.id = job.queue
    cross join backlane_ready as ready
    on ready.queue = job.queue
    and ready.lane = job.lane
    and rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    and ready.place = job.place
    and ready.seq = job.seq
    where kind = ?
    and paused = 0
    order by rank, ready.place, ready.seq
    """
)
GIVE_PICKED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, parked_ms, until_ms)
    select job.id, ready.token + 1, ready.seq, ready.queue, ready.priority, ready.attempt,
        revision + 1, ready.size, ?, ?,
        key_name is null and deadline_ms is null and group_name is null and extra is null, 0,
        ready.lane, ready.place, crashes, parked_ms, ?
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    and rank = ?
    and ready.place = ?
    and ready.seq = ?
    """
)
TEXTS: Sql[tuple[str | None, str | None, str | None, str | None]] = Sql(
    """
    select task, group_name, key_scope, key_name
    from backlane_job
    where seq = ?
    """
)
SPOIL: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set task = '(damaged)',
        group_name = null,
        key_scope = null,
        key_name = null,
        policy = x'00'
    where seq = ?
    """
)
# A scan, for the key is what cannot be read; it runs for a damaged row only.
FREE_KEY_OF: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where seq = ?
    """
)


class Source(NamedTuple):
    """Where leases come from: one lane of one queue."""

    queue: int
    name: str
    lane: int


class Taking:
    """The taking of leases for one claim."""

    __slots__ = (
        "_counts",
        "_ended",
        "_leases",
        "_line",
        "_moves",
        "_rooms",
        "_started",
        "_terms",
        "_tx",
        "_wall",
        "_wanted",
    )

    def __init__(
        self, tx: SqliteTx, clock: Clock, wanted: Wanted, moves: Moves, rooms: Rooms
    ) -> None:
        self._tx = tx
        self._rooms = rooms
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
        if self._started:
            await self._tx.each(keys.STARTED, self._started)
        self._tx.rings.starts += [lease.job for lease in self._leases]
        return self._leases

    async def _take_heads(self) -> None:
        wanted = self._wanted
        opened = await self._tx.rows(OPEN, array(wanted.queues), wanted.kind)
        sources = await self._sources(opened)
        orders: list[Order] = []
        while sources and (missing := wanted.number - len(self._leases)) > 0:
            taken: list[tuple[TakenRow, Source]] = []
            ended = len(self._ended)
            for source, share in await self._shares(sources, missing):
                taken += [(row, source) for row in await self._take_head(source, share)]
            if len(sources) > 1:
                taken.sort(key=lambda one: one[0][14:17])
            for row, source in taken:
                self._take_row(row, source.queue, source.name)
                if self._rooms.are_limited and len(orders) < len(self._leases):
                    orders.append(row[14:17])
            if len(taken) < missing and len(self._ended) == ended:
                break
        if orders:  # a trial may have been found behind one that had expired
            inline = sorted(zip(orders, self._leases, strict=True), key=itemgetter(0))
            self._leases = [lease for _, lease in inline]

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

    async def _shares(self, sources: Sequence[Source], number: int) -> list[tuple[Source, int]]:
        """How many to take of each source, so that together they are the first in line."""
        if len(sources) == 1:
            left = self._rooms.left(resource_of(sources[0].lane))
            return [(sources[0], number if left is None else min(left, number))]
        orders = []
        for source in sources:
            rows = await self._tx.rows(ORDER, source.queue, source.lane, number)
            orders += [(order, source) for order in rows]
        orders.sort()
        if self._rooms.are_limited:
            orders = self._within_rooms(orders)
        shares: dict[Source, int] = {}
        for _, source in orders[:number]:
            shares[source] = shares.get(source, 0) + 1
        return list(shares.items())

    def _within_rooms(self, orders: Sequence[tuple[Order, Source]]) -> list[tuple[Order, Source]]:
        """Leave out what the resources that are tried do not allow."""
        picked: Counter[int] = Counter()
        within = []
        for order, source in orders:
            number = resource_of(source.lane)
            left = self._rooms.left(number)
            if left is None or picked[number] < left:
                picked[number] += 1
                within.append((order, source))
        return within

    async def _take_head(self, source: Source, number: int) -> list[TakenRow]:
        """Move the first rows of one source from ready to lease."""
        try:
            rows = await self._tx.rows(HEAD, source.queue, source.lane, number)
        except UnicodeDecodeError:
            await self._spoil_damaged(source, number)
            rows = await self._tx.rows(HEAD, source.queue, source.lane, number)
        if rows:
            await self._tx.rows(GIVE_HEAD, *self._terms, source.queue, source.lane, number)
            await self._tx.rows(BEHEAD, source.queue, source.lane, *rows[-1][14:17])
        return rows

    async def _take_ids(self) -> None:
        wanted = self._wanted
        rows = await self._tx.rows(PICK, array(wanted.ids), wanted.kind)
        places = []
        if self._rooms.has_any:
            await self._rooms.read(self._tx, {resource_of(row[7]) for row in rows})
        for row in rows:
            if len(self._leases) >= wanted.number:
                break
            if self._rooms.left(resource_of(row[7])) == 0:
                continue
            if wanted.lane is None or wanted.lane == row[7] & 1:
                queue, name = row[22:]
                places.append((queue, row[7], *row[14:17]))
                self._take_row(row[:22], queue, name)
        await self._tx.each(GIVE_PICKED, [(*self._terms, *place) for place in places])
        await self._tx.each(UNREADY, places)

    def _take_row(self, row: TakenRow, queue: int, name: str) -> None:
        """Make the lease of one row, or end its job when it cannot run any more."""
        (
            job, token, attempt, task, body, headers, priority, lane, policy, group, enqueued_ms,
            deadline_ms, parked_ms, crashes, _, place, seq, _, _, key, predicted_ms, extra,
        ) = row  # fmt: skip
        line = (queue, priority)
        if line != self._line:
            self._line, self._counts = line, self._moves.at(queue, priority)
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
            counts.waited_ms += max(0, self._wall - place)
        self._leases.append(lease)

    def _end(self, row: TakenRow, queue: int, state: State, reason: Reason | None) -> None:
        """The job ends unrun."""
        self._ended.append((row[0],))
        held = Held(
            id=row[0],
            token=row[1] - 1,
            seq=row[16],
            queue=queue,
            priority=row[6],
            attempt=row[2],
            revision=row[17] + 1,
            size=row[18],
            started_ms=None,
            owner=None,
            is_plain=0,
            cancelling=0,
            lane=row[7],
            place=row[15],
            crashes=row[13],
            parked_ms=row[12],
        )
        self._moves.finish(held, state, self._wall, reason=reason)
        self._tx.rings.jobs.append(row[0])

    async def _spoil_damaged(self, source: Source, number: int) -> None:
        """Make jobs whose text is damaged readable, and undecodable."""
        for _, _, seq in await self._tx.rows(ORDER, source.queue, source.lane, number):
            try:
                await self._tx.rows(TEXTS, seq)
            except UnicodeDecodeError:
                await self._tx.rows(FREE_KEY_OF, seq)
                await self._tx.rows(SPOIL, seq)
                await recount(self._tx, source.queue)
