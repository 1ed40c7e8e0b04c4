"""Records: what others are told of a job, a queue or a worker."""

from __future__ import annotations

from backlane.engine.memory.line import Line
from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.protocol import WorkerRecord
from backlane.model.job import JobRecord, State
from backlane.model.queue import QueueRecord


def job_record(row: Row, *, whole: bool = False) -> JobRecord:
    """The record of a job; only a `whole` one has body, headers, result and errors."""
    job = row.job
    is_due_known = row.state in (State.SCHEDULED, State.READY, State.BLOCKED)
    return JobRecord(
        id=job.id,
        queue=row.queue,
        task=job.task,
        state=row.state,
        revision=row.revision,
        priority=row.priority,
        attempt=row.attempt,
        token=row.token,
        enqueued_ms=row.enqueued_ms,
        reason=row.reason,
        lane=row.lane,
        due_ms=row.place_ms if is_due_known else None,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        ran_ms=row.ran_ms if row.state.is_final else None,
        deadline_ms=row.deadline_ms,
        owner=row.owner,
        cancelling=row.cancelling,
        progress=row.progress,
        key=job.key,
        group=job.group,
        parent=job.parent,
        rule=job.rule,
        uses=job.uses,
        after=job.after,
        waits_for=row.waits_for,
        workflow=job.workflow,
        tags=job.tags,
        blocked_on=row.blocked_on.limit if row.blocked_on else None,
        policy=job.policy,
        size=job.size,
        resource=job.resource,
        body=job.body if whole else b"",
        headers=job.headers if whole else None,
        result=row.result if whole else None,
        errors=row.errors if whole else (),
    )


def queue_record(store: Store, line: Line) -> QueueRecord:
    tallies = line.tallies.values()
    return QueueRecord(
        name=line.name,
        kind=line.kind,
        paused=line.paused,
        is_fair=line.is_fair,
        bounds=line.bounds(),
        declared=line.declared,
        tuned_max_jobs=line.tuned_max_jobs,
        tuned_max_bytes=line.tuned_max_bytes,
        tuned_max_wait_ms=line.tuned_max_wait_ms,
        tuned_group_share=line.tuned_group_share,
        depth=line.depth,
        oldest_ready_ms=oldest_ready_ms(store, line),
        appended=sum(tally.appended for tally in tallies),
        succeeded=line.finished[State.SUCCEEDED],
        failed=line.finished[State.FAILED],
        cancelled=line.finished[State.CANCELLED],
        expired=line.finished[State.EXPIRED],
        retried=sum(tally.retried for tally in tallies),
        started=sum(tally.started for tally in tallies),
        ended=sum(tally.ended for tally in tallies),
        ran_ms=sum(tally.ran_ms for tally in tallies),
    )


def oldest_ready_ms(store: Store, line: Line) -> int | None:
    """How long the job next in line has been due."""
    heads = [row for row in store.heads([line.name]) if not store.is_withheld(row)]
    head = min(heads, key=lambda row: row.order, default=None)
    return None if head is None else max(0, store.clock.wall_ms() - head.place_ms)


def worker_record(store: Store, owner: str) -> WorkerRecord:
    presence, started_ms, beat_ms = store.workers[owner]
    return WorkerRecord(
        owner=owner,
        host=presence.host,
        pid=presence.pid,
        queues=presence.queues,
        slots=presence.slots,
        running=presence.running,
        started_ms=started_ms,
        beat_age_ms=max(0, store.clock.boot_ms() - beat_ms),
    )
