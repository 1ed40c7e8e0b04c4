"""Failures: what the function that handles another job's failure is told of it."""

from __future__ import annotations

import uuid

import msgspec

from backlane.model.job import JobRecord, State


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How a job of a workflow ended that did not succeed.

    `kind` and `message` are those of its last error, if it left one. A node that was
    skipped is told as the node that failed first.

    .. versionadded:: 0.1
    """

    job: uuid.UUID
    task: str | None
    state: State
    reason: str | None = None
    kind: str = ""
    message: str = ""


def failure(record: JobRecord) -> Failure:
    """Return what is told of a job that ended."""
    last = record.errors[-1].error if record.errors else None
    return Failure(
        job=uuid.UUID(bytes=record.id),
        task=record.task,
        state=record.state,
        reason=record.reason.value if record.reason else None,
        kind=last.kind if last else "",
        message=last.message if last else "",
    )
