"""Append: all jobs of a batch or none, and many batches as if one after the other.

There are two ways. The exact one holds the locks of its queues from the sum of what they
hold to the commit. The quick one is a single statement on places granted before
(`credit`), which is how nearly all appends go where there is room.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.errors import SerializationFailure

from backlane.engine.admission import Answer, Batch, Store, weigh
from backlane.engine.plan import Plan
from backlane.engine.postgres.append.booking import append_booked, book
from backlane.engine.postgres.append.credit import Purse
from backlane.engine.postgres.append.enter import Entered, Numbers, answers, enter, needed, prepare
from backlane.engine.postgres.append.reading import IMPATIENT, Reading, keep_repeats
from backlane.engine.postgres.append.replacing import replace
from backlane.engine.postgres.store.plans import AppendPlan, QuickPlan, StepPlan
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Refusal


def plan(purse: Purse, batch: Batch) -> Plan[Answer]:
    """Return the plan of an append: the quick way first, and in a caller's transaction with
    places that are booked for it beforehand."""
    return AppendPlan(
        lambda tx: _append(tx, purse, batch),
        quick=StepPlan(lambda tx: _append_quickly(tx, purse, batch)),
        granting=lambda xid: Plan(lambda tx: book(tx, purse, batch, xid)),
        granted=lambda booked: Plan(lambda tx: append_booked(tx, batch, booked)),
        batch=batch,
        size=len(batch[0]),
        merge=lambda batches: merged(purse, batches),
    )


def merged(purse: Purse, batches: Sequence[Batch]) -> Plan[list[Answer]]:
    """Return the plan of many appends, as if one came after the other."""
    return QuickPlan(
        lambda tx: append_all(tx, purse, batches),
        StepPlan(lambda tx: append_quickly(tx, purse, batches)),
    )


async def _append(tx: PostgresTx, purse: Purse, batch: Batch) -> Answer:
    return (await append_all(tx, purse, [batch]))[0]


async def _append_quickly(tx: PostgresTx, purse: Purse, batch: Batch) -> Answer | None:
    found = await append_quickly(tx, purse, [batch])
    return found[0] if found else None


async def append_all(
    tx: PostgresTx, purse: Purse, batches: Sequence[Batch], *, are_ticks: bool = False
) -> list[Answer]:
    """Answer each batch as if the others had come one by one before it: the exact way."""
    reading = Reading(tx, purse, batches, are_ticks=are_ticks)
    judged = await reading.judge()
    store = reading.store
    entered = None
    if store.asked or any(job.key for job, _ in store.accepted):
        await tx.rows(IMPATIENT)
    if store.asked and len(await keep_repeats(tx, store.asked, store.now_ms)) < len(store.asked):
        raise SerializationFailure("the same was asked for in another transaction")
    taken = [
        batch for one, batch in zip(judged, batches, strict=True) if not isinstance(one, Refusal)
    ]
    if store.accepted or any(admission.limits for _, admission in taken):
        numbers = await prepare(tx, purse, store, taken)
    if store.newcomers:
        await replace(tx, store.newcomers, store.now_ms)
    if store.accepted:
        entered = await enter(tx, numbers, store, {})
        if entered and entered.firsts and store.asked:
            # What was asked for is to be remembered with the job that stands for it.
            raise SerializationFailure("the same job came in by another transaction")
        await reading.grant()
    return answers(batches, judged, entered or Entered(store.now_ms, {}))


async def append_quickly(
    tx: PostgresTx, purse: Purse, batches: Sequence[Batch]
) -> list[Answer] | None:
    """Answer the batches with what was granted before; None: the exact way has to."""
    store = _known(tx, purse, batches)
    if store is None:
        return None
    judged = [weigh(store, jobs, admission) for jobs, admission in batches]
    if not store.accepted or any(isinstance(one, Refusal) for one in judged):
        return None  # a refusal must be exact
    needs = needed(store)
    accounts = purse.spend(needs)
    if accounts is None:
        return None
    try:
        spent = {it.line.id: it.credit for it in accounts}
        entered = await enter(tx, Numbers(purse.resources, purse.limits), store, spent)
    except BaseException:
        purse.forget(list(needs))  # nobody knows now what was spent
        raise
    if entered is None:
        purse.forget(list(needs))
        return None
    return answers(batches, judged, entered)


def _known(tx: PostgresTx, purse: Purse, batches: Sequence[Batch]) -> Store | None:
    """What the process knows of the queues, if that will do."""
    if tx.wall_ms is not None or tx.is_joined:
        return None  # how old it is cannot be told by a clock that stands
    jobs = [job for jobs, _ in batches for job in jobs]
    for _, admission in batches:
        if any(purse.declared.get(name) != it for name, it in admission.limits.items()):
            return None
    for job in jobs:
        if job.uses and not purse.limits.keys() >= {use.limit for use in job.uses}:
            return None
        if job.idempotency or job.key or (job.resource and job.resource not in purse.resources):
            return None
    accounts = purse.lines(jobs)
    if accounts is None:
        return None
    lines = {name: account.line for name, account in accounts.items()}
    for its_jobs, admission in batches:
        for name in {job.queue for job in its_jobs}:
            if lines[name].is_fair != (name in admission.fair):
                return None
    if any(job.group is not None for job in jobs):
        for _, admission in batches:
            for line in lines.values():
                if line.bounds(admission.declared.get(line.name)).group_share is not None:
                    return None
    store = Store(set(), {}, {}, lines, 0, purse.forgotten_ms, 0)
    store.has_followers = True
    return store
