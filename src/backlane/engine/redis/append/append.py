"""Append: what a batch is packed as, and what a script's answer to it says."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from backlane.engine.protocol import Admission
from backlane.engine.redis.bells.bell import Topic, channel
from backlane.engine.redis.limits.limits import packed_limit
from backlane.engine.redis.record.sheet import (
    UNTIL,
    field,
    marks_of,
    packed_edges,
    packed_uses,
    raw,
    sheet_of,
)
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.scheduling import Tick
from backlane.errors import TooLarge
from backlane.model.ids import id_ms
from backlane.model.job import DEFAULT_RULE, Job, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import DEFAULT_BOUNDS, DEFAULT_MAX_BYTES, DEFAULT_MAX_JOBS, Bounds

_PARTS = ("model", "moves", "bells", "limiting", "insert", "sheets", "admission", "append")
APPEND = Script("append_any", *_PARTS)
TICK = Script("tick", *_PARTS, "schedules")
APPEND_PLAIN = Script("append_plain")

BATCH_BYTES = 256 * 1024 * 1024  # a server takes no argument of twice as much, and is busy for 4 s


async def append(tx: RedisTx, jobs: Sequence[Job], admission: Admission) -> list[Receipt] | Refusal:
    """See `Verbs.append`.

    Raises:
        TooLarge: the batch is more than the server can take at once.
    """
    if not jobs:
        return []
    _check_size(jobs)
    if not admission.limits and not admission.fair and _are_plain(jobs):
        receipts = await _append_plain(tx, jobs, admission)
        if receipts is not None:
            return receipts
    queues = _numbered(jobs)
    answer = await tx.call(APPEND, *_asked(jobs, queues, admission))
    return _receipts(jobs, queues, answer) if answer[1] else _refusal(answer)


async def append_tick(tx: RedisTx, tick: Tick, admission: Admission) -> bool | Refusal:
    """Apply a schedule; False: another was first.

    Raises:
        TooLarge: its jobs are more than the server can take at once.
    """
    _check_size(tick.jobs)
    asked = _asked(tick.jobs, _numbered(tick.jobs), admission)
    next_ms = False if tick.next_ms is None else tick.next_ms
    answer = await tx.call(TICK, *asked, [tick.name, tick.revision, tick.last_ms, next_ms])
    return answer[1] == 1 if answer[1] else _refusal(answer)


def _numbered(jobs: Sequence[Job]) -> dict[str, int]:
    """The queues of jobs, numbered from 1 in the order in which they are met."""
    return {name: at for at, name in enumerate(dict.fromkeys(job.queue for job in jobs), 1)}


def _asked(jobs: Sequence[Job], queues: dict[str, int], admission: Admission) -> tuple[Any, ...]:
    """What `lua/append.lua` asks for."""
    names = [*queues]
    if any(job.rule.conflict in ("replace", "debounce") for job in jobs):
        names += [name for name in admission.declared if name not in queues]  # of its holder
    asked = [
        [
            name,
            _bounds(admission.declared.get(name)),
            _pace(admission.paces.get(name)),
            name in admission.fair,
        ]
        for name in names
    ]
    packed = [_packed(job, queues[job.queue]) for job in jobs]
    limits = [(name, packed_limit(limit)) for name, limit in admission.limits.items()]
    return admission.kind.value, _bounds(DEFAULT_BOUNDS), asked, packed, limits


def _check_size(jobs: Sequence[Job]) -> None:
    size = sum(job.size for job in jobs)
    if size > BATCH_BYTES:
        raise TooLarge(
            f"{len(jobs)} jobs at once take {size:,} bytes, and a Redis server can store no more "
            f"than {BATCH_BYTES:,} in one step; enqueue fewer at a time"
        )


# -- what nearly every append is --


def _are_plain(jobs: Sequence[Job]) -> bool:
    """Whether a script may do it that knows nothing but the usual."""
    one = jobs[0]
    queue, priority, lane = one.queue, one.priority, one.lane
    for job in jobs:
        is_usual = job.key is None and job.group is None and job.idempotency is None
        if not is_usual or job.resource or job.expires_ms is not None or job.delay_ms > 0:
            return False
        if job.uses or job.after or job.workflow != one.workflow or job.tags != one.tags:
            return False
        is_alike = job.policy is one.policy and job.task == one.task
        if not is_alike and marks_of(job) != marks_of(one):
            return False
        if job.priority != priority or job.lane != lane or job.queue != queue:
            return False
    return len(jobs) == 1 or len({job.id for job in jobs}) == len(jobs)


async def _append_plain(
    tx: RedisTx, jobs: Sequence[Job], admission: Admission
) -> list[Receipt] | None:
    """Append if all is as usual; None if it is not, and nothing was done."""
    one = jobs[0]
    declared = admission.declared.get(one.queue)
    pace = admission.paces.get(one.queue)
    sizes = [job.size for job in jobs]
    wall, done, *told = await tx.call(
        APPEND_PLAIN,
        admission.kind.value,
        DEFAULT_MAX_JOBS,
        DEFAULT_MAX_BYTES,
        one.queue,
        tx.numbers.get(one.queue),
        _channel(one.queue),
        None if declared is None else _number(declared.max_jobs),
        None if declared is None else _number(declared.max_bytes),
        one.priority,
        int(one.lane),
        min(id_ms(job.id) for job in jobs),
        sum(sizes),
        [raw(job.id) for job in jobs],
        [raw(sheet_of(job)) for job in jobs],
        sizes,
        [job.policy.attempts for job in jobs],
        pace and (pace.starts[one.priority], pace.slots, declared and declared.max_wait_ms),
        marks_of(one),
    )
    if done != 1:
        return None
    number, depth, size, max_jobs, max_bytes, ahead, running, max_wait_ms = told
    tx.numbers[one.queue] = number
    fullness = max(depth / max(1, max_jobs), size / max(1, max_bytes))
    if pace is None:
        fullness = min(1.0, fullness)
        return [Receipt(job.id, None, fullness, None, wall, wall) for job in jobs]
    waits = [pace.expected_ms(one.priority, ahead + at, running) for at in range(len(jobs))]
    if max_wait_ms is not None:
        fullness = max(fullness, waits[-1] / max_wait_ms)
    fullness = min(1.0, fullness)
    return [
        Receipt(job.id, None, fullness, wait_ms, wall, wall)
        for job, wait_ms in zip(jobs, waits, strict=True)
    ]


@functools.lru_cache(1_000)
def _channel(queue: str) -> str:
    return channel(Topic.QUEUES, queue.encode()).decode()


# -- any append --


def _packed(job: Job, queue: int) -> tuple[Any, ...]:
    key, asked = job.key, job.idempotency
    plain = (
        raw(job.id),
        queue,
        job.priority,
        int(job.lane),
        job.delay_ms,
        job.expires_ms,
        job.policy.attempts,
        job.size,
        raw(sheet_of(job)),
    )
    tail = _few(job)
    if key is None and asked is None and not (job.group or job.resource or job.parent or tail):
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
        *tail,
    )


def _few(job: Job) -> tuple[Any, ...]:
    """What few jobs have: the rule of a key, uses, edges and marks."""
    marks = marks_of(job)
    is_ruled = job.key is not None and job.rule != DEFAULT_RULE
    if not (job.uses or job.after or marks or is_ruled):
        return ()
    rule = job.rule
    return (
        None
        if job.key is None
        else (
            UNTIL.get(rule.until, False),
            False if rule.window_ms is None else rule.window_ms,
            rule.conflict,
            False if rule.most_ms is None else rule.most_ms,
        ),
        packed_uses(job.uses) or None,
        raw(packed_edges(job.after)) if job.after else None,
        marks,
    )


def _bounds(bounds: Bounds | None) -> list[Any] | None:
    if bounds is None:
        return None
    # As text, for that is how they are kept: Lua would round what it writes to 14 digits.
    wait, share = bounds.max_wait_ms, bounds.group_share
    return [
        str(bounds.max_jobs),
        str(bounds.max_bytes),
        None if wait is None else str(wait),
        None if share is None else repr(share),
    ]


def _number(bound: int) -> float:
    """A bound as Lua can have it: beyond 2**53 nothing is ever counted, so about is enough."""
    return bound if bound <= 2**53 else float(bound)


def _pace(pace: Pace | None) -> list[Any] | None:
    # Rounded here: what Lua has rounds halves up, and what Python has to even ones.
    return None if pace is None else [pace.starts, pace.slots, round(pace.service_ms)]


def _receipts(jobs: Sequence[Job], queues: dict[str, int], answer: list[Any]) -> list[Receipt]:
    wall, _, firsts, fullness, waits, dues, replaced = answer
    pressure = [float(it) for it in fullness]
    expected, due = iter(waits), iter(dues or ())
    if replaced is None:
        replaced = [0] * len(jobs)
    return [
        Receipt(job.id, first, pressure[queues[job.queue] - 1], replaced=bool(is_replaced))
        if first
        else Receipt(
            job.id,
            None,
            pressure[queues[job.queue] - 1],
            next(expected),
            wall,
            next(due) if dues else wall + max(0, job.delay_ms),
        )
        for job, first, is_replaced in zip(jobs, firsts, replaced, strict=True)
    ]


def _refusal(answer: list[Any]) -> Refusal:
    limit, queue, depth, bound, added, jobs, expected, group, can_fit, job, to, first = answer[2:]
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
        first=first,
    )
