"""Resources: how their breakers stand, kept for all workers of the file.

A job's lane is twice the number of its resource plus the kind of executor it needs; 0
is no resource. What a breaker does is decided in `model.breaker`; here it is read,
driven with what a settle or a claim saw, and written back in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.protocol import Close, Open
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model import breaker as breakers
from backlane.model.breaker import CLOSED, Breaker, ResourceRecord, Standing
from backlane.model.clock import Clock
from backlane.model.job import Lane
from backlane.model.outcome import Outcome

ALL: Sql[tuple[int, str, bytes | None]] = Sql(
    """
    select id, name, breaker
    from backlane_resource
    order by name
    """
)
SOME: Sql[tuple[int, str, bytes | None]] = Sql(
    """
    select id, name, breaker
    from backlane_resource
    where id in (select value from carray(?))
    """
)
NAMED: Sql[tuple[int, str, bytes | None]] = Sql(
    """
    select id, name, breaker
    from backlane_resource
    where name in (select value from carray(?))
    """
)
ADD: Sql[tuple[()]] = Sql(
    """
    insert into backlane_resource (name)
    values (?)
    on conflict do nothing
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    update backlane_resource
    set state = ?,
        breaker = ?
    where id = ?
    """
)
# Served by backlane_resource_not_closed, which is empty while all is well; for each row
# one step into the key of backlane_ready a queue.
HELD_BACK: Sql[tuple[int, str, bytes | None]] = Sql(
    """
    select id, name, breaker
    from backlane_resource as resource
    where state <> 'closed'
    and exists (
        select 1
        from backlane_queue as queue
        cross join backlane_ready as ready
        where ready.queue = queue.id
        and ready.lane in (2 * resource.id, 2 * resource.id + 1)
    )
    """
)
WAITED_FOR_BY: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane_queue as queue
    where exists (
        select 1
        from backlane_ready as ready
        where ready.queue = queue.id
        and ready.lane in (2 * ?1, 2 * ?1 + 1)
    )
    """
)
# The lanes of a queue in which something is ready: one step into the key for each.
LANES: Sql[tuple[int, int]] = Sql(
    """
    with recursive used (lane) as (
        select (
            select lane
            from backlane_ready
            where queue = ?1
            order by lane
            limit 1
        )
        union all
        select (
            select ready.lane
            from backlane_ready as ready
            where queue = ?1
            and ready.lane > used.lane
            order by ready.lane
            limit 1
        )
        from used
        where used.lane is not null
    )
    select ?1, lane
    from used
    where lane is not null
    """
)

NO_RESOURCE = 0


class Resource(msgspec.Struct, frozen=True):
    """A resource as a transaction has it."""

    id: int
    name: str
    breaker: Breaker


def resource_of(lane: int) -> int:
    """Return the number of the resource whose lane this is."""
    return lane >> 1


def kind_of(lane: int) -> Lane:
    """Return the kind of executor that the jobs of a lane need."""
    return KINDS[lane & 1]


KINDS = (Lane.SHARED, Lane.EXCLUSIVE)


async def number(tx: SqliteTx, names: set[str]) -> dict[str, int]:
    """Return the numbers of these resources; those not seen before get one."""
    if not names:
        return {}
    rows = await tx.rows(NAMED, array(list(names)))
    if len(rows) < len(names):
        await tx.each(ADD, [(name,) for name in sorted(names)])
        rows = await tx.rows(NAMED, array(list(names)))
    return {name: number for number, name, _ in rows}


async def read(tx: SqliteTx, numbers: set[int]) -> dict[int, Resource]:
    """Return these resources by number, those that exist."""
    numbers = numbers - {NO_RESOURCE}
    rows = await tx.rows(SOME, integers(list(numbers))) if numbers else []
    return {row[0]: _resource(row) for row in rows}


# -- driving breakers --


