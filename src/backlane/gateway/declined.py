"""Declined: a request that is answered with a problem, and which problem an error means.

Endpoints raise; one place answers. Whatever comes out of the application that is not
listed here is a fault of ours or of the user's code: it is told as 500, without what is
inside, under an id that the log has too.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import NoReturn

from backlane.errors import (
    BacklaneError,
    BadOption,
    Duplicate,
    EngineBusy,
    EngineUnavailable,
    JobNotFound,
    NotSupported,
    OutcomeUnknown,
    QueueFull,
    Refused,
    StaleId,
    StoreFull,
    StoreMoved,
    TooLarge,
    Unencodable,
    UnknownLimit,
    UnknownOption,
    UnknownQueue,
    UnknownSchedule,
    UnknownTask,
    WrongUse,
)
from backlane.problem import Problem, busy, problem

log = logging.getLogger("backlane.gateway")

RETRY_SECONDS = "1"  # a store that is busy or away: soon, it usually is for moments


class Declined(Exception):
    """The request is answered with this problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.status)


def decline(
    status: int,
    kind: str,
    title: str,
    detail: str,
    headers: tuple[tuple[str, str], ...] = (),
    **members: object,
) -> NoReturn:
    """Answer the request with a problem."""
    raise Declined(problem(status, kind, title, detail, headers=headers, **members))


def misfit(detail: str, *errors: tuple[str, str]) -> Declined:
    """Return the answer to a body that is JSON, and not what is asked for.

    `errors` are JSON pointers into the body, each with what is wrong there.
    """
    told = [{"pointer": pointer, "detail": text} for pointer, text in errors]
    return Declined(
        problem(422, "invalid-arguments", "The request does not fit", detail, errors=told)
    )


def problem_of(error: Exception) -> Problem:  # long: one line for each error there is
    """Return the problem that an error is told as."""
    match error:
        case Declined():
            return error.problem
        case QueueFull():
            return busy(error)
        case StaleId():
            return problem(409, "stale-id", "The id is too old", str(error))
        case Duplicate():
            first = str(error.first)
            return problem(409, "duplicate", "There is such a job already", str(error), first=first)
        case StoreMoved():
            return _outage(error)
        case Refused():
            return problem(422, "key-reused", "The key was used for another request", str(error))
        case TooLarge():
            return problem(413, "too-large", "The content is too large", str(error))
        case Unencodable():
            return misfit(str(error)).problem
        case BadOption() | UnknownOption():
            return misfit(str(error)).problem
        case JobNotFound():
            return problem(404, "unknown-job", "There is no such job", str(error))
        case UnknownTask():
            return problem(404, "unknown-task", "There is no such task", str(error))
        case UnknownQueue():
            return problem(404, "unknown-queue", "There is no such queue", str(error))
        case UnknownSchedule():
            return problem(404, "unknown-schedule", "There is no such schedule", str(error))
        case UnknownLimit():
            return problem(404, "unknown-limit", "There is no such limit", str(error))
        case WrongUse():
            return problem(409, "wrong-kind", "The queue holds another kind", str(error))
        case NotSupported():
            return problem(501, "not-supported", "The store cannot do this", _LACKS)
        case OutcomeUnknown():
            return _unknown_outcome(error)
        case EngineUnavailable():
            return _outage(error)
        case _:
            return _fault(error)


_LACKS = "the store behind this gateway lacks what the request needs; leave that out of it"


class Seldom:
    """Says what would otherwise be said with every request, once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = -1.0

    def warn(self, text: str, *values: object) -> None:
        """Log a warning, unless one was logged less than a second ago."""
        now = self._clock()
        if now - self._said >= 1 or self._said < 0:
            self._said = now
            log.warning(text, *values)


_outages = Seldom()


def _outage(error: EngineUnavailable | StoreMoved) -> Problem:
    """Tell of a store that is away; where it is, and who holds it, is for the log."""
    _outages.warn("the store does not take requests: %s", error)
    match error:
        case EngineBusy():
            detail = "another transaction has held the store for too long; send it again"
        case StoreMoved():
            detail = "the store was moved; send it again once the gateway is started anew"
        case StoreFull():
            detail = "the store is full; send it again once there is room"
        case _:
            detail = "the store does not answer; send it again"
    return problem(
        503,
        "unavailable",
        "The store does not take it now",
        detail,
        headers=[("Retry-After", RETRY_SECONDS)],
    )


def _unknown_outcome(error: OutcomeUnknown) -> Problem:
    return problem(
        503,
        "outcome-unknown",
        "It may be stored, or not",
        "the store did not say whether it kept the request: send it again with the same "
        "Idempotency-Key, or with the id given here, and it is stored once",
        headers=[("Retry-After", RETRY_SECONDS)],
        ids=[str(job) for job in error.jobs],
    )


def _fault(error: Exception) -> Problem:
    request = secrets.token_hex(8)
    kind = "an error" if isinstance(error, BacklaneError) else "a fault"
    log.error("%s ended request %s", kind, request, exc_info=error)
    return problem(
        500,
        "fault",
        "The request failed here",
        f"the log of the gateway has the cause under request {request}",
        request=request,
    )
