"""Parameters and headers by name: their schema, and what they say, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backlane.gateway import messages
from backlane.gateway.site import LONGEST_SECONDS, WAIT_SECONDS
from backlane.model.job import State
from backlane.model.outcome import Reason

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 256}
_MOMENT: Schema = {"type": "string", "format": "date-time"}


def _some(of: type[State | Reason]) -> Schema:
    return {"type": "array", "items": {"type": "string", "enum": [each.value for each in of]}}


# What differs by the operation has its name in front.
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
    "schedule": (
        {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
        "The schedule's name.",
    ),
    "find.state": (_some(State), "In one of these states."),
    "find.reason": (_some(Reason), "Failed with one of these reasons."),
    "find.queue": (_TEXT, "Of this queue."),
    "find.task": (_TEXT, "Calls of this task."),
    "find.key": (_TEXT, "Enqueued with this key."),
    "find.group": (_TEXT, "Of this group."),
    "find.tag": (_TEXT, "With this tag."),
    "find.workflow": ({"type": "string", "format": "uuid"}, "Of this workflow."),
    "find.since": (_MOMENT, "Enqueued then or later."),
    "find.before": (_MOMENT, "Enqueued earlier than that."),
    "find.text": (_TEXT, "With this in the message of an error, in any case."),
    "find.limit": ({"type": "integer", "minimum": 1, "maximum": 1_000}, "Jobs at most."),
    "find.cursor": (
        {"type": "string", "pattern": "^([0-9a-f]{2}){1,64}$"},
        "What the page before said is next.",
    ),
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
