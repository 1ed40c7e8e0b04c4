"""Offers: which ready jobs a transport is to carry next.

A pass reads as many rows as are in the windows, and those it names, however many wait
behind them. A window that is known to be full costs a look at the counters of its queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.offering import Carried, Offer, Offered
from backlane.engine.plan import Sql
from backlane.engine.sqlite.lease import windows
from backlane.engine.sqlite.lease.claim import Begun, begin, next_due_ms
from backlane.engine.sqlite.lease.windows import Window
from backlane.engine.sqlite.limits import resource
from backlane.engine.sqlite.limits.resource import Rooms, resource_of
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.rows import damage
from backlane.engine.sqlite.rows.head import Order
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.job import Lane

Waiting = tuple[Order, int, bytes, str | None]  # lane, id, group

QUEUES: Sql[tuple[int, str, int]] = Sql(
    """
    select id, name, paused
    from backlane_queue
    where name in (select value from carray(?))
    """
)


async def offer(tx: SqliteTx, clock: Clock, offers: Sequence[Offer], for_ms: int) -> Offered:
    """Name ready jobs that are not offered, and mark them."""
    moves = Moves(clock)
    begun = await begin(tx, clock, "", (), moves)
    queues = await tx.rows(QUEUES, array([one.queue for one in offers])) if offers else []
    opened = [(number, name) for number, name, paused in queues if not paused]
    if begun.waking is not None:
        await begun.waking.wake_in(opened)
    due_ms = await next_due_ms(tx, clock, "", begun, 0)
    await moves.store_counts(tx)
    offering = Offering(tx, clock, for_ms, begun, [] if begun.is_sealed else opened)
    numbers = {name: number for number, name, _ in queues}
    for one in offers:
        if one.queue in numbers:
            await offering.fill(one, numbers[one.queue])
    if begun.waking is not None and begun.waking.ready > len(offering.jobs):
        tx.rings.queues |= {name for _, name in opened}  # there is work for others too
    return Offered(
        offering.jobs, clock.wall_ms(), offering.more, offering.doubtful, due_ms, begun.buried
    )


async def withdraw(tx: SqliteTx, jobs: Sequence[bytes]) -> None:
    """Forget that these are offered."""
    await windows.withdraw(tx, jobs)


class Offering:
    """One pass over some windows."""

    def __init__(
        self,
        tx: SqliteTx,
        clock: Clock,
        for_ms: int,
        begun: Begun,
        opened: Sequence[tuple[int, str]],
    ) -> None:
        self.jobs: list[Carried] = []
        self.more: list[tuple[str, Lane]] = []
        self.doubtful: list[tuple[str, Lane]] = []
        self._tx = tx
        self._clock = clock
        self._now = clock.wall_ms()
        self._for_ms = for_ms
        self._waking = begun.waking
        self._opened = {number for number, _ in opened}
        self._rooms = Rooms(self._now, has_any=begun.has_resources)

    async def fill(self, one: Offer, queue: int) -> None:
        """Fill one window, as far as there are jobs and room."""
        window = await windows.read(self._tx, self._clock, queue, one.lane, one.window)
        if one.void_ms is not None and window.is_old(self._now, self._for_ms):
            before_ms = min(one.void_ms, self._now - self._for_ms)
            await windows.void(self._tx, queue, one.lane, before_ms, self._now + self._for_ms)
            window = await windows.count(self._tx, queue, one.lane)
        has_more = window.is_full
        if queue in self._opened and not window.is_full:
            has_more = await self._name(one, queue, window)
        if has_more and queue in self._opened:
            self.more.append((one.queue, one.lane))
        if window.is_old(self._now, self._for_ms):
            self.doubtful.append((one.queue, one.lane))

    async def _name(self, one: Offer, queue: int, window: Window) -> bool:
        """Offer what there is room for; return whether the window is full, and hides more."""
        room = max(0, one.window - window.jobs)
        own = self._waking.left(queue) if self._waking else None
        if own is not None:  # of both lanes
            other = await windows.count(self._tx, queue, 1 - one.lane)
            own = max(0, own - window.jobs - other.jobs)
        number = room if own is None else min(room, own)
        last: dict[int, Order] = {}
        named: list[Carried] = []
        hides_more = False
        for order, lane, job, group in await self._waiting(queue, one.lane, window.jobs, number):
            needed = resource_of(lane)
            if self._rooms.left(needed) == 0:
                continue
            if len(named) == number:
                hides_more = number == room
                break
            last[lane] = order
            named.append(Carried(job, one.queue, one.lane, group))
            self._rooms.give(needed, job)
        self.jobs += named
        if named:
            await windows.mark(self._tx, self._now, queue, last)
        if hides_more:
            await windows.keep_full(self._tx, self._clock, queue, one.lane)
        return hides_more

    async def _waiting(self, queue: int, kind: Lane, offered: int, number: int) -> list[Waiting]:
        """So many jobs that are not offered, and one more, of each lane, in line."""
        found: list[Waiting] = []
        for lane in await self._lanes(queue, kind):
            given = (queue, lane, number + 1)
            try:
                rows = await self._tx.rows(windows.NEXT, *given)
            except UnicodeDecodeError:
                await damage.spoil(self._tx, queue, lane, offered + number + 1)
                rows = await self._tx.rows(windows.NEXT, *given)
            found += [(row[:3], lane, row[3], row[4]) for row in rows]
        return sorted(found, key=lambda one: one[0])

    async def _lanes(self, queue: int, kind: Lane) -> list[int]:
        """The lanes that may give: of resources those where something waits, if they are up."""
        if not self._rooms.has_any:
            return [kind]
        used = [lane for _, lane in await self._tx.rows(resource.LANES, queue) if lane & 1 == kind]
        await self._rooms.read(self._tx, {resource_of(lane) for lane in used})
        return [lane for lane in used if self._rooms.left(resource_of(lane)) != 0]
