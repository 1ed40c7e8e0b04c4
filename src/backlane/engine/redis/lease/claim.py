"""Claim: what is asked for, and the leases that a script's answer gives."""

from __future__ import annotations

from typing import Any

from backlane.engine.protocol import Claimed, Wanted
from backlane.engine.redis.limits.resource import unpacked
from backlane.engine.redis.record.sheet import job_record, known, raw, read_row, read_sheet
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.model.breaker import resource_record
from backlane.model.job import DEFAULT_POLICY, JobRecord, Lane, Lease

CLAIM = Script("claim", "model", "moves", "bells", "rooms", "waking", "taking")

_LANES = (Lane.SHARED, Lane.EXCLUSIVE)


async def claim(tx: RedisTx, wanted: Wanted) -> Claimed:
    """See `Verbs.claim`."""
    wall, (answer,) = await tx.call(CLAIM, [packed(wanted)])
    return claimed(wall, answer)


def packed(wanted: Wanted) -> list[Any]:
    """Return what is asked for as a script reads it."""
    return [
        wanted.owner,
        wanted.number,
        wanted.lease_ms,
        wanted.queues,
        wanted.lane,
        [raw(job) for job in wanted.ids],
        wanted.kind.value,
        wanted.departed,
    ]


def claimed(wall: int, answer: list[Any]) -> Claimed:
    """Return what a script answered to one claim."""
    leases, cancelled, next_due_ms, buried, turned, queues = answer
    names = {queues[i]: queues[i + 1].decode() for i in range(0, len(queues), 2)}
    return Claimed(
        leases=[_lease(it, names, wall) for it in leases],
        cancelled=cancelled,
        next_due_ms=next_due_ms,
        buried=[record(it) for it in buried],
        turned=sorted(
            (resource_record(name.decode(), unpacked(kept), wall) for name, kept in turned),
            key=lambda one: one.name,
        ),
    )


def _lease(told: list[Any], names: dict[int, str], wall: int) -> Lease:
    job, text, sheet = told
    row = read_row(text)
    it = read_sheet(sheet)
    return Lease(
        job,
        row.token,
        row.attempt,
        names[row.queue],
        it.task,
        it.body,
        it.headers,
        row.priority,
        _LANES[row.lane],
        it.policy or DEFAULT_POLICY,
        it.group,
        row.enqueued,
        known(row.deadline),
        None if row.parked is False else max(0, wall - row.parked),
        row.crashes,
        resource=it.resource,
    )


def record(told: list[Any]) -> JobRecord:
    """Return a job that a script had to bury."""
    job, row, queue, sheet = told
    return job_record(job, read_row(row), queue.decode(), read_sheet(sheet))
