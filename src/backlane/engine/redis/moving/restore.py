"""Restore: whole jobs and settings into a namespace, from a move."""

from __future__ import annotations

from typing import Any

from backlane.engine.moving import Part, Settings, Whole
from backlane.engine.redis.append import schedules
from backlane.engine.redis.lease.hold import packed_steps
from backlane.engine.redis.limits.limits import packed_limit
from backlane.engine.redis.limits.resource import packed
from backlane.engine.redis.record import latest
from backlane.engine.redis.record.sheet import (
    NUMBERS,
    UNTIL,
    Extra,
    encode,
    field,
    marks_of,
    packed_edges,
    packed_use,
    packed_uses,
    raw,
    read_use,
    sheet_of,
)
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.redis.upkeep.queues import declared_fields, tuned_fields
from backlane.model.breaker import Standing
from backlane.model.job import DEFAULT_RULE, Job, JobRecord, State
from backlane.model.queue import DEFAULT_BOUNDS, Kind, QueueRecord

RESTORE = Script("restore", "model", "moves", "bells", "insert")
RESTORE_SETTINGS = Script("restore_settings", "model", "moves", "bells", "limiting", "insert")

NEW_BOUNDS = [str(DEFAULT_BOUNDS.max_jobs), str(DEFAULT_BOUNDS.max_bytes), False, False]
COUNTED_AT = 5  # the priority under which the lifetime counts of another store are kept


async def restore(tx: RedisTx, part: Part, move: bytes) -> list[bytes]:
    """Take whole jobs in; return those that were new."""
    repeats = [
        (field(one.scope, one.name), one.until_ms, raw(one.job), raw(one.print))
        for one in part.repeats
    ]
    jobs = [_packed(whole) for whole in part.jobs]
    _, new = await tx.call(RESTORE, jobs, repeats, move.hex(), NEW_BOUNDS)
    return list(new)


def _packed(whole: Whole) -> list[Any]:
    record = whole.record
    kind = Kind.MESSAGES if record.task is None else Kind.TASKS
    errors = [(it.attempt, it.at_ms, it.error) for it in record.errors]
    return [
        raw(record.id),
        _row(whole),
        raw(sheet_of(_job(record))),
        False if record.progress is None else raw(encode(record.progress)),
        False if record.result is None else raw(record.result),
        raw(encode(errors)) if errors else False,
        record.queue,
        str(kind),
        _or_false(record.resource),
        packed_steps(whole.steps) or False,
        _or_false(marks_of(_job(record))),
        _extra(whole),
        raw(packed_edges(whole.open)),
        raw(b"".join(whole.waited)),
    ]


def _extra(whole: Whole) -> Extra | bool:
    """What few jobs have, or False. Edges are tied by the script."""
    record, rule = whole.record, whole.record.rule
    has_rule = record.key is not None and rule != DEFAULT_RULE
    if not (record.uses or record.after or has_rule):
        return False
    uses = packed_uses(record.uses)
    turns = tuple(uses.index(packed_use(use)) + 1 for use in whole.turns)
    on = [at for at, use in enumerate(uses, 1) if read_use(use).limit == record.blocked_on]
    held: str | int | bool = UNTIL.get(rule.until, False)
    if rule.window_ms is not None:
        held = record.enqueued_ms + rule.window_ms
    return Extra(
        tuple(uses) or False,
        on[0] if on else 0,
        turns or False,
        len(record.after),
        rule=held if has_rule else False,
    )


def _job(record: JobRecord) -> Job:
    return Job(
        id=record.id,
        queue=record.queue,
        task=record.task,
        body=record.body,
        headers=record.headers,
        policy=record.policy,
        key=record.key,
        group=record.group,
        parent=record.parent,
        resource=record.resource,
        rule=record.rule,
        uses=record.uses,
        after=record.after,
        workflow=record.workflow,
        tags=record.tags,
    )


def _row(whole: Whole) -> list[Any]:
    """The row as `lua/model.lua` lays it out; what only the store knows is 0 or False."""
    record = whole.record
    place = record.enqueued_ms if record.due_ms is None else record.due_ms
    row: list[Any] = [
        NUMBERS[record.state],
        0,
        0,
        int(record.lane),
        record.priority,
        record.priority,
        place,
        record.enqueued_ms,
        record.size,
        record.policy.attempts,
        record.revision,
        record.attempt,
        record.token,
        whole.crashes,
        _or_false(record.deadline_ms),
        _or_false(whole.parked_ms),
        _or_false(record.group),
        field(record.key.scope, record.key.name) if record.key else False,
        False,
        False,
    ]
    return row + _ran(record) if record.token or record.state.is_final else row


def _ran(record: JobRecord) -> list[Any]:
    """What a row has once its job ran, or ended."""
    return [
        _or_false(record.owner),
        0,
        _or_false(record.started_ms),
        False,
        _or_false(record.ended_ms),
        record.ran_ms or 0,
        _or_false(record.reason),
    ]


def _or_false(value: Any) -> Any:
    return False if value is None else value


async def restore_settings(tx: RedisTx, settings: Settings) -> None:
    """Take in what another store knew beside jobs."""
    await tx.call(
        RESTORE_SETTINGS,
        [_queue(queue) for queue in settings.queues],
        [
            (name, raw(packed(breaker)), breaker.state is not Standing.CLOSED)
            for name, breaker in settings.resources.items()
        ],
        raw(settings.secret) if settings.secret else False,
        settings.forgotten_ms,
        [
            (it.name, packed_limit(it.declared), it.tuned is not None and packed_limit(it.tuned))
            for it in settings.limits
        ],
    )
    await schedules.restore(tx, settings.schedules)
    await latest.restore(tx, settings.latest)


def _queue(queue: QueueRecord) -> list[Any]:
    fields = declared_fields(queue.declared)
    fields += tuned_fields(
        queue.tuned_max_jobs,
        queue.tuned_max_bytes,
        queue.tuned_max_wait_ms,
        queue.tuned_group_share,
    )
    fields += ["paused", "1" if queue.paused else False]
    fields += ["fair", "1" if queue.is_fair else False]
    counts = {
        f"a{COUNTED_AT}": queue.appended,
        f"y{COUNTED_AT}": queue.retried,
        f"b{COUNTED_AT}": queue.started,
        "ended": queue.ended,
        "ran_ms": queue.ran_ms,
        f"f{NUMBERS[State.SUCCEEDED]}": queue.succeeded,
        f"f{NUMBERS[State.FAILED]}": queue.failed,
        f"f{NUMBERS[State.CANCELLED]}": queue.cancelled,
        f"f{NUMBERS[State.EXPIRED]}": queue.expired,
    }
    return [queue.name, str(queue.kind), fields, [it for pair in counts.items() for it in pair]]