class Rooms:
    """What one claim may take of the resources, and has taken."""

    __slots__ = ("_given", "_left", "_now", "_resources", "are_limited", "has_any")

    def __init__(self, now: int, *, has_any: bool) -> None:
        self.has_any = has_any  # resource in the store: otherwise nothing is to be read
        self.are_limited = False
        self._now = now
        self._resources: dict[int, Resource] = {}
        self._left: dict[int, int | None] = {}
        self._given: dict[int, list[bytes]] = {}

    async def read(self, tx: SqliteTx, numbers: set[int]) -> None:
        """Look how much may be taken of these resources."""
        new = await read(tx, numbers - self._resources.keys())
        self._resources |= new
        for number, one in new.items():
            self._left[number] = breakers.room(one.breaker, self._now)
            self.are_limited |= self._left[number] is not None

    def left(self, number: int) -> int | None:
        """How many jobs may be taken still; None: any number."""
        return self._left.get(number)

    def name(self, lane: int) -> str | None:
        one = self._resources.get(resource_of(lane))
        return one.name if one else None

    def give(self, number: int, job: bytes) -> None:
        """Note that a job was taken."""
        left = self._left.get(number)
        if left is not None:
            self._left[number] = left - 1
            self._given.setdefault(number, []).append(job)

    async def store(self, tx: SqliteTx) -> list[ResourceRecord]:
        """Tell breakers of their trials; return those of which it is the first one."""
        told = []
        for number, jobs in self._given.items():
            one = self._resources[number]
            breaker = breakers.tried(one.breaker, jobs, self._now)
            if await _keep(tx, one, breaker, self._now):
                told.append(breakers.resource_record(one.name, breaker, self._now))
        return sorted(told, key=lambda record: record.name)


async def feed(
    tx: SqliteTx, clock: Clock, ended: Mapping[int, Sequence[tuple[bytes, Outcome]]]
) -> list[ResourceRecord]:
    """Tell breakers what ended, by number; return those that turned, and those open."""
    now = clock.wall_ms()
    told = []
    for one in (await read(tx, set(ended))).values():
        draw = breakers.draw(one.name, now)
        breaker = breakers.settled(one.breaker, ended[one.id], now, draw)
        has_turned = await _keep(tx, one, breaker, now)
        if has_turned or breaker.state is Standing.OPEN:
            told.append(breakers.resource_record(one.name, breaker, now))
    return sorted(told, key=lambda record: record.name)


async def next_trial_ms(tx: SqliteTx, clock: Clock) -> int | None:
    """Return until when what waits for a resource may be tried, if not at once."""
    now = clock.wall_ms()
    waits = [breakers.opens_in_ms(_resource(row).breaker, now) for row in await tx.rows(HELD_BACK)]
    # What may be tried now is taken by whoever has a slot for it, and is no reason to wake.
    return min((wait for wait in waits if wait), default=None)


async def _keep(tx: SqliteTx, one: Resource, breaker: Breaker, now: int) -> bool:
    """Store how a breaker stands now; return whether it stands otherwise than before."""
    if breaker == one.breaker:
        return False
    await tx.rows(KEEP, str(breaker.state), msgspec.msgpack.encode(breaker), one.id)
    has_turned = breaker.state is not one.breaker.state
    if has_turned or breakers.room(breaker, now):
        await _ring(tx, one)
    return has_turned


async def _ring(tx: SqliteTx, one: Resource) -> None:
    """Who waits may now claim, or has another time to look again."""
    tx.rings.queues |= {name for (name,) in await tx.rows(WAITED_FOR_BY, one.id)}


# -- for people --


async def list_resources(tx: SqliteTx, clock: Clock) -> list[ResourceRecord]:
    """Return what is known of all resources, by name."""
    now = clock.wall_ms()
    rows = [_resource(row) for row in await tx.rows(ALL)]
    return [breakers.resource_record(one.name, one.breaker, now) for one in rows]


async def breakers_of_all(tx: SqliteTx) -> dict[str, Breaker]:
    """Return how all breakers stand, by resource."""
    return {one.name: one.breaker for one in map(_resource, await tx.rows(ALL))}


async def keep_all(tx: SqliteTx, breakers_of: Mapping[str, Breaker]) -> None:
    """Let the breakers of these resources stand so, whatever they were."""
    numbers = await number(tx, set(breakers_of))
    rows = [
        (str(it.state), msgspec.msgpack.encode(it), numbers[name])
        for name, it in breakers_of.items()
    ]
    await tx.each(KEEP, rows)


async def steer(
    tx: SqliteTx, clock: Clock, name: str, change: Open | Close
) -> ResourceRecord | None:
    """Open or close a breaker by hand."""
    now = clock.wall_ms()
    for row in await tx.rows(NAMED, array([name])):
        one = _resource(row)
        if isinstance(change, Open):
            breaker = breakers.opened(one.breaker, change.for_ms, now)
        else:
            breaker = breakers.closed(now)
        await _keep(tx, one, breaker, now)
        await _ring(tx, one)
        return breakers.resource_record(name, breaker, now)
    return None


def _resource(row: tuple[int, str, bytes | None]) -> Resource:
    number, name, stored = row
    return Resource(number, name, _breaker(stored))


def _breaker(stored: bytes | None) -> Breaker:
    """A damaged breaker reads as closed: work must go on."""
    if stored is None:
        return CLOSED
    try:
        return msgspec.msgpack.decode(stored, type=Breaker)
    except msgspec.MsgspecError:
        return CLOSED
