"""Limits: what is declared and tuned, and places taken outside of jobs."""

from __future__ import annotations

from collections.abc import Mapping

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits.gates import Gates, decode_limit, encode_limit
from backlane.engine.sqlite.limits.letting import open_gates
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.limit import Limit, LimitRecord, Use, token_in_us

LISTED = 1_000
NOTHING = Limit()

KNOWN: Sql[tuple[str, bytes]] = Sql(
    """
    select name, declared
    from backlane_limit
    where name in (select value from carray(?))
    """
)
DECLARE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_limit (name, declared)
    values (?, ?)
    on conflict do update
    set declared = excluded.declared
    """
)
TUNE: Sql[tuple[()]] = Sql(
    """
    update backlane_limit
    set tuned = ?
    where name = ?
    """
)
# For each of at most 1,000 limits its gates are one range of backlane_gate_use.
LISTED_LIMITS: Sql[tuple[str, bytes, bytes | None, int, int, int]] = Sql(
    """
    select name, declared, tuned,
        (
            select coalesce(sum(running), 0)
            from backlane_gate as gate
            where gate.name = bound.name
            and turn = 0
        ),
        (
            select count(*)
            from backlane_gate as gate
            cross join backlane_acquired as acquired on acquired.gate = gate.id
            where gate.name = bound.name
            and turn = 0
            and until_ms > ?1
        ),
        (
            select coalesce(sum(blocked), 0)
            from backlane_gate as gate
            cross join backlane_gate_queue as line on line.gate = gate.id
            where gate.name = bound.name
            and turn = 0
        )
    from backlane_limit as bound
    where name >= coalesce(?2, '')
    and (?2 is null or name = ?2)
    order by name
    limit ?3
    """
)
QUEUE_RUNNING: Sql[tuple[int]] = Sql(
    """
    select coalesce(sum(running), 0)
    from backlane_counter
    where queue = (select id from backlane_queue where name = ?)
    """
)
QUEUE: Sql[tuple[int]] = Sql(
    """
    select id
    from backlane_queue
    where name = ?
    """
)
GATES_OF: Sql[tuple[int]] = Sql(
    """
    select id
    from backlane_gate
    where name = ?
    """
)
PAST_PLACES: Sql[tuple[()]] = Sql(
    """
    delete from backlane_acquired
    where gate = ?
    and until_ms <= ?
    """
)
HAS_PLACE: Sql[tuple[int]] = Sql(
    """
    select until_ms
    from backlane_acquired
    where gate = ?
    and holder = ?
    """
)
PLACE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_acquired (gate, holder, until_ms)
    values (?, ?, ?)
    on conflict do update
    set until_ms = excluded.until_ms
    """
)
RELEASE: Sql[tuple[int, int]] = Sql(
    """
    delete from backlane_acquired
    where holder = ?
    and gate = (select id from backlane_gate where name = ? and part = ? and turn = ?)
    returning gate, until_ms
    """
)
LAPSED_PLACES: Sql[tuple[int]] = Sql(
    """
    delete from backlane_acquired
    where until_ms <= ?
    returning gate
    """
)
# Served by backlane_gate_spent: buckets that are full again, and that nobody needs.
FORGET_FULL: Sql[tuple[int]] = Sql(
    """
    delete from backlane_gate
    where id in (
        select id
        from backlane_gate as full
        where spent_us > 0
        and spent_us <= ?
        and running = 0
        and holder is null
        and not exists (select 1 from backlane_gate_queue where gate = full.id)
        and not exists (select 1 from backlane_acquired where gate = full.id)
        order by spent_us
        limit ?
    )
    returning id
    """
)


def queue_of(limit: str) -> str:
    """The queue whose own limit this is; "": it is another one's."""
    kind, _, queue = limit.partition(":")
    return queue if kind == "queue" else ""


# -- what is declared and tuned --


async def list_limits(tx: SqliteTx, clock: Clock) -> list[LimitRecord]:
    """Return the limits by name."""
    return await _records(tx, clock, None)


async def regulate(
    tx: SqliteTx, clock: Clock, name: str, change: Declared | Tuned
) -> LimitRecord | None:
    """Declare or tune a limit; what it lets in is for the next claim."""
    if isinstance(change, Declared):
        await declare_all(tx, {name: change.limit})
    else:
        if not await tx.rows(KNOWN, array([name])):
            if not await tx.rows(QUEUE, queue_of(name)):
                return None
            await tx.rows(DECLARE, name, encode_limit(NOTHING))
        tuned = None if change.limit is None else encode_limit(change.limit)
        await tx.rows(TUNE, tuned, name)
        await _open(tx, name)
    return (await _records(tx, clock, name))[0]


