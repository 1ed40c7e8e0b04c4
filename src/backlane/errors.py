"""Every error backlane raises: one tree, each message says what to do.

Whatever an engine, a driver or the operating system raises is translated into
one of these where it enters, with `raise ... from error`. Parts a program needs
are attributes; the message is for people.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Protocol


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name nearest to `name`, or nothing."""
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
    """The queue is at its bound. Wait `retry_after`, then try again with the same id.

    `limit` names the bound: `"jobs"` or `"bytes"`. `retry_after` is None when nothing
    is known about the queue's speed, or when the jobs can never fit. `accepted` counts
    the jobs of the same `enqueue_many` that were stored before this refusal, `added`
    the jobs (or bytes) that did not fit.
    """

    def __init__(  # long: each is a part that a caller decides by
        self,
        queue: str,
        *,
        limit: str,
        depth: int,
        bound: int,
        added: int = 0,
        retry_after: timedelta | None = None,
        estimated_wait: timedelta | None = None,
        ticket: str | None = None,
        can_fit: bool = True,
        accepted: int = 0,
    ) -> None:
        self.queue, self.limit, self.depth, self.bound = queue, limit, depth, bound
        self.retry_after, self.estimated_wait, self.ticket = retry_after, estimated_wait, ticket
        self.can_fit, self.accepted, self.added = can_fit, accepted, added
        unit = "jobs" if limit == "jobs" else limit
        if not can_fit:
            what_to_do = f"this can never fit: raise max_{limit} of the queue or send less at once"
        elif retry_after is not None:
            what_to_do = f"retry in {retry_after.total_seconds():.1f} s"
        else:
            what_to_do = "retry later, or start more workers"
        more = f", and {added} more do not fit" if added > 1 else ""
        if accepted:
            what_to_do += f"; {accepted} jobs of this call were accepted"
        super().__init__(
            f"queue {queue!r} holds {depth} {unit}, its bound is {bound}{more}; {what_to_do}"
        )


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


class ResultGone(BacklaneError):
    """The job succeeded, and its result was not kept (or is kept no longer)."""


class LeaseLost(BacklaneError):
    """The lease ended or went to another; what was to be written under it was refused."""


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
