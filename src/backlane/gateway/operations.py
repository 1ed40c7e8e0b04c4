"""Operations: what each route takes and answers with, for the OpenAPI document.

What is not said here comes from the code itself: the summary from the endpoint's
docstring, the schemas from the types that are decoded and encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    schedules,
    stream,
    tasks,
    workflows,
)
from backlane.gateway.limits import CHANGES, LimitResource, LimitTuning
from backlane.gateway.messages import MessageResource, Receipts
from backlane.gateway.queues import QueueResource, Tuning
from backlane.gateway.resource import JobResource
from backlane.gateway.schedules import ScheduleAsked, ScheduleList, ScheduleResource
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


class JobList(msgspec.Struct, frozen=True):
    """A page of jobs, the newest first; `next` is the `cursor` of the page behind it."""

    jobs: list[JobResource]
    next: str | None


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
    among: Sequence[Schema] = ()  # one of these is true of the body too, which no type can tell
    media: str = JSON
    is_body_required: bool = True


Moment = Annotated[float, Meta(ge=0)]

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
_SCHEDULE = Answer("The schedule as it is.", ScheduleResource)
_NO_SCHEDULE = {404: "unknown-schedule"}

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
    jobs.index: Operation(
        id="findJobs",
        query=(
            *("find.state", "find.reason", "find.queue", "find.task", "find.key", "find.group"),
            *("find.tag", "find.workflow", "find.since", "find.before", "find.text"),
            *("find.limit", "find.cursor"),
        ),
        answers={200: Answer("Jobs that all of it is true of.", JobList)},
        problems={422: "invalid-arguments"},
    ),
    schedules.index: Operation(
        id="listSchedules", answers={200: Answer("All schedules.", ScheduleList)}
    ),
    schedules.show: Operation(id="getSchedule", answers={200: _SCHEDULE}, problems=_NO_SCHEDULE),
    schedules.put: Operation(
        id="putSchedule", takes=ScheduleAsked, answers={200: _SCHEDULE}, problems=_BODY
    ),
    schedules.remove: Operation(
        id="removeSchedule", answers={204: Answer("It is forgotten.")}, problems=_NO_SCHEDULE
    ),
    schedules.pause: Operation(id="pauseSchedule", answers={200: _SCHEDULE}, problems=_NO_SCHEDULE),
    schedules.resume: Operation(
        id="resumeSchedule", answers={200: _SCHEDULE}, problems=_NO_SCHEDULE
    ),
    schedules.run: Operation(
        id="runSchedule",
        answers={202: Answer("The job is stored, and will run.", JobResource)},
        problems={**_FULL, 404: "unknown-schedule or unknown-task", 409: "duplicate"},
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
        among=CHANGES,
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
