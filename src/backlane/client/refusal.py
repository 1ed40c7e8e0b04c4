"""Refusals: which error an answer means, and when it says to come again.

The gateway's problem documents become the same errors that the application raises in
its own process, with the same parts. What did not come from a gateway of ours, such
as a proxy's page, is told by its status.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from backlane.client.step import Answer
from backlane.errors import (
    BacklaneError,
    BadArguments,
    Duplicate,
    EngineUnavailable,
    Forbidden,
    GatewayRefused,
    JobNotFound,
    KeyReused,
    NotSupported,
    OutcomeUnknown,
    QueueFull,
    StaleId,
    TooLarge,
    Unauthorized,
    UnknownLimit,
    UnknownQueue,
    UnknownTask,
    WrongUse,
)
from backlane.problem import MEDIA_TYPE, URN


class Told(msgspec.Struct, frozen=True):
    """When to come again, as the server says it.

    With `is_estimate` somebody has reckoned when there will be room. Without, it is a
    constant that everybody is told, so that all who obey it alone come together.
    """

    seconds: float
    is_estimate: bool


def document_of(answer: Answer) -> Mapping[str, Any]:
    """Return the members of an answer's problem document, or none."""
    if answer.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        return {}
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def kind_of(answer: Answer) -> str:
    """Return the kind of an answer's problem, or ""."""
    kind = str(document_of(answer).get("type", ""))
    return kind[len(URN) :] if kind.startswith(URN) else ""


# Of our own gateway: these are told a constant.
_UNRECKONED = frozenset({"unavailable", "outcome-unknown"})


def told_of(answer: Answer, now: datetime) -> Told | None:
    """Return when an answer says to come again, if it does.

    The document's `retry_after` is exact and goes before the header of whole seconds.
    """
    document, kind = document_of(answer), kind_of(answer)
    exact = _number(document.get("retry_after"))
    if kind == "busy" and exact is not None:
        return Told(exact, is_estimate=True)
    seconds = _header_seconds(answer.headers, now)
    if seconds is None:
        return None
    # A full queue of unknown speed is told a constant too, and means it: by then the speed
    # is known. On the retry budget a crowd would come in one by one, a second apart.
    return Told(seconds, is_estimate=kind not in _UNRECKONED)


def _header_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return `Retry-After` in seconds: given so, or as an HTTP date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = _date(text)
    if until is None:
        return None
    # Measured on the server's own clock, where it shows that: ours may be wrong.
    there = _date(headers.get("date", ""))
    return max(0.0, (until - (there or now)).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def error_of(answer: Answer) -> BacklaneError:  # long: one line for each kind there is
    """Return the error that an answer means."""
    document, kind = document_of(answer), kind_of(answer)
    said = str(document.get("detail") or document.get("title") or _shown(answer))
    match kind:
        case "busy" | "never-fits":
            return _full(document, answer, can_fit=kind == "busy")
        case "key-reused":
            return KeyReused(said)
        case "stale-id":
            return StaleId(said)
        case "duplicate" if (first := _uuid(document.get("first"))) is not None:
            return Duplicate(said, first)
        case "unknown-task":
            return UnknownTask(said)
        case "unknown-job":
            return JobNotFound(said)
        case "unknown-queue":
            return UnknownQueue(said)
        case "unknown-limit":
            return UnknownLimit(said)
        case "wrong-kind":
            return WrongUse(said)
        case "too-large":
            return TooLarge(said)
        case "not-supported":
            return NotSupported(said)
        case "unavailable":
            return EngineUnavailable(said)
        case "outcome-unknown":
            return OutcomeUnknown(said, _uuids(document.get("ids")))
        case "invalid-arguments":
            return _bad_arguments(said, answer.status, document)
    return _of_status(said, answer, kind)


def _of_status(said: str, answer: Answer, kind: str) -> BacklaneError:
    match answer.status:
        case 401:
            return Unauthorized(said, 401, kind)
        case 403:
            return Forbidden(said, 403, kind)
        case 413:
            return TooLarge(said)
        case status if 300 <= status < 400:
            # Not followed: the token is for the address that was given, and nobody else's.
            where = answer.headers.get("location", "elsewhere")
            return GatewayRefused(
                f"the gateway redirects to {where}; make the client with that address", status
            )
        case status:
            return GatewayRefused(said, status, kind)


def _shown(answer: Answer) -> str:
    text = answer.body[:200].decode("utf-8", "replace").strip()
    return f"HTTP {answer.status}" + (f": {text}" if text else " without a body")


def _full(document: Mapping[str, Any], answer: Answer, *, can_fit: bool) -> QueueFull:
    group = document.get("group")
    ticket = document.get("ticket", answer.headers.get("backlane-ticket"))
    return QueueFull(
        str(document.get("queue", "")),
        limit=str(document.get("limit", "jobs")),
        depth=_number(document.get("depth")) or 0,
        bound=_number(document.get("bound")) or 0,
        jobs=int(_number(document.get("jobs")) or 0),
        added=int(_number(document.get("added")) or 0),
        group=None if group is None else str(group),
        promised=document.get("promised") is True,
        retry_after=_duration(document.get("retry_after")),
        estimated_wait=_duration(document.get("estimated_wait")),
        ticket=None if ticket is None else str(ticket),
        can_fit=can_fit,
        accepted=int(_number(document.get("accepted")) or 0),
    )


def _bad_arguments(said: str, status: int, document: Mapping[str, Any]) -> BadArguments:
    told = document.get("errors")
    each = tuple(
        (str(error.get("pointer", "")), str(error.get("detail", "")))
        for error in (told if isinstance(told, list) else [])
        if isinstance(error, dict)
    )
    where = "".join(f"; {pointer or 'the body'}: {detail}" for pointer, detail in each)
    return BadArguments(said + where, status, "invalid-arguments", each)


def _number(given: object) -> float | int | None:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return given if 0 <= given <= 1e12 else None


def _duration(given: object) -> timedelta | None:
    seconds = _number(given)
    return None if seconds is None or seconds > 1e9 else timedelta(seconds=seconds)


def _uuid(given: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(given))
    except ValueError:
        return None


def _uuids(given: object) -> tuple[uuid.UUID, ...]:
    each = (_uuid(item) for item in (given if isinstance(given, list) else []))
    return tuple(found for found in each if found is not None)