async def declare_all(tx: SqliteTx, limits: Mapping[str, Limit]) -> None:
    """Take in what the code says of limits."""
    known = dict(await tx.rows(KNOWN, array(list(limits))))
    for name, limit in limits.items():
        if decode_limit(known.get(name)) != limit:
            await tx.rows(DECLARE, name, encode_limit(limit))
            await _open(tx, name)


async def restore(tx: SqliteTx, record: LimitRecord) -> None:
    """Take the settings of a limit from another store."""
    await tx.rows(DECLARE, record.name, encode_limit(record.declared))
    tuned = None if record.tuned is None else encode_limit(record.tuned)
    await tx.rows(TUNE, tuned, record.name)
    await _open(tx, record.name)


async def _records(tx: SqliteTx, clock: Clock, name: str | None) -> list[LimitRecord]:
    records = []
    for row in await tx.rows(LISTED_LIMITS, clock.boot_ms(), name, LISTED):
        declared = decode_limit(row[1]) or NOTHING
        tuned = decode_limit(row[2])
        limit = tuned or declared
        queue = queue_of(row[0])
        own = (await tx.rows(QUEUE_RUNNING, queue))[0][0] if queue and not limit.per_group else 0
        records.append(
            LimitRecord(
                name=row[0],
                limit=limit,
                declared=declared,
                tuned=tuned,
                running=row[3] + row[4] + own,
                blocked=row[5],
            )
        )
    return records


async def _open(tx: SqliteTx, name: str) -> None:
    """There may be room: tell those that wait."""
    gates = {gate for (gate,) in await tx.rows(GATES_OF, name)}
    await open_gates(tx, gates, now_us=0)
    if queue_of(name):
        tx.rings.queues.add(queue_of(name))


# -- places outside of jobs --


async def acquire(  # long: one decision, read down
    tx: SqliteTx, clock: Clock, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
) -> Acquired:
    """Take a place, or keep the one there is."""
    if declared is not None and not await tx.rows(KNOWN, array([use.limit])):
        await declare_all(tx, {use.limit: declared})
    gates = Gates(tx, clock)
    await gates.read({use: ()})
    gate = gates[use]
    await tx.rows(PAST_PLACES, gate.id, clock.boot_ms())
    is_given = bool(await tx.rows(HAS_PLACE, gate.id, holder))
    wait_ms = None
    if not is_given:
        queue = queue_of(use.limit)
        is_own = queue and use == Use(use.limit) and gate.limit and not gate.limit.per_group
        running = (await tx.rows(QUEUE_RUNNING, queue))[0][0] if is_own else 0
        gate.running += running
        is_given = gate.room(gates.now_us) != 0
        gate.running -= running
        if is_given:
            gate.spend(1, gates.now_us)
        elif gate.limit is not None and gate.limit.rate is not None and not use.turn:
            wait_ms = -(-token_in_us(gate.spent_us, gate.limit.rate, gates.now_us) // 1000)
    if is_given:
        await tx.rows(PLACE, gate.id, holder, clock.boot_ms() + lease_ms)
    await gates.store()
    return Acquired(is_given=is_given, wait_ms=wait_ms or None)


async def release(tx: SqliteTx, clock: Clock, use: Use, holder: bytes) -> bool:
    """Give a place back; return whether the holder had it still."""
    rows = await tx.rows(RELEASE, holder, use.limit, use.part, int(use.turn))
    for gate, _ in rows:
        await open_gates(tx, {gate}, clock.wall_ms() * 1000)
        if queue_of(use.limit) and not use.part:
            tx.rings.queues.add(queue_of(use.limit))
    return any(until_ms > clock.boot_ms() for _, until_ms in rows)


async def free_lapsed(tx: SqliteTx, clock: Clock) -> None:
    """Places whose lease ended are free."""
    gates = {gate for (gate,) in await tx.rows(LAPSED_PLACES, clock.boot_ms())}
    await open_gates(tx, gates, clock.wall_ms() * 1000)


async def forget_full(tx: SqliteTx, clock: Clock, limit: int) -> int:
    """Free places whose lease ended, and forget what is as if it had never been used."""
    await free_lapsed(tx, clock)
    return len(await tx.rows(FORGET_FULL, clock.wall_ms() * 1000, max(0, limit)))
