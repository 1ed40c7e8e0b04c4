"""Every error backlane raises: one tree, each message says what to do.

Whatever an engine, a driver or the operating system raises is translated into
one of these where it enters, with `raise ... from error`. Parts a program needs
are attributes; the message is for people.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Protocol


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name nearest to `name`, or nothing."""
    import difflib  # here: few applications ever make a mistake to be told of

    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class BacklaneError(Exception):
    """The root of all errors of backlane."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are unpickled by calling their class with the message alone, which
        # fails where it takes more, and so would break a user's process pool.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[BacklaneError], args: tuple[object, ...], parts: dict[str, object]) -> object:
    error = kind.__new__(kind, *args)
    error.__dict__.update(parts)
    return error


# -- refusals: nothing was stored --


class Refused(BacklaneError):
    """The engine did not take a job, and nothing of it was stored."""


class QueueFull(Refused):
    """The queue takes no more now. Wait `retry_after`, then try again with the same id.

    `limit` names the bound: `"jobs"` or `"bytes"` of the queue, `"wait"` (its `max_wait`),
    `"deadline"` (of the job, which would start too late), `"group"` (the share of one
    group), `"no_workers"`, `"broker"` (which takes nothing now: it is at a bound of its own, or
    short of memory or disk) or `"moving"` (the store is being moved to another). `depth` and
    `bound` are in its unit: jobs, bytes or seconds; `jobs` is the depth in jobs whatever the
    limit. `promised` says that there is room, and that it is kept for those who were refused
    before.

    `retry_after` is None when nothing is known about the queue's speed, or when the jobs
    can never fit. Send `ticket` with the next try, or the place may go to another.
    `accepted` counts the jobs of the same `enqueue_many` that were stored before this
    refusal, `added` the jobs (or bytes) that did not fit, `waited` how long the call
    waited for room before it gave up.
    """

    def __init__(  # long: each is a part that a caller decides by
        self,
        queue: str,
        *,
        limit: str,
        depth: float,
        bound: float,
        jobs: int = 0,
        added: int = 0,
        group: str | None = None,
        promised: bool = False,
        retry_after: timedelta | None = None,
        estimated_wait: timedelta | None = None,
        ticket: str | None = None,
        can_fit: bool = True,
        accepted: int = 0,
        waited: timedelta = timedelta(0),
    ) -> None:
        self.queue, self.limit, self.depth, self.bound = queue, limit, depth, bound
        self.jobs, self.group, self.promised = jobs, group, promised
        self.retry_after, self.estimated_wait, self.ticket = retry_after, estimated_wait, ticket
        self.can_fit, self.accepted, self.added = can_fit, accepted, added
        self.waited = waited
        super().__init__(f"{_what_is_full(self)}; {_what_to_do(self)}")


def _what_is_full(full: QueueFull) -> str:
    queue, depth, bound = f"queue {full.queue!r}", full.depth, full.bound
    more = f", and {full.added} more do not fit" if full.added > 1 else ""
    if full.promised:
        return f"{queue} is busy, and the room in it is kept for those who were refused before"
    match full.limit:
        case "wait":
            return f"a new job of {queue} would wait {depth:.1f} s, its max_wait is {bound:g} s"
        case "deadline":
            return f"a new job of {queue} would wait {depth:.1f} s, and expires in {bound:g} s"
        case "group":
            whose = f"group {full.group!r} in {queue}"
            return f"{whose} holds {depth} jobs, its share is {bound}{more}"
        case "moving":
            return f"{queue} takes nothing new while its store is being moved to another"
        case "broker":
            return (
                f"the broker takes nothing for {queue} now: it is at its own bound, or short of "
                "memory or disk"
            )
        case "no_workers":
            return f"no worker serves {queue}, where a job has waited {depth:.0f} s"
        case unit:
            return f"{queue} holds {depth} {unit}, its bound is {bound}{more}"


def _what_to_do(full: QueueFull) -> str:
    if not full.can_fit:
        bound = "group_share" if full.limit == "group" else f"max_{full.limit}"
        return f"this can never fit: raise {bound} of the queue or send less at once"
    if full.limit == "no_workers":
        text = "start one, or retry later"
    elif full.retry_after is not None:
        text = f"retry in {full.retry_after.total_seconds():.1f} s"
    else:
        text = "retry later, or start more workers"
    if full.waited:
        text += f"; it waited {full.waited.total_seconds():.1f} s for room"
    return f"{text}; {full.accepted} jobs of this call were accepted" if full.accepted else text


class StoreMoved(Refused):
    """All jobs of this store are in another one now: `to` is its URL, without a password.

    Start the application (or the gateway) anew with that URL; the same ids can be sent there.
    """

    def __init__(self, to: str) -> None:
        self.to = to
        super().__init__(
            f"this store was moved to {to} and takes no jobs any more: start the application "
            "anew with that URL, and send the same ids there"
        )


class KeyReused(Refused):
    """The idempotency key came before with another call. Use a new key for a new call."""


class Duplicate(Refused):
    """A job with this key (or id) exists already; `first` is its id."""

    def __init__(self, message: str, first: uuid.UUID) -> None:
        self.first = first
        super().__init__(message)


class StaleId(Refused):
    """The id is older than the history that would tell whether it ran already."""


# -- bad input: refused before anything is stored --


class Unencodable(BacklaneError, TypeError):
    """An argument or result has no encoding; the message names the path of the value."""


class TooLarge(BacklaneError, ValueError):
    """Arguments or a result exceed the size limit; the message has both sizes in bytes."""


class Undecodable(BacklaneError, ValueError):
    """Stored bytes do not fit the types they are read as; the message names the path."""


class UnknownTask(BacklaneError, LookupError):
    """No task of that name is registered in this application."""


class UnknownOption(BacklaneError, TypeError):
    """An option that does not exist; the message offers the nearest one that does."""


class UnknownQueue(BacklaneError, LookupError):
    """A queue that this application does not declare, or that the engine does not hold."""


class UnknownResource(BacklaneError, LookupError):
    """A resource that no job in the store ever depended on."""


class UnknownSchedule(BacklaneError, LookupError):
    """A schedule that the store does not hold."""


class UnknownLimit(BacklaneError, LookupError):
    """A limit that this application does not declare, or that the store does not have."""


class BadOption(BacklaneError, ValueError):
    """An option has a value that cannot work; the message says which would."""


class WrongUse(BacklaneError, RuntimeError):
    """A call that cannot work where it was made; the message says where it can."""


class NotSupported(BacklaneError):
    """The engine lacks a capability that this needs; the message names the remedy."""


# -- what became of a job --


class JobNotFound(BacklaneError, LookupError):
    """No job of that id is stored: it never was, or its history has been pruned."""


class KeptError(Protocol):
    """What is kept of an error, as text; `kind` is the dotted name of its class."""

    @property
    def kind(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def traceback(self) -> str: ...


class JobFailed(BacklaneError):
    """The job ended as failed. `error` is the record of its last attempt, if it left one."""

    def __init__(self, message: str, reason: str, error: KeptError | None = None) -> None:
        self.reason, self.error = reason, error
        super().__init__(message)


class JobCancelled(BacklaneError):
    """The job was cancelled, so there is no result."""


class JobExpired(BacklaneError):
    """The job's `expires` passed before a worker could start it, so it never ran."""


