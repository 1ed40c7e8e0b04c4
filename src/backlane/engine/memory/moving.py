"""Moving: whole jobs and settings out of this store, and into it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from backlane.engine.memory.ending import resume
from backlane.engine.memory.limiting import list_limits, restore_limit
from backlane.engine.memory.line import Line
from backlane.engine.memory.record import job_record, queue_record
from backlane.engine.memory.row import Repeat, Row
from backlane.engine.memory.scheduled import Scheduled
from backlane.engine.memory.steps import recall
from backlane.engine.memory.store import Store
from backlane.engine.moving import (
    PART_BYTES,
    PART_ROWS,
    Part,
    Seal,
    Settings,
    Whole,
)
from backlane.engine.moving import Repeat as MovedRepeat
from backlane.model.breaker import CLOSED
from backlane.model.job import FINAL, Idempotency, Job, JobRecord, State
from backlane.model.queue import DEFAULT_BOUNDS, Kind, QueueRecord

COUNTED_AT = 5  # the priority under which the lifetime counts of another store are kept


def seal(store: Store, given: Seal | None) -> Seal | None:
    """Seal or open the store; return how it was before."""
    before = store.seal
    since_ms = before.since_ms if before else store.clock.wall_ms()
    store.seal = replace(given, since_ms=since_ms) if given else None
    store.rung_queues |= set(store.lines)
    return before


# -- out --


def dump(store: Store, limit: int, cursor: bytes | None, final: Sequence[State]) -> Part:
    """Read whole jobs in the order of their append, then idempotency keys."""
    begins, held = int.from_bytes(cursor or b""), 0
    rows = [row for row in store.rows.values() if row.seq >= begins]
    wanted = {State.SCHEDULED, State.READY, State.BLOCKED, *final}
    found: list[Whole] = []
    for read, row in enumerate(rows):
        if len(found) >= limit or read >= PART_ROWS or held >= PART_BYTES:
            return Part(found, cursor=row.seq.to_bytes(8))
        if row.state in wanted or (row.state in FINAL and store.edges.is_needed(row.job.id)):
            if _waits_for_a_running_one(store, row):
                continue
            found.append(_whole(store, row))
            held += row.job.size + len(row.result or b"")
    repeats = [
        MovedRepeat(scope, name, one.job, one.asked.print, one.until_ms)
        for (scope, name), one in store.repeats.items()
    ]
    return Part(found, repeats)


def _waits_for_a_running_one(store: Store, row: Row) -> bool:
    others = (store.rows.get(edge.job) for edge in store.edges.open_of(row.job.id))
    return any(other is not None and other.state is State.RUNNING for other in others)


def _whole(store: Store, row: Row) -> Whole:
    still = store.edges.open_of(row.job.id)
    told = {edge.job for edge in (*still, *row.job.after)}
    return Whole(
        job_record(row, whole=True),
        row.crashes,
        row.parked_since_ms,
        open=still,
        waited=tuple(job for job in store.edges.waited_of(row.job.id) if job not in told),
        turns=row.turns,
        steps=tuple(recall(store, row.job.id)),
    )


def discard(store: Store, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Forget jobs that are elsewhere by now; return those that were not forgotten."""
    if store.seal is None:
        return [job for job, _ in jobs]
    left = []
    for job, revision in jobs:
        row = store.rows.get(job)
        if row is None or row.state is State.RUNNING or row.revision != revision:
            left.append(job)
        else:
            store.forget(row)
    return left


def dump_settings(store: Store) -> Settings:
    """Read what is known beside jobs."""
    return Settings(
        queues=[queue_record(store, line) for line in store.lines.values()],
        resources=dict(store.breakers),
        secret=store.secret,
        forgotten_ms=store.forgotten_ms,
        limits=[replace(one, running=0, blocked=0) for one in list_limits(store)],
        schedules=[one.record for one in store.schedules.values()],
        latest=dict(store.latest),
    )


# -- in --


