"""Booking: an append in a caller's transaction, on places that are taken for it beforehand.

The places are booked on the caller's transaction id, in a transaction of our own, so that
nobody waits for the caller. They count until the caller's has ended, however it does:
committed, its jobs count themselves; rolled back, nothing does.
"""

from __future__ import annotations

from typing import NamedTuple

from backlane.engine.admission import Answer, Batch, Judging, Store
from backlane.engine.plan import Sql
from backlane.engine.postgres.credit import Purse
from backlane.engine.postgres.enter import Entered, answers, enter, make_line, needed
from backlane.engine.postgres.reading import Reading, keep_repeats, read_repeats
from backlane.engine.postgres.transaction import PostgresTx
from backlane.model.job import Refusal

BOOK: Sql[tuple[int, int]] = Sql(
    """
    insert into backlane.credit (queue, owner, xid, jobs, bytes, until_ms)
    select queue, $1::text, $2::bigint::text::xid8, jobs, bytes, 0
    from unnest($3::int[], $4::bigint[], $5::bigint[]) as given (queue, jobs, bytes)
    returning id, queue
    """
)


# Shared, so that whoever seals the store waits for the caller to end.
LOOKS_BACK: Sql[tuple[str, bytes | None]] = Sql(
    """
    select current_setting('transaction_isolation'), value
    from backlane.meta
    where name = 'seal'
    for share
    """
)


class Booked(NamedTuple):
    """What was judged in a transaction of our own, and the places booked for it."""

    store: Store
    judged: Judging | Refusal
    spent: dict[int, int]  # the credit of each queue


async def book(tx: PostgresTx, purse: Purse, batch: Batch, xid: int) -> Booked:
    """Judge a batch and book places for it until the caller's transaction has ended."""
    reading = Reading(tx, purse, [batch])
    judged = (await reading.judge())[0]
    store = reading.store
    entered = list(store.entered.values())
    if not entered:
        return Booked(store, judged, {})
    for line in entered:
        line.id = line.id or await make_line(tx, line.name, line.kind, line.declared)
    needs = needed(store)
    rows = await tx.rows(
        BOOK,
        purse.owner,
        xid,
        [line.id for line in entered],
        [needs[line.name][0] for line in entered],
        [needs[line.name][1] for line in entered],
    )
    return Booked(store, judged, {queue: credit for credit, queue in rows})


async def append_booked(tx: PostgresTx, purse: Purse, batch: Batch, booked: Booked) -> Answer:
    """Insert in the caller's transaction what was judged, on the places booked for it."""
    store, judged, spent = booked
    if isinstance(judged, Refusal):
        return judged
    # The caller may have asked for the same before, in this transaction.
    asked = [job.idempotency for job, _ in store.accepted if job.idempotency]
    known = await read_repeats(tx, asked, store.now_ms) if asked else {}
    firsts = {}
    for job, _ in store.accepted:
        one = job.idempotency
        before = known.get((one.scope, one.name)) if one else None
        if one and before:
            if before.print != one.print:
                return Refusal(job.queue, "reused", 0, bound=0, can_fit=False, job=job.id)
            firsts[job.id] = before.job
    if firsts:
        store.accepted = [it for it in store.accepted if it[0].id not in firsts]
        store.predicted = []
    entered = Entered(store.now_ms, {})
    if store.accepted:
        found = await enter(tx, purse.resources, store, spent)
        if found is None and await _looks_back(tx):
            found = await enter(tx, purse.resources, store, {})
        if found is None:  # it was sealed in between
            return Refusal(store.accepted[0][0].queue, "moving", 0, bound=0)
        entered = found
    asking = {name: it for name, it in store.asked.items() if name not in known}
    if asking:
        await keep_repeats(tx, asking)
    return answers([batch], [judged], Entered(entered.now_ms, entered.firsts | firsts))[0]


async def _looks_back(tx: PostgresTx) -> bool:
    """Whether the caller's snapshot is older than the booking, which it cannot see then.

    The places count all the same, and until the caller has ended the store is not sealed.
    One that was sealed after the snapshot is a serialization failure.
    """
    isolation, seal = (await tx.rows(LOOKS_BACK))[0]
    return isolation != "read committed" and seal is None
