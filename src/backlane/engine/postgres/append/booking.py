"""Booking: an append in a caller's transaction, on places that are taken for it beforehand.

The places are booked on the caller's transaction id, in a transaction of our own, so that
nobody waits for the caller. They count until the caller's has ended, however it does:
committed, its jobs count themselves; rolled back, nothing does.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from psycopg.errors import SerializationFailure

from backlane.engine.admission import Answer, Batch, Judging, Repeats, Store
from backlane.engine.plan import Sql
from backlane.engine.postgres.append.credit import Purse
from backlane.engine.postgres.append.enter import Entered, Numbers, answers, enter, needed, prepare
from backlane.engine.postgres.append.reading import (
    Reading,
    forget_repeats,
    keep_repeats,
    read_repeats,
)
from backlane.engine.postgres.append.replacing import replace
from backlane.engine.postgres.store.text import stored
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Refusal

BOOK: Sql[tuple[int, int]] = Sql(
    """
    insert into backlane.credit (queue, owner, xid, jobs, bytes, until_ms)
    select queue, $1::text, $2::bigint::text::xid8, jobs, bytes, 0
    from unnest($3::int[], $4::bigint[], $5::bigint[]) as given (queue, jobs, bytes)
    returning id, queue
    """
)


# Places of groups, where a group has no more than a share: counted as those of a queue are.
BOOK_GROUPS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.group_tally (queue, jobs, name, xid)
    select queue, jobs, name, $1::bigint::text::xid8
    from unnest($2::int[], $3::int[], $4::text[]) as given (queue, jobs, name)
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
    numbers: Numbers


async def book(tx: PostgresTx, purse: Purse, batch: Batch, xid: int) -> Booked:
    """Judge a batch and book places for it until the caller's transaction has ended."""
    reading = Reading(tx, purse, [batch])
    judged = (await reading.judge())[0]
    store = reading.store
    entered = list(store.entered.values())
    if not entered:
        if not isinstance(judged, Refusal) and batch[1].limits:
            await prepare(tx, purse, store, [batch])
        return Booked(store, judged, {}, Numbers({}, {}))
    numbers = await prepare(tx, purse, store, [batch])
    needs = needed(store)
    rows = await tx.rows(
        BOOK,
        purse.owner,
        xid,
        [line.id for line in entered],
        [needs[line.name][0] for line in entered],
        [needs[line.name][1] for line in entered],
    )
    groups = Counter(
        (line.id, stored(job.group)) for job, line in store.accepted if job.group is not None
    )
    if groups:
        queues, names = zip(*groups, strict=True)
        await tx.rows(BOOK_GROUPS, xid, queues, list(groups.values()), names)
    return Booked(store, judged, {queue: credit for credit, queue in rows}, numbers)


async def append_booked(tx: PostgresTx, batch: Batch, booked: Booked) -> Answer:
    """Insert in the caller's transaction what was judged, on the places booked for it."""
    store, judged = booked.store, booked.judged
    if isinstance(judged, Refusal):
        return judged
    if store.newcomers:
        replaced = await replace(tx, store.newcomers, store.now_ms)
        if len(replaced) < len(store.newcomers):
            raise SerializationFailure("what was to be replaced has started meanwhile")
    # The same may have been asked for before in this transaction, or meanwhile in another.
    kept = await keep_repeats(tx, store.asked, store.now_ms) if store.asked else []
    asked = [job.idempotency for job, _ in store.accepted if job.idempotency]
    rest = [one for one in asked if (one.scope, one.name) not in kept]
    known = await read_repeats(tx, rest, store.now_ms) if rest else {}
    refusal = _reused(store, known)
    entered = None if refusal else await _entered(tx, booked, known)
    if entered is None:
        if kept:  # the caller may commit all the same, and come again with these
            await forget_repeats(tx, kept)
        return refusal or Refusal(store.accepted[0][0].queue, "moving", 0, bound=0)
    return answers([batch], [judged], entered)[0]


def _reused(store: Store, known: Repeats) -> Refusal | None:
    """Refuse a request that is known by now, and asked for something else."""
    for job, _ in store.accepted:
        one = job.idempotency
        before = known.get((one.scope, one.name)) if one else None
        if one and before and before.print != one.print:
            return Refusal(job.queue, "reused", 0, bound=0, can_fit=False, job=job.id)
    return None


async def _entered(tx: PostgresTx, booked: Booked, known: Repeats) -> Entered | None:
    """Insert all but what is known by now; None: the store was sealed in between."""
    store = booked.store
    firsts = {
        job.id: known[one.scope, one.name].job
        for job, _ in store.accepted
        if (one := job.idempotency) and (one.scope, one.name) in known
    }
    if firsts:
        store.accepted = [it for it in store.accepted if it[0].id not in firsts]
        store.predicted = []
    if not store.accepted:
        return Entered(store.now_ms, firsts)
    found = await enter(tx, booked.numbers, store, booked.spent)
    if found is None and await _looks_back(tx):
        found = await enter(tx, booked.numbers, store, {})
    return found and Entered(found.now_ms, found.firsts | firsts)


async def _looks_back(tx: PostgresTx) -> bool:
    """Whether the caller's snapshot is older than the booking, which it cannot see then.

    The places count all the same, and until the caller has ended the store is not sealed.
    One that was sealed after the snapshot is a serialization failure.
    """
    isolation, seal = (await tx.rows(LOOKS_BACK))[0]
    return isolation != "read committed" and seal is None