def restore(store: Store, part: Part, move: bytes) -> list[bytes]:
    """Take whole jobs in; return those that were new."""
    latest = store.arrived.get(move, frozenset())
    new = [whole for whole in part.jobs if not _is_known(store, whole.record.id, latest)]
    for whole in new:
        _take_in(store, whole)
    for one in part.repeats:
        known = store.repeats.get((one.scope, one.name))
        if known is None or known.until_ms <= store.clock.wall_ms():
            asked = Idempotency(one.scope, one.name, one.print)
            store.repeats[one.scope, one.name] = Repeat(one.job, asked, one.until_ms)
    store.arrived.pop(move, None)
    if move and part.jobs:
        store.arrived[move] = frozenset(whole.record.id for whole in part.jobs)
    return [whole.record.id for whole in new]


def restore_settings(store: Store, settings: Settings) -> None:
    """Take in what another store knew beside jobs."""
    for queue in settings.queues:
        line = store.lines.get(queue.name)
        if line is None:
            line = store.line(queue.name, queue.kind)
            _count(line, queue)
        if line.kind is queue.kind:
            line.declared, line.paused, line.is_fair = queue.declared, queue.paused, queue.is_fair
            line.tuned_max_jobs, line.tuned_max_bytes = queue.tuned_max_jobs, queue.tuned_max_bytes
            line.tuned_max_wait_ms = queue.tuned_max_wait_ms
            line.tuned_group_share = queue.tuned_group_share
            store.rung_queues.add(queue.name)
    for limit in settings.limits:
        restore_limit(store, limit)
    store.breakers |= settings.resources
    store.secret = settings.secret or store.secret
    store.forgotten_ms = max(store.forgotten_ms, settings.forgotten_ms)
    declared_ms = store.clock.boot_ms()
    for record in settings.schedules:
        store.schedules[record.name] = Scheduled(record, declared_ms)
    for task, latest in settings.latest.items():
        before = store.latest.get(task)
        if before is None or before.job < latest.job:
            store.latest[task] = latest


def _is_known(store: Store, job: bytes, latest: frozenset[bytes]) -> bool:
    return job in store.rows or job in latest


def _take_in(store: Store, whole: Whole) -> None:
    record = whole.record
    kind = Kind.MESSAGES if record.task is None else Kind.TASKS
    store.lines.setdefault(record.queue, Line(record.queue, kind, DEFAULT_BOUNDS))
    due_ms = record.enqueued_ms if record.due_ms is None else record.due_ms
    blocked_on = next((use for use in record.uses if use.limit == record.blocked_on), None)
    row = Row(
        job=_job(record),
        seq=0,
        enqueued_ms=record.enqueued_ms,
        queue=record.queue,
        lane=record.lane,
        priority=record.priority,
        rank=record.priority,
        place_ms=due_ms,
        deadline_ms=record.deadline_ms,
        state=record.state,
        blocked_on=blocked_on,
        turns=whole.turns,
        revision=record.revision,
        attempt=record.attempt,
        token=record.token,
        crashes=whole.crashes,
        owner=record.owner,
        parked_since_ms=whole.parked_ms,
        progress=record.progress,
        started_ms=record.started_ms,
        ended_ms=record.ended_ms,
        ran_ms=record.ran_ms or 0,
        reason=record.reason,
        result=record.result,
        errors=record.errors,
    )
    store.take_in(row)
    if whole.steps:
        store.steps[record.id] = {step.name: step.result for step in whole.steps}
    resume(store, row, whole)
    if record.state not in FINAL:
        store.rung_queues.add(record.queue)
    if record.resource:
        store.breakers.setdefault(record.resource, CLOSED)


def _job(record: JobRecord) -> Job:
    return Job(
        id=record.id,
        queue=record.queue,
        task=record.task,
        body=record.body,
        headers=record.headers,
        priority=record.priority,
        lane=record.lane,
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


def _count(line: Line, queue: QueueRecord) -> None:
    """Begin with the lifetime counts of the same queue elsewhere."""
    tally = line.tally(COUNTED_AT)
    tally.appended, tally.retried = queue.appended, queue.retried
    tally.started, tally.ended, tally.ran_ms = queue.started, queue.ended, queue.ran_ms
    line.finished |= {
        State.SUCCEEDED: queue.succeeded,
        State.FAILED: queue.failed,
        State.CANCELLED: queue.cancelled,
        State.EXPIRED: queue.expired,
    }
