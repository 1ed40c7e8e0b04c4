"""Problem documents: how an HTTP answer says what went wrong (RFC 9457).

`problem` makes any of them, `busy` the one for a full queue: 503 (429 where only the
caller's own share is used up) with `Retry-After` and the ticket to come back with.
They are bytes and headers, so that any web framework can send them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from backlane.errors import QueueFull

MEDIA_TYPE = "application/problem+json"
URN = "urn:backlane:"  # of `type`: it names the kind, and leads nowhere wherever we are mounted

TICKET_HEADER = "Backlane-Ticket"

# Nothing is known about the queue's speed: soon enough for a person, seldom enough for
# a server. Our client adds its own jitter to it.
UNKNOWN_SECONDS = 5


class Problem(msgspec.Struct, frozen=True):
    """An answer that tells of a problem, ready to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem(
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    **members: object,
) -> Problem:
    """Return a problem document; `members` are what programs read, beside the kind."""
    document = {
        "type": URN + kind,
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }
    body = msgspec.json.encode(document)
    own = (("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))))
    return Problem(status, (*own, ("Cache-Control", "no-store"), *headers), body)


def busy(full: QueueFull) -> Problem:
    """Return the answer for a full queue.

    `Retry-After` is in whole seconds, rounded up; the member `retry_after` has them
    exactly. `basis` says whether that time is an estimate or nothing is known. What can
    never fit is 422 `never-fits` instead: coming back would not help.
    """
    members: dict[str, Any] = {
        "queue": full.queue,
        "limit": full.limit,
        "depth": full.depth,
        "bound": full.bound,
        "jobs": full.jobs,
        "group": full.group,
        "promised": full.promised,
        "added": full.added,
        "accepted": full.accepted,
        "estimated_wait": _seconds(full.estimated_wait),
    }
    if not full.can_fit:
        return problem(422, "never-fits", "This can never fit", str(full), **members)
    retry_after = _seconds(full.retry_after)
    at_door = UNKNOWN_SECONDS if retry_after is None else max(1, math.ceil(retry_after))
    headers = [("Retry-After", str(at_door))]
    if full.ticket is not None:
        headers.append((TICKET_HEADER, full.ticket))
    return problem(
        429 if full.limit == "group" else 503,
        "busy",
        "The queue is full",
        str(full),
        headers=headers,
        **members,
        retry_after=retry_after,
        basis="unknown" if retry_after is None else "estimate",
        ticket=full.ticket,
    )


def _seconds(given: timedelta | None) -> float | None:
    return None if given is None else given.total_seconds()
