"""Resources: a job as the gateway shows it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import UNSET, Raw, UnsetType

from backlane.model.job import AttemptError, JobRecord, State


class ProgressResource(msgspec.Struct, frozen=True):
    """How far a running job says it is."""

    fraction: float | None
    message: str | None


class ErrorResource(msgspec.Struct, frozen=True):
    """What ended the last attempt that failed; its traceback stays inside."""

    kind: str
    message: str
    attempt: int
    at: str
    fingerprint: str = ""  # equal for errors of one cause


class JobResource(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the gateway shows it; times are RFC 3339 in UTC, durations seconds."""

    id: str
    task: str | None
    queue: str
    state: State
    priority: int
    attempt: int = 0
    revision: int = 1
    enqueued_at: str
    due_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    expires_at: str | None = None
    progress: ProgressResource | None = None
    reason: str | None = None
    error: ErrorResource | None = None
    group: str | None = None
    key: str | None = None
    resource: str | None = None
    cancelling: bool = False
    blocked_on: str | None = None  # the limit (or turn) that it waits for
    waits_for: int = 0  # jobs that have not ended
    tags: tuple[str, ...] = ()
    workflow: str | None = None
    expected_wait: float | None = None  # seconds; known when it is enqueued, not later
    result: Raw | UnsetType = UNSET


def resource_of(record: JobRecord, expected_wait: float | None = None) -> JobResource:
    """Return what is shown of a job."""
    last = record.errors[-1] if record.errors else None
    progress = record.progress
    return JobResource(
        id=str(uuid.UUID(bytes=record.id)),
        task=record.task,
        queue=record.queue,
        state=record.state,
        priority=record.priority,
        attempt=record.attempt,
        revision=record.revision,
        enqueued_at=moment(record.enqueued_ms),
        due_at=_moment(record.due_ms),
        started_at=_moment(record.started_ms),
        ended_at=_moment(record.ended_ms),
        expires_at=_moment(record.deadline_ms),
        progress=None
        if progress is None
        else ProgressResource(progress.fraction, progress.message),
        reason=None if record.reason is None else record.reason.value,
        error=None if last is None else _error(last),
        group=record.group,
        key=None if record.key is None else record.key.name,
        resource=record.resource,
        cancelling=record.cancelling,
        blocked_on=record.blocked_on,
        waits_for=record.waits_for,
        tags=record.tags,
        workflow=None if record.workflow is None else str(uuid.UUID(bytes=record.workflow)),
        expected_wait=expected_wait,
        result=UNSET if record.result is None else Raw(record.result),
    )


def _error(last: AttemptError) -> ErrorResource:
    error = last.error
    at = moment(last.at_ms)
    return ErrorResource(error.kind, error.message, last.attempt, at, error.fingerprint)


def _moment(ms: int | None) -> str | None:
    return None if ms is None else moment(ms)


def moment(ms: int) -> str:
    """Return wall-clock milliseconds as RFC 3339 has them, which ends with the year 9999."""
    seconds, rest = divmod(min(ms, _LAST_MS), 1000)
    return f"{_second(seconds)}.{rest:03}Z"


_LAST_MS = 253_402_300_799_999


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