class ResultTimeout(BacklaneError, TimeoutError):
    """The job did not finish within the wait. It goes on; ask again."""


class LimitTimeout(BacklaneError, TimeoutError):
    """No place under the limit was free within the wait. Try again, or wait for longer."""


class NoResult(BacklaneError, LookupError):
    """No job of the task has succeeded yet, so there is no newest result."""


class ResultGone(BacklaneError):
    """The job succeeded, and its result was not kept (or is kept no longer)."""


class LeaseLost(BacklaneError):
    """The lease ended or went to another; what was to be written under it was refused."""


# -- the gateway, as its client meets it --


class GatewayUnavailable(BacklaneError):
    """The gateway gave no usable answer until the call's deadline, and nothing is in doubt."""


class GatewayRefused(BacklaneError):
    """The gateway declined the request, for a reason that has no error of its own here.

    `status` is that of HTTP, `kind` the kind of its problem document, or "".
    """

    def __init__(self, message: str, status: int, kind: str = "") -> None:
        self.status, self.kind = status, kind
        super().__init__(message)


class Unauthorized(GatewayRefused):
    """The gateway does not know the token, or wants one."""


class Forbidden(GatewayRefused):
    """The token is known, and its scopes do not cover this."""


class BadArguments(GatewayRefused, ValueError):
    """The request does not fit the task; `errors` are pairs of JSON pointer and reason."""

    def __init__(
        self, message: str, status: int, kind: str, errors: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.errors = errors
        super().__init__(message, status, kind)


# -- the engine --


class OutcomeUnknown(BacklaneError):
    """The commit may or may not have happened. Send the same ids again: it is safe."""

    def __init__(self, message: str, jobs: tuple[uuid.UUID, ...] = ()) -> None:
        self.jobs = jobs
        super().__init__(message)


class EngineUnavailable(BacklaneError):
    """The engine did not answer, or its store is damaged, full or read-only."""


class EngineBusy(EngineUnavailable):
    """The engine's write lock was not free within the wait; the message names the cause."""


class StoreFull(EngineUnavailable):
    """The disk (or the store's own limit) is full. Nothing acknowledged is lost."""


class StoreCorrupt(EngineUnavailable):
    """The store is not one of ours, or is damaged; the message says how to check and salvage."""


class SchemaMismatch(EngineUnavailable):
    """The store was written by another version of backlane than this one can use."""
