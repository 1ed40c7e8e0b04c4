"""Append: what a batch is packed as, and what a script's answer to it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.protocol import Admission
from backlane.engine.redis.script import Script
from backlane.engine.redis.sheet import field, raw, sheet_of
from backlane.engine.redis.transaction import RedisTx
from backlane.model.job import Job, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import DEFAULT_BOUNDS, Bounds

APPEND = Script("append", "model", "moves", "bells", "insert")


async def append(tx: RedisTx, jobs: Sequence[Job], admission: Admission) -> list[Receipt] | Refusal:
    """See `Verbs.append`."""
    if not jobs:
        return []
    queues: dict[str, int] = {}
    for job in jobs:
        if job.queue not in queues:
            queues[job.queue] = len(queues) + 1
    asked = [
        [name, _bounds(admission.declared.get(name)), _pace(admission.paces.get(name))]
        for name in queues
    ]
    answer = await tx.call(
        APPEND,
        admission.kind.value,
        _bounds(DEFAULT_BOUNDS),
        asked,
        [_packed(job, queues[job.queue]) for job in jobs],
    )
    if not answer[1]:
        return _refusal(answer)
    return _receipts(jobs, queues, answer)


def _packed(job: Job, queue: int) -> tuple[Any, ...]:
    body, headers, key, asked = job.body, job.headers, job.key, job.idempotency
    sheet = sheet_of(job)
    plain = (
        raw(job.id),
        queue,
        job.priority,
        int(job.lane),
        job.delay_ms,
        job.expires_ms,
        job.policy.attempts,
        len(body) + len(headers) if headers else len(body),
        raw(sheet),
    )
    if key is None and job.group is job.resource is job.parent is asked is None:
        return plain
    return (
        *plain,
        None if key is None else field(key.scope, key.name),
        job.group,
        job.resource or None,
        bool(job.parent),
        *(
            (None, None, None)
            if asked is None
            else (field(asked.scope, asked.name), raw(asked.print), asked.window_ms)
        ),
    )


def _bounds(bounds: Bounds | None) -> list[Any] | None:
    if bounds is None:
        return None
    return [
        float(bounds.max_jobs) if bounds.max_jobs > 2**53 else bounds.max_jobs,
        float(bounds.max_bytes) if bounds.max_bytes > 2**53 else bounds.max_bytes,
        bounds.max_wait_ms,
        bounds.group_share,
    ]


def _pace(pace: Pace | None) -> list[Any] | None:
    # Rounded here: what Lua has rounds halves up, and what Python has to even ones.
    return pace and [pace.starts, pace.slots, round(pace.service_ms)]


def _receipts(jobs: Sequence[Job], queues: dict[str, int], answer: list[Any]) -> list[Receipt]:
    wall, _, firsts, fullness, waits = answer
    pressure = [float(it) for it in fullness]
    expected = iter(waits)
    return [
        Receipt(job.id, first, pressure[queues[job.queue] - 1])
        if first
        else Receipt(
            job.id,
            None,
            pressure[queues[job.queue] - 1],
            next(expected),
            wall,
            wall + job.delay_ms if job.delay_ms > 0 else wall,
        )
        for job, first in zip(jobs, firsts, strict=True)
    ]


def _refusal(answer: list[Any]) -> Refusal:
    limit, queue, depth, bound, added, jobs, expected, group, can_fit, job, to = answer[2:]
    return Refusal(
        queue=queue.decode(),
        limit=limit.decode(),
        depth=depth,
        bound=bound,
        added=added,
        jobs=jobs,
        expected_ms=expected,
        group=None if group is None else group.decode(),
        can_fit=bool(can_fit),
        job=job,
        to=None if to is None else to.decode(),
    )
