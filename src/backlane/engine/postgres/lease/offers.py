"""Offer and withdraw: which ready jobs a transport is to carry next.

One call of the schema for all queues. Where a resource is down, how many of its jobs may be
tried is for its breaker to say, so that is read first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.offering import Carried, Offer, Offered
from backlane.engine.plan import Sql
from backlane.engine.postgres.lease.floor import LOWEST
from backlane.engine.postgres.lease.memory import Memory
from backlane.engine.postgres.lease.turn import ring
from backlane.engine.postgres.lease.windows import Begin
from backlane.engine.postgres.limits import resource
from backlane.engine.postgres.limits.resource import Rooms
from backlane.engine.postgres.record.record import records_of
from backlane.engine.postgres.store.text import loaded_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Lane

OFFER: Sql[tuple[Any, ...]] = Sql(
    """
    select *
    from backlane.offer($1::bigint, $2::bigint, $3::bigint, $4::text[], $5::int[], $6::int[],
        $7::bigint[], $8::bigint[], $9::bigint, $10::int[], $11::int[], $12::int[],
        $13::bigint[], $14::bigint[], $15::int[], $16::int[])
    """
)
WITHDRAW: Sql[tuple[None]] = Sql("select backlane.withdraw($1::bytea[])")
# As a claim reads them, but nothing of them is changed. Served by resource_not_closed.
DOWN: Sql[tuple[int, str, bytes | None, int]] = Sql(
    """
    select id, name, breaker, coalesce($1::bigint, backlane.now_ms())
    from backlane.resource
    where state <> 'closed'
    """
)


async def offer(tx: PostgresTx, memory: Memory, offers: Sequence[Offer], for_ms: int) -> Offered:
    """Name ready jobs that are not offered, and remember that they are."""
    is_ours = tx.wall_ms is not None  # places are of a clock that may go anywhere
    begin = Begin.all(len(offers)) if is_ours else memory.windows.begin(offers)
    given = (
        tx.wall_ms,
        tx.boot_ms,
        for_ms,
        [one.queue for one in offers],
        [int(one.lane) for one in offers],
        [one.window for one in offers],
        [one.void_ms for one in offers],
        begin.marks_since_ms,
        LOWEST if is_ours else memory.floors.since(),
        *begin[1:],
    )
    rows = await tx.rows(OFFER, *given, None, None)
    trial_ms: int | None = None
    if not rows:
        left = Rooms(await tx.rows(DOWN, tx.wall_ms)).left
        rows = await tx.rows(OFFER, *given, list(left), list(left.values()))
        trial_ms = await resource.next_trial_ms(tx)
    return await _read(tx, memory, offers, begin, rows, trial_ms)


async def withdraw(tx: PostgresTx, jobs: Sequence[bytes]) -> None:
    """Forget that these are offered."""
    if jobs:
        await tx.rows(WITHDRAW, jobs)


async def _read(
    tx: PostgresTx,
    memory: Memory,
    offers: Sequence[Offer],
    begin: Begin,
    rows: Sequence[tuple[Any, ...]],
    trial_ms: int | None,
) -> Offered:
    jobs: list[Carried] = []
    more: list[tuple[str, Lane]] = []
    doubtful: list[tuple[str, Lane]] = []
    for nth, job, group, numbers, _, _ in rows[:-1]:
        one = offers[nth - 1]
        if job is not None:
            jobs.append(Carried(job, one.queue, one.lane, loaded_or_none(group)))
            continue
        queue, has_more, is_doubtful, since_ms, is_long, *begins = numbers
        memory.queues[queue] = one.queue
        if tx.wall_ms is None:
            memory.windows.keep(one, since_ms, is_long=bool(is_long), begins=begins)
        if has_more:
            more.append((one.queue, one.lane))
        if is_doubtful:
            doubtful.append((one.queue, one.lane))
    _, _, _, numbers, ids, rung = rows[-1]
    now_ms, due_ms, buried, looked_us = numbers
    memory.windows.looked(begin, looked_us)
    if due_ms != 0:
        memory.floors.keep_since(now_ms)
    if rung:
        await ring(tx, memory, rung)
    tx.rings.jobs += ids[buried:]
    waits = [wait for wait in (due_ms, trial_ms) if wait is not None]
    return Offered(
        jobs,
        now_ms,
        more,
        doubtful,
        min(waits, default=None),
        await records_of(tx, ids[:buried]),
    )
