"""Limits: their numbers, what is in force, and places under them outside of jobs.

What a use stands for is known by its gate (`gate`), which is the same in SQL. Whoever
changes what is in force opens the gates of all who wait: the next claim looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.plan import Sql
from backlane.engine.postgres.store.text import loaded, stored
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.limit import Limit, LimitRecord, Use

LISTED = 1_000

NAMED: Sql[tuple[int, str, bytes | None, bytes | None]] = Sql(
    """
    select id, name, declared, tuned
    from backlane.limits
    where name = any ($1::text[])
    """
)
ADD: Sql[tuple[()]] = Sql(
    """
    insert into backlane.limits (name)
    select name
    from unnest($1::text[]) as given (name)
    order by name
    on conflict do nothing
    """
)
# The queue of that name is under it from now on, or no more.
SET: Sql[tuple[()]] = Sql(
    """
    with known as (
        update backlane.limits
        set declared = $2::bytea,
            concurrency = $3::bigint,
            interval_us = $4::bigint,
            whole_us = $5::bigint,
            per_group = $6::boolean
        where id = $1::int
        returning id, name
    )
    update backlane.queue
    set limit_no = case when not $6 then known.id end
    from known
    where 'queue:' || queue.name = known.name
    """
)
SET_TUNED: Sql[tuple[()]] = Sql(
    """
    update backlane.limits
    set tuned = $2::bytea
    where id = $1::int
    """
)
# Who waits for it may have room now. Served by `blocked_in_line`, from end to end: limits
# are not changed often.
OPEN: Sql[tuple[str]] = Sql(
    """
    with waiting as materialized (
        select distinct gate, queue
        from backlane.blocked
        where gate is not null
        and limit_no = $1::int
    ),
    opened as (
        insert into backlane.opening (at_ms, gate, queue, limit_no)
        select 0, gate, queue, $1
        from waiting
    )
    select name
    from backlane.queue
    where limit_no = $1
    or id = any (array(select queue from waiting))
    """
)
RECORDS: Sql[tuple[Any, ...]] = Sql(
    """
    with held as (
        select limit_no, count(*) as number
        from backlane.holding
        where limit_no > 0
        and (until_ms is null or until_ms > coalesce($2::bigint, backlane.now_ms()))
        group by limit_no
    ),
    running as (
        select queue.limit_no, count(*) as number
        from backlane.lease
        join backlane.queue on queue.id = lease.queue
        where queue.limit_no is not null
        group by queue.limit_no
    ),
    waiting as (
        select limit_no, count(*) as number
        from backlane.blocked
        where gate is not null
        group by limit_no
    )
    select name, declared, tuned,
        coalesce((select number from held where limit_no = id), 0)
            + coalesce((select number from running where limit_no = id), 0),
        coalesce((select number from waiting where limit_no = id), 0)
    from backlane.limits
    where declared is not null
    and ($1::text is null or name = $1)
    order by name collate "C"
    limit 1000
    """
)
IS_QUEUE: Sql[tuple[int]] = Sql(
    """
    select id
    from backlane.queue
    where 'queue:' || name = $1::text
    """
)
# What jobs held of their uses; whose turn it may be then is told.
GIVE_UP: Sql[tuple[str]] = Sql(
    """
    with gone as (
        delete from backlane.holding
        where seq = any ($1::bigint[])
    )
    select name
    from backlane.queue
    where id in (
        select queue
        from backlane.blocked_queues(array(
            select unnest(gates)
            from backlane.job
            where seq = any ($1)
        ))
    )
    """
)
# Who is blocked may be ready in the place of these.
OPEN_GATES: Sql[tuple[None]] = Sql("select backlane.open_gates($1::bigint[])")
TURNS: Sql[tuple[int, str]] = Sql(
    """
    select holding.seq, limits.name
    from backlane.holding
    join backlane.limits on limits.id = -holding.limit_no
    where holding.seq = any ($1::bigint[])
    and limit_no < 0
    order by holding.seq, limits.name
    """
)
TAKE_TURNS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.holding (gate, limit_no, seq)
    select *
    from unnest($1::bigint[], $2::int[], $3::bigint[])
    on conflict do nothing
    """
)
# Places of virtual time are of the queue that they are of no more.
UNPLACED: Sql[tuple[()]] = Sql(
    """
    update backlane.job
    set due_ms = null
    where seq = any ($1::bigint[])
    and due_ms is not null
    """
)
# What these wait for, if for anything, is for the schema to say.
LINED_UP: Sql[tuple[int]] = Sql(
    """
    select come
    from backlane.get_in_line(
        coalesce($8::bigint, backlane.now_ms()),
        coalesce($9::bigint, backlane.now_ms()),
        array(
            select (
                seq, token, parked_ms, attempt, revision, crashes, null, due_ms, waits_for
            )::backlane.waiter
            from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::int[],
                $7::bigint[], $10::int[]) with ordinality as given (seq, token, parked_ms,
                attempt, revision, crashes, due_ms, waits_for, nth)
            order by nth
        )
    )
    """
)
ACQUIRE: Sql[tuple[bool, int | None]] = Sql(
    """
    select is_given, wait_ms
    from backlane.acquire($1::int, $2::text, $3::bytea, $4::bigint, $5::bigint, $6::bigint)
    """
)
RELEASE: Sql[tuple[bool]] = Sql(
    """
    delete from backlane.holding
    where gate = $1::bigint
    and holder = $2::bytea
    returning until_ms > coalesce($3::bigint, backlane.now_ms())
    """
)
RUNG: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane.queue
    where limit_no = $2::int
    or id in (select queue from backlane.blocked_queues(array[$1::bigint]))
    """
)


def gate(number: int, part: str) -> int:
    """Return what a use is known by; the number of a turn is negative."""
    digest = hashlib.sha256(f"{number}:{stored(part)}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def columns(uses: Sequence[Use], numbers: Mapping[str, int]) -> tuple[str, str] | None:
    """Return the gates and numbers of a job's uses as SQL spells arrays, turns first."""
    if not uses:
        return None
    found = [-numbers[use.limit] if use.turn else numbers[use.limit] for use in _inline(uses)]
    gates = [gate(number, use.part) for number, use in zip(found, _inline(uses), strict=True)]
    return _array(gates), _array(found)


