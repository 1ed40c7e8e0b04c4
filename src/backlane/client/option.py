"""Options: the names that a submission and a message know, and how they are sent."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from backlane.errors import BadOption
from backlane.model.option import check_options
from backlane.model.retry import Duration, milliseconds


class SubmitOptions(TypedDict, total=False):
    """The options of `submit`. The gateway judges their values, as `using` does."""

    id: uuid.UUID | str  # made here unless given; sent again it is the same job
    queue: str  # instead of the task's own
    delay: Duration  # counted from when the gateway takes it
    at: datetime  # with a time zone; not with `delay`
    expires: Duration
    priority: int
    key: str
    group: str
    headers: Mapping[str, str]
    idempotency_key: str  # for 24 h the same submission with it is the same job
    ticket: str  # of the `QueueFull` before
    wait: Duration  # wait so long for the job to end, up to 60 s; its result comes along
    deadline: Duration  # of this call, instead of the client's


class RemoteSendOptions(TypedDict, total=False):
    """The options of `send`."""

    delay: Duration
    expires: Duration
    priority: int
    key: str
    group: str
    idempotency_key: str  # made here unless given
    ticket: str
    deadline: Duration


class TuneOptions(TypedDict, total=False):
    """What `tune` changes of a queue while it runs."""

    max_jobs: int
    max_bytes: int
    max_wait: Duration | None  # None lifts it
    group_share: float
    reset: bool  # first go back to what is declared


_DURATIONS = ("delay", "expires")
_PLAIN = ("queue", "priority", "key", "group")


def checked(options: Mapping[str, Any], of: type, where: str) -> None:
    """Refuse an option that does not exist.

    Raises:
        UnknownOption: names the nearest one that does.
    """
    check_options(options, of.__annotations__, where)


def seconds(given: Duration, option: str) -> float:
    """Return a duration in seconds.

    Raises:
        BadOption: it is negative, or no duration.
    """
    return milliseconds(given, option) / 1000


def body_of(options: SubmitOptions) -> dict[str, Any]:
    """Return the members of a submission's body that its options make."""
    members: dict[str, Any] = {
        name: value for name, value in options.items() if name in _PLAIN and value is not None
    }
    for name, value in options.items():
        if name in _DURATIONS and value is not None:
            members[name] = seconds(value, name)  # type: ignore[arg-type]
    if (at := options.get("at")) is not None:
        members["at"] = _moment(at)
    if (headers := options.get("headers")) is not None:
        members["headers"] = dict(headers)
    return members


def query_of(options: RemoteSendOptions) -> tuple[tuple[str, str], ...]:
    """Return a message's options as they stand in a query."""
    query: list[tuple[str, str]] = []
    for name, value in options.items():
        if name in _DURATIONS and value is not None:
            query.append((name, f"{seconds(value, name):.3f}"))  # type: ignore[arg-type]
        elif name in _PLAIN and value is not None:
            query.append((name, str(value)))
    return tuple(query)


def tuning_of(wanted: TuneOptions) -> dict[str, Any]:
    """Return the members of a tuning's body."""
    members: dict[str, Any] = dict(wanted)
    if (wait := wanted.get("max_wait")) is not None:
        members["max_wait"] = seconds(wait, "max_wait")
    return members


def headers_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request that its options make."""
    headers = {}
    for option, header in (("idempotency_key", "Idempotency-Key"), ("ticket", "Backlane-Ticket")):
        if (value := options.get(option)) is not None:
            headers[header] = _field(value, option)
    return headers


def prefer(wait: float) -> dict[str, str]:
    """Return the header that asks for an answer once the job has ended (RFC 7240)."""
    return {"Prefer": f"respond-async, wait={math.ceil(wait)}"} if wait else {}


def _field(value: object, option: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise BadOption(f"{option} is {value!r:.100}; use a text of printable ASCII characters")
    return value


def _moment(at: datetime) -> str:
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise BadOption(f"at is {at!r}; use a datetime with a time zone, or delay= for a duration")
    return at.isoformat()
