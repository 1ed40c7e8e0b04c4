"""Operations: what each route takes and answers with, for the OpenAPI document.

What is not said here comes from the code itself: the summary from the endpoint's
docstring, the schemas from the types that are decoded and encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from backlane.gateway import (
    health,
    jobs,
    limits,
    messages,
    metrics,
    queues,
    stream,
    tasks,
    workflows,
)
from backlane.gateway.limits import LimitResource, LimitTuning
from backlane.gateway.messages import MessageResource, Receipts
from backlane.gateway.queues import QueueResource, Tuning
from backlane.gateway.resource import JobResource
from backlane.gateway.site import LONGEST_SECONDS, WAIT_SECONDS
from backlane.gateway.workflows import WorkflowChanged, WorkflowResource

Schema = dict[str, Any]
JSON = "application/json"


class ProblemDocument(msgspec.Struct, frozen=True):
    """What went wrong (RFC 9457); `type` is `urn:backlane:` and its kind. Some have more."""

    type: str
    title: str
    status: int
    detail: str


class QueueList(msgspec.Struct, frozen=True):
    """Queues by name."""

    queues: list[QueueResource]


class LimitList(msgspec.Struct, frozen=True):
    """Limits by name."""

    limits: list[LimitResource]


class Sent(msgspec.Struct, frozen=True):
    """A message that was stored, or was already."""

    id: str


class MessageList(msgspec.Struct, frozen=True):
    """Messages that were received; each is to be acknowledged by its receipt."""

    messages: list[MessageResource]


class Changed(msgspec.Struct, frozen=True):
    """Receipts that were still good, and those whose lease was lost."""

    done: list[str]
    lost: list[str]


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class Ready(msgspec.Struct, frozen=True):
    """Requests are welcome here."""

    status: str
    checks: dict[str, str]


class Answer(msgspec.Struct, frozen=True):
    """An answer that is no problem; `type` is None where there is no body."""

    told: str
    type: Any = None
    media: str = JSON
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one route takes and answers with; `problems` are kinds of these by status."""

    id: str
    answers: Mapping[int, Answer]
    problems: Mapping[int, str] = {}
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    takes: Any = None  # the type of its body
    media: str = JSON
    is_body_required: bool = True


Moment = Annotated[float, Meta(ge=0)]