def _array(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _inline(uses: Sequence[Use]) -> list[Use]:
    return sorted(dict.fromkeys(uses), key=lambda use: not use.turn)


async def number(tx: PostgresTx, names: Collection[str]) -> dict[str, int]:
    """Return the numbers of these limits; those not seen before get one."""
    if not names:
        return {}
    kept = {stored(name): name for name in names}
    found = {kept[row[1]]: row[0] for row in await tx.rows(NAMED, list(kept))}
    if len(found) < len(kept):
        await tx.rows(ADD, sorted(kept))
        found = {kept[row[1]]: row[0] for row in await tx.rows(NAMED, list(kept))}
    return found


async def declare(tx: PostgresTx, limits: Mapping[str, Limit]) -> None:
    """Take in what the code says of limits."""
    if not limits:
        return
    numbers = await number(tx, limits)
    kept = {stored(name): name for name in limits}
    rows = {kept[row[1]]: row for row in await tx.rows(NAMED, list(kept))}
    for name in sorted(limits):
        _, _, declared, tuned = rows[name]
        if declared is None or decoded(declared) != limits[name]:
            await _set(tx, numbers[name], limits[name], decoded(tuned) if tuned else None)


async def put(tx: PostgresTx, number: int, declared: Limit, tuned: Limit | None) -> None:
    """Let this be all that is said of a limit."""
    await tx.rows(SET_TUNED, number, None if tuned is None else msgspec.json.encode(tuned))
    await _set(tx, number, declared, tuned)


async def _set(tx: PostgresTx, number: int, declared: Limit, tuned: Limit | None) -> None:
    """Declare a limit that is tuned so, and tell all who wait for it."""
    limit = declared if tuned is None else tuned
    rate = limit.rate
    await tx.rows(
        SET,
        number,
        msgspec.json.encode(declared),
        limit.concurrency,
        rate and rate.interval_us,
        rate and rate.burst * rate.interval_us,
        limit.per_group,
    )
    tx.rings.queues |= {loaded(name) for (name,) in await tx.rows(OPEN, number)}


async def list_limits(tx: PostgresTx, name: str | None = None) -> list[LimitRecord]:
    """Return the limits by name."""
    kept = None if name is None else stored(name)
    return [_record(row) for row in await tx.rows(RECORDS, kept, tx.boot_ms)]


async def regulate(tx: PostgresTx, name: str, change: Declared | Tuned) -> LimitRecord | None:
    """Declare or tune a limit."""
    if isinstance(change, Declared):
        await declare(tx, {name: change.limit})
    else:
        known = await tx.rows(NAMED, [stored(name)])
        declared = decoded(known[0][2]) if known and known[0][2] else None
        if declared is None:
            if not await tx.rows(IS_QUEUE, stored(name)):
                return None
            declared = Limit()
        await put(tx, (await number(tx, [name]))[name], declared, change.limit)
    return (await list_limits(tx, name))[0]


async def acquire(
    tx: PostgresTx, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
) -> Acquired:
    """Take a place under a limit outside of jobs, or keep the one there is."""
    known = await tx.rows(NAMED, [stored(use.limit)])
    if declared and not (known and known[0][2]):
        await declare(tx, {use.limit: declared})
    its = known[0][0] if known else (await number(tx, [use.limit]))[use.limit]
    its = -its if use.turn else its
    given = (its, stored(use.part), holder, lease_ms, tx.wall_ms, tx.boot_ms)
    is_given, wait_ms = (await tx.rows(ACQUIRE, *given))[0]
    return Acquired(is_given, wait_ms)


async def release(tx: PostgresTx, use: Use, holder: bytes) -> bool:
    """Give a place back; return whether the holder had it still."""
    known = await tx.rows(NAMED, [stored(use.limit)])
    if not known:
        return False
    its = -known[0][0] if use.turn else known[0][0]
    at = gate(its, use.part)
    rows = await tx.rows(RELEASE, at, holder, tx.boot_ms)
    tx.rings.queues |= {loaded(name) for (name,) in await tx.rows(RUNG, at, its)}
    return bool(rows and rows[0][0])


async def turns_of(
    tx: PostgresTx, found: Sequence[tuple[int, Sequence[Use]]]
) -> dict[int, list[Use]]:
    """Return the turns that jobs hold, by their place in the order of append."""
    using = {seq: uses for seq, uses in found if any(use.turn for use in uses)}
    held: dict[int, list[Use]] = {}
    for seq, name in await tx.rows(TURNS, list(using)) if using else ():
        held.setdefault(seq, []).extend(
            use for use in using[seq] if use.turn and use.limit == loaded(name)
        )
    return held


async def dump_limits(tx: PostgresTx) -> list[LimitRecord]:
    """Return what is said of limits, without what runs and waits."""
    return [replace(one, running=0, blocked=0) for one in await list_limits(tx)]


async def restore_limits(tx: PostgresTx, records: Sequence[LimitRecord]) -> None:
    """Let this be what is said of these limits."""
    numbers = await number(tx, [one.name for one in records])
    for one in sorted(records, key=lambda one: one.name):
        await put(tx, numbers[one.name], one.declared, one.tuned)


def _record(row: tuple[Any, ...]) -> LimitRecord:
    name, declared, tuned, running, blocked = row
    code, person = decoded(declared), decoded(tuned) if tuned else None
    return LimitRecord(
        name=loaded(name),
        limit=code if person is None else person,
        declared=code,
        tuned=person,
        running=running,
        blocked=blocked,
    )


def decoded(kept: bytes) -> Limit:
    """Return a limit from its stored form."""
    return msgspec.json.decode(kept, type=Limit)
