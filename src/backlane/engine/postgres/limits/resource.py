"""Resources: how their breakers stand, kept for all workers of the schema.

A job's lane is twice the number of its resource plus the kind of executor it needs; 0
is no resource. What a breaker does is decided in `model.breaker`; here it is read,
driven with what a settle or a claim saw, and written back in the same transaction. Its
row is locked from the reading to the commit, in the order of numbers, so that two
workers neither forget each other's outcomes nor wait for each other in a circle. While
a resource is closed a claim reads nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Close, Open
from backlane.model import breaker as breakers
from backlane.model.breaker import CLOSED, Breaker, ResourceRecord, Standing
from backlane.model.outcome import Outcome

_Row = tuple[int, str, bytes | None, int]  # the last is the time

ALL: Sql[_Row] = Sql(
    """
    select id, name, breaker, coalesce($1::bigint, backlane.now_ms())
    from backlane.resource
    order by name collate "C"
    """
)
HELD: Sql[_Row] = Sql(
    """
    select id, name, breaker, coalesce($2::bigint, backlane.now_ms())
    from backlane.resource
    where id = any ($1::int[])
    order by id
    for no key update
    """
)
# Served by resource_not_closed, which is empty while all is well.
DOWN: Sql[_Row] = Sql(
    """
    select id, name, breaker, coalesce($1::bigint, backlane.now_ms())
    from backlane.resource
    where state <> 'closed'
    order by id
    for no key update
    """
)
NAMED: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane.resource
    where name = any ($1::text[])
    """
)
ADD: Sql[tuple[()]] = Sql(
    """
    insert into backlane.resource (name)
    select name
    from unnest($1::text[]) as given (name)
    order by name
    on conflict do nothing
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    update backlane.resource
    set state = $2::text,
        breaker = $3::bytea
    where id = $1::int
    """
)
# For each resource that is down one step into the key of `ready` a queue and kind.
HELD_BACK: Sql[_Row] = Sql(
    """
    select id, name, breaker, coalesce($1::bigint, backlane.now_ms())
    from backlane.resource
    where state <> 'closed'
    and exists (
        select
        from backlane.queue
        cross join lateral (
            select
            from backlane.ready
            where ready.queue = queue.id
            and ready.lane in (2 * resource.id, 2 * resource.id + 1)
            limit 1
        ) as waiting
    )
    """
)
WAITED_FOR_BY: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane.queue
    where exists (
        select
        from backlane.ready
        where ready.queue = queue.id
        and ready.lane in (2 * $1::int, 2 * $1 + 1)
        limit 1
    )
    """
)

NO_RESOURCE = 0


class Resource(msgspec.Struct, frozen=True):
    """A resource as a transaction has it."""

    id: int
    name: str
    breaker: Breaker


async def number(tx: PostgresTx, names: Collection[str]) -> dict[str, int]:
    """Return the numbers of these resources; those not seen before get one."""
    if not names:
        return {}
    found = {name: number for number, name in await tx.rows(NAMED, list(names))}
    if len(found) < len(set(names)):
        await tx.rows(ADD, sorted(set(names) - set(found)))
        found = {name: number for number, name in await tx.rows(NAMED, list(names))}
    return found


# -- driving breakers --


class Rooms:
    """What one claim may take of resources that are not closed, and has taken."""

    __slots__ = ("_given", "_now", "_resources", "left")

    def __init__(self, rows: Sequence[_Row] = ()) -> None:
        self._now = rows[0][3] if rows else 0
        self._resources = {row[0]: _resource(row) for row in rows}
        self._given: dict[int, list[bytes]] = {}
        # By number: how many jobs may be taken, often none. What is not named is not limited.
        self.left = {
            number: breakers.room(one.breaker, self._now) or 0
            for number, one in self._resources.items()
        }

    def give(self, number: int, job: bytes) -> None:
        """Note that a job was taken."""
        if number in self.left:
            self.left[number] -= 1
            self._given.setdefault(number, []).append(job)

    async def store(self, tx: PostgresTx) -> list[ResourceRecord]:
        """Tell breakers of their trials; return those of which it is the first one."""
        told = []
        for number, jobs in self._given.items():
            one = self._resources[number]
            breaker = breakers.tried(one.breaker, jobs, self._now)
            if await _keep(tx, one, breaker, self._now):
                told.append(breakers.resource_record(one.name, breaker, self._now))
        return sorted(told, key=lambda record: record.name)


async def rooms(tx: PostgresTx) -> Rooms:
    """Look how much may be taken of the resources that are not closed, and lock those."""
    return Rooms(await tx.rows(DOWN, tx.wall_ms))


async def feed(
    tx: PostgresTx, ended: Mapping[int, Sequence[tuple[bytes, Outcome]]]
) -> list[ResourceRecord]:
    """Tell breakers what ended, by number; return those that turned, and those open."""
    told = []
    for row in await tx.rows(HELD, sorted(ended), tx.wall_ms):
        one, now = _resource(row), row[3]
        draw = breakers.draw(one.name, now)
        breaker = breakers.settled(one.breaker, ended[one.id], now, draw)
        has_turned = await _keep(tx, one, breaker, now)
        if has_turned or breaker.state is Standing.OPEN:
            told.append(breakers.resource_record(one.name, breaker, now))
    return sorted(told, key=lambda record: record.name)


async def next_trial_ms(tx: PostgresTx) -> int | None:
    """Return until when what waits for a resource may be tried, if not at once."""
    rows = await tx.rows(HELD_BACK, tx.wall_ms)
    waits = [breakers.opens_in_ms(_resource(row).breaker, row[3]) for row in rows]
    # What may be tried now is taken by whoever has a slot for it, and is no reason to wake.
    return min((wait for wait in waits if wait), default=None)


async def _keep(tx: PostgresTx, one: Resource, breaker: Breaker, now: int) -> bool:
    """Store how a breaker stands now; return whether it stands otherwise than before."""
    if breaker == one.breaker:
        return False
    await tx.rows(KEEP, one.id, str(breaker.state), msgspec.msgpack.encode(breaker))
    has_turned = breaker.state is not one.breaker.state
    if has_turned or breakers.room(breaker, now):
        await _ring(tx, one)
    return has_turned


async def _ring(tx: PostgresTx, one: Resource) -> None:
    """Who waits may now claim, or has another time to look again."""
    tx.rings.queues |= {name for (name,) in await tx.rows(WAITED_FOR_BY, one.id)}


# -- for people, and for a move --


async def list_resources(tx: PostgresTx) -> list[ResourceRecord]:
    """Return what is known of all resources, by name."""
    rows = await tx.rows(ALL, tx.wall_ms)
    return [breakers.resource_record(row[1], _resource(row).breaker, row[3]) for row in rows]


async def steer(tx: PostgresTx, name: str, change: Open | Close) -> ResourceRecord | None:
    """Open or close a breaker by hand."""
    numbers = [number for number, _ in await tx.rows(NAMED, [name])]
    for row in await tx.rows(HELD, numbers, tx.wall_ms):
        one, now = _resource(row), row[3]
        if isinstance(change, Open):
            breaker = breakers.opened(one.breaker, change.for_ms, now)
        else:
            breaker = breakers.closed(now)
        await _keep(tx, one, breaker, now)
        await _ring(tx, one)
        return breakers.resource_record(name, breaker, now)
    return None


async def breakers_of_all(tx: PostgresTx) -> dict[str, Breaker]:
    """Return how all breakers stand, by resource."""
    return {row[1]: _resource(row).breaker for row in await tx.rows(ALL, tx.wall_ms)}


async def keep_all(tx: PostgresTx, breakers_of: Mapping[str, Breaker]) -> None:
    """Let the breakers of these resources stand so, whatever they were."""
    numbers = await number(tx, breakers_of)
    rows = [
        (numbers[name], str(it.state), msgspec.msgpack.encode(it))
        for name, it in sorted(breakers_of.items(), key=lambda pair: numbers[pair[0]])
    ]
    await tx.each(KEEP, rows)


def _resource(row: _Row) -> Resource:
    return Resource(row[0], row[1], _breaker(row[2]))


def _breaker(stored: bytes | None) -> Breaker:
    """A damaged breaker reads as closed: work must go on."""
    if stored is None:
        return CLOSED
    try:
        return msgspec.msgpack.decode(stored, type=Breaker)
    except msgspec.MsgspecError:
        return CLOSED