# Parameters by name: their schema, and what they say.
PARAMETERS: Mapping[str, tuple[Schema, str]] = {
    "job": ({"type": "string", "format": "uuid"}, "The job's id."),
    "workflow": ({"type": "string", "format": "uuid"}, "The workflow's id."),
    "task": ({"type": "string"}, "The task's name."),
    "queue": (
        {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
        "The queue's name.",
    ),
    "limit": (
        {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,134}$"},
        "The limit's name; `task:<task>` and `queue:<queue>` are those of tasks and queues.",
    ),
    "wait": (
        {"type": "number", "minimum": 0},
        f"Seconds to wait for it, at most {WAIT_SECONDS:g}.",
    ),
    "revision": (
        {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        "With `wait`: answer as soon as the job's revision is higher than this.",
    ),
    "max": ({"type": "integer", "minimum": 1, "maximum": messages.MOST}, "Messages at most."),
    "lease": (
        {"type": "number", "minimum": 0.001},
        "Seconds for which others do not receive them.",
    ),
    "delay": (
        {"type": "number", "minimum": 0, "maximum": LONGEST_SECONDS},
        "Seconds until it can be received.",
    ),
    "expires": (
        {"type": "number", "minimum": 0, "maximum": LONGEST_SECONDS},
        "Seconds until it is of no use any more.",
    ),
    "priority": ({"type": "integer", "minimum": 0, "maximum": 9}, "Higher goes first."),
    "key": (
        {"type": "string", "minLength": 1, "maxLength": 256},
        "Of two messages with the same key one is stored, while it waits.",
    ),
    "group": ({"type": "string", "minLength": 1, "maxLength": 256}, "What it belongs to."),
    "Idempotency-Key": (
        {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
        "The same key within 24 hours gives the first answer again.",
    ),
    "Backlane-Ticket": (
        {"type": "string"},
        "The ticket of an earlier refusal; it keeps the place it was given.",
    ),
    "Prefer": (
        {"type": "string"},
        "`wait=5`: answer with the result if there is one within 5 seconds.",
    ),
    "Last-Event-ID": ({"type": "string"}, "The last revision that was seen."),
}

# Headers of answers by name.
HEADERS: Mapping[str, tuple[Schema, str]] = {
    "Location": ({"type": "string"}, "Where the job is."),
    "Retry-After": ({"type": "integer", "minimum": 1}, "Seconds after which to ask again."),
    "Backlane-Pressure": ({"type": "string"}, "How full the queue is, 0 to 1."),
    "Preference-Applied": ({"type": "string"}, "What of `Prefer` was done."),
}

_NO_JOB = {404: "unknown-job"}
_WORKFLOW_CHANGED = Answer("How many jobs were changed, and the workflow.", WorkflowChanged)
_NO_QUEUE = {404: "unknown-queue"}
_BODY = {
    400: "malformed",
    408: "too-slow",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid-arguments",
}
_KIND = {409: "wrong-kind"}
_FULL = {429: "busy", 503: "busy, unavailable or outcome-unknown"}
_JOB = Answer("The job as it is.", JobResource, headers=("Retry-After",))
_QUEUE = Answer("The queue as it is.", QueueResource)
_CHANGED = Answer("Which were changed.", Changed)

SUBMIT = Operation(
    id="submit",
    headers=("Idempotency-Key", "Backlane-Ticket", "Prefer"),
    is_body_required=False,
    answers={
        202: Answer(
            "The job is stored, and will run.",
            JobResource,
            headers=("Location", "Retry-After", "Backlane-Pressure", "Preference-Applied"),
        ),
        200: Answer(
            "The job has ended while the caller waited.",
            JobResource,
            headers=("Preference-Applied",),
        ),
    },
    problems={
        **_BODY,
        **_FULL,
        400: "malformed or bad-idempotency-key",
        409: "duplicate, stale-id or wrong-kind",
        422: "invalid-arguments, key-reused or never-fits",
    },
)

OPERATIONS: Mapping[Callable[..., Any], Operation] = {
    tasks.submit: SUBMIT,
    jobs.show: Operation(
        id="getJob",
        query=("wait", "revision"),
        answers={200: _JOB},
        problems={**_NO_JOB, 422: "invalid-arguments"},
    ),
    jobs.result: Operation(
        id="getResult",
        answers={200: Answer("What the job's function returned.", Any)},
        problems={
            **_NO_JOB,
            409: "not-finished, job-failed, job-cancelled or job-expired",
            410: "result-gone",
        },
    ),
    stream.events: Operation(
        id="followJob",
        headers=("Last-Event-ID",),
        answers={
            200: Answer(
                "Server-sent events: `event: change`, `id` the revision, `data` the job. "
                "The stream ends when the job has.",
                str,
                "text/event-stream",
            ),
            204: Answer("It has ended, and its end was seen: do not come back."),
        },
        problems=_NO_JOB,
    ),
    jobs.cancel: Operation(id="cancelJob", answers={200: _JOB}, problems=_NO_JOB),
    jobs.retry: Operation(
        id="retryJob", answers={200: _JOB}, problems={**_NO_JOB, 409: "not-redrivable"}
    ),
    workflows.show: Operation(
        id="getWorkflow",
        answers={200: Answer("The workflow as it is.", WorkflowResource)},
        problems=_NO_JOB,
    ),
    workflows.cancel: Operation(
        id="cancelWorkflow", answers={200: _WORKFLOW_CHANGED}, problems=_NO_JOB
    ),
    workflows.retry: Operation(
        id="retryWorkflow", answers={200: _WORKFLOW_CHANGED}, problems=_NO_JOB
    ),
    queues.index: Operation(id="listQueues", answers={200: Answer("All queues.", QueueList)}),
    queues.show: Operation(id="getQueue", answers={200: _QUEUE}, problems=_NO_QUEUE),
    queues.pause: Operation(id="pauseQueue", answers={200: _QUEUE}, problems=_NO_QUEUE),
    queues.resume: Operation(id="resumeQueue", answers={200: _QUEUE}, problems=_NO_QUEUE),
    queues.tune: Operation(
        id="tuneQueue", takes=Tuning, answers={200: _QUEUE}, problems={**_NO_QUEUE, **_BODY}
    ),
    limits.index: Operation(id="listLimits", answers={200: Answer("All limits.", LimitList)}),
    limits.tune: Operation(
        id="tuneLimit",
        takes=LimitTuning,
        answers={200: Answer("The limit as it is.", LimitResource)},
        problems={404: "unknown-limit", **_BODY},
    ),
    messages.send: Operation(
        id="sendMessage",
        query=("delay", "expires", "priority", "key", "group"),
        headers=("Idempotency-Key", "Backlane-Ticket"),
        takes=bytes,
        media="application/octet-stream",
        is_body_required=False,
        answers={202: Answer("The message is stored.", Sent)},
        problems={
            **_BODY,
            **_NO_QUEUE,
            **_KIND,
            **_FULL,
            400: "bad-idempotency-key",
            409: "duplicate or wrong-kind",
            422: "invalid-arguments, key-reused or never-fits",
        },
    ),
    messages.receive: Operation(
        id="receiveMessages",
        query=("max", "wait", "lease"),
        answers={200: Answer("What was there within the wait; maybe nothing.", MessageList)},
        problems={**_NO_QUEUE, **_KIND, 422: "invalid-arguments"},
    ),
    messages.ack: Operation(
        id="ackMessages",
        takes=Receipts,
        answers={200: _CHANGED},
        problems={**_BODY, **_NO_QUEUE, **_KIND},
    ),
    messages.release: Operation(
        id="releaseMessages",
        takes=Receipts,
        answers={200: _CHANGED},
        problems={**_BODY, **_NO_QUEUE, **_KIND},
    ),
    messages.extend: Operation(
        id="extendMessages",
        takes=Receipts,
        answers={200: _CHANGED},
        problems={**_BODY, **_NO_QUEUE, **_KIND},
    ),
    metrics.metrics: Operation(
        id="getMetrics",
        answers={200: Answer("Figures, as Prometheus reads them.", str, "text/plain")},
    ),
    health.healthz: Operation(id="getHealth", answers={200: Answer("It is up.", Health)}),
    health.readyz: Operation(
        id="getReadiness",
        answers={200: Answer("It is ready.", Ready)},
        problems={503: "not-ready"},
    ),
}
