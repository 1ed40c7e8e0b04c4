"""Records as they are printed: what `--json` shows of jobs and queues, by name and in words.

These structs are the documented shape of the JSON: fields are only ever added. Times
are ISO 8601 in UTC, durations seconds, ids in their usual spelling.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from datetime import UTC, datetime

import msgspec

from backlane.model.codec import decode_headers, plain
from backlane.model.job import JobRecord
from backlane.model.pressure.meter import Meter
from backlane.model.queue import QueueRecord


class ErrorView(msgspec.Struct, frozen=True):
    """An error that ended an attempt."""

    attempt: int
    at: datetime
    kind: str
    message: str
    traceback: str
    fingerprint: str = ""  # equal for errors of one cause


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as lists show it."""

    id: uuid.UUID
    queue: str
    task: str | None
    state: str
    reason: str | None
    attempts: int
    priority: int
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    cancelling: bool
    progress: float | None
    progress_message: str | None
    key: str | None
    group: str | None
    resource: str | None
    parent: uuid.UUID | None
    worker: str | None
    bytes: int
    blocked_on: str | None  # the limit (or turn) that it waits for
    waits_for: int  # jobs that have not ended
    tags: tuple[str, ...]
    workflow: uuid.UUID | None


class JobDetail(JobView, frozen=True, kw_only=True):
    """A job with all that is known of it."""

    arguments: object  # of a task; a message, or damaged arguments, are text or base64
    text: str | None
    base64: str | None
    headers: dict[str, str]
    result: object
    has_result: bool
    max_attempts: int
    errors: list[ErrorView]


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue with its depth, its bounds and what it has seen."""

    name: str
    kind: str
    paused: bool
    ready: int
    scheduled: int
    running: int
    blocked: int
    depth: int
    bytes: int
    max_jobs: int
    max_bytes: int
    max_wait_seconds: float | None
    group_share: float | None
    tuned_max_jobs: int | None
    tuned_max_bytes: int | None
    tuned_max_wait_seconds: float | None  # 0: lifted, whatever the code says
    tuned_group_share: float | None
    pressure: float | None  # 0 to 1, where the queue was measured
    expected_wait_seconds: float | None  # of a job enqueued now; None: not known
    oldest_ready_seconds: float | None
    appended: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int
    fair: bool


def _datetime(wall_ms: int) -> datetime:
    return datetime.fromtimestamp(wall_ms / 1000, UTC)


def _moment(wall_ms: int | None) -> datetime | None:
    return None if wall_ms is None else _datetime(wall_ms)


def job_view(record: JobRecord) -> JobView:
    """Return what a list shows of a job."""
    progress = record.progress
    return JobView(
        id=uuid.UUID(bytes=record.id),
        queue=record.queue,
        task=record.task,
        state=str(record.state),
        reason=None if record.reason is None else str(record.reason),
        attempts=record.attempt,
        priority=record.priority,
        enqueued_at=_datetime(record.enqueued_ms),
        due_at=_moment(record.due_ms),
        started_at=_moment(record.started_ms),
        ended_at=_moment(record.ended_ms),
        expires_at=_moment(record.deadline_ms),
        cancelling=record.cancelling,
        progress=progress.fraction if progress else None,
        progress_message=progress.message if progress else None,
        key=record.key.name if record.key else None,
        group=record.group,
        resource=record.resource,
        parent=uuid.UUID(bytes=record.parent) if record.parent else None,
        worker=record.owner,
        bytes=record.size,
        blocked_on=record.blocked_on,
        waits_for=record.waits_for,
        tags=record.tags,
        workflow=None if record.workflow is None else uuid.UUID(bytes=record.workflow),
    )


def job_detail(record: JobRecord) -> JobDetail:
    """Return all of a job; needs a record that was found by its id."""
    errors = [
        ErrorView(
            attempt=each.attempt,
            at=_datetime(each.at_ms),
            kind=each.error.kind,
            message=each.error.message,
            traceback=each.error.traceback,
            fingerprint=each.error.fingerprint,
        )
        for each in record.errors
    ]
    body = _Body.of(record)
    fields = msgspec.structs.asdict(job_view(record)) | {
        "arguments": body.arguments,
        "text": body.text,
        "base64": body.base64,
        "headers": decode_headers(record.headers),
        "result": None if record.result is None else plain(record.result),
        "has_result": record.result is not None,
        "max_attempts": record.policy.attempts,
        "errors": errors,
    }
    return msgspec.convert(fields, JobDetail)


class _Body(msgspec.Struct, frozen=True):
    """A body as people can read it: a task's arguments, else text, else base64."""

    arguments: object = None
    text: str | None = None
    base64: str | None = None

    @staticmethod
    def of(record: JobRecord) -> _Body:
        arguments = plain(record.body) if record.task is not None else None
        if isinstance(arguments, dict):
            return _Body(arguments=arguments)
        try:
            return _Body(text=record.body.decode())
        except UnicodeDecodeError:
            return _Body(base64=b64encode(record.body).decode())


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def queue_view(record: QueueRecord, meter: Meter | None = None) -> QueueView:
    """Return what is shown of a queue; `meter` knows its speed."""
    depth, oldest = record.depth, record.oldest_ready_ms
    return QueueView(
        name=record.name,
        kind=str(record.kind),
        paused=record.paused,
        ready=depth.ready,
        scheduled=depth.scheduled,
        running=depth.running,
        blocked=depth.blocked,
        depth=depth.jobs,
        bytes=depth.bytes,
        max_jobs=record.bounds.max_jobs,
        max_bytes=record.bounds.max_bytes,
        max_wait_seconds=_seconds(record.bounds.max_wait_ms or None),
        group_share=record.bounds.group_share,
        tuned_max_jobs=record.tuned_max_jobs,
        tuned_max_bytes=record.tuned_max_bytes,
        tuned_max_wait_seconds=_seconds(record.tuned_max_wait_ms),
        tuned_group_share=record.tuned_group_share,
        pressure=None if meter is None else meter.pressure(record.bounds),
        expected_wait_seconds=None if meter is None else _seconds(meter.expected_ms()),
        oldest_ready_seconds=_seconds(oldest),
        appended=record.appended,
        succeeded=record.succeeded,
        failed=record.failed,
        cancelled=record.cancelled,
        expired=record.expired,
        retried=record.retried,
        fair=record.is_fair,
    )
