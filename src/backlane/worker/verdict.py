"""Verdicts: what an error, a timeout or a crash means for its job.

Pure functions from (lease, policy, error) to an outcome. What is kept of an error is
text: bounded, without local variables, and made so that no error, however broken its
`__str__`, can stop its own recording.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import traceback
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from backlane.context import Joining, Snooze
from backlane.errors import JobCancelled, QueueFull, WrongUse
from backlane.model.job import Lease
from backlane.model.outcome import (
    Awaiting,
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Snoozed,
)
from backlane.model.retry import Retry, delay_ms

MESSAGE_CHARS = 2_000
TRACEBACK_CHARS = 8_000  # enough for some forty frames; rows of errors stay small
QUEUE_FULL_MS = 5_000  # when the refusal itself knows no better
QUEUE_FULL_LEAST_MS = 100
HARD_AFTER_SOFT_MS = 5_000  # unless the task says otherwise
PARKED_FIRST_MS = 1_000
PARKED_LONGEST_MS = 300_000
PARKED_END_MS = 3_600_000  # an hour: longer than a deploy takes to reach every machine

_OURS = str(Path(__file__).resolve().parent.parent)


class Stop(StrEnum):
    """Why a running attempt was asked to stop."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    LOST = "lost"  # its lease is another's by now: nothing it says counts
    LEAVING = "leaving"  # the worker ends; the job is given back


def judge(error: BaseException, lease: Lease, retry: Retry, stop: Stop | None) -> Outcome:
    """Return what becomes of a job whose function raised `error`.

    `stop` is what the function had been asked for by then. A cancelled job is never
    retried; one out of time ends by the policy it was enqueued with.
    """
    if stop is not None:
        return _stopped(error, lease, retry, stop)
    if isinstance(error, Snooze):
        return Snoozed(error.delay_ms)
    if isinstance(error, Joining):
        return Awaiting(error.jobs)
    if isinstance(error, QueueFull) and error.can_fit:
        return Snoozed(_room_ms(error))
    return _by_policy(error, lease, retry)


def _room_ms(full: QueueFull) -> int:
    """Return how long a job that met a full queue is put off: as told, or about 5 s.

    Never for no time at all, and not all for the same time: they met it together.
    """
    if full.retry_after is not None:
        return max(QUEUE_FULL_LEAST_MS, full.retry_after // timedelta(milliseconds=1))
    return int(QUEUE_FULL_MS * (0.5 + random.random()))  # noqa: S311 - spread, not secrecy


def _stopped(error: BaseException, lease: Lease, retry: Retry, stop: Stop) -> Outcome:
    heard = isinstance(error, JobCancelled | asyncio.CancelledError)
    match stop:
        case Stop.CANCELLED:
            return Cancelled(None if heard else recorded(error))
        case Stop.TIMEOUT:
            if heard or isinstance(error, TimeoutError):
                return overran(lease, error)
            return _by_policy(error, lease, retry)
        case Stop.LOST | Stop.LEAVING:
            return Released()


def _by_policy(error: BaseException, lease: Lease, retry: Retry) -> Outcome:
    record = recorded(error)
    # A wrong use (such as to wait for another job's result) is wrong at every attempt.
    if isinstance(error, WrongUse) or not retry.covers(error):
        return Failed(Reason.ERROR, record)
    executions = lease.attempt + 1
    return RetryAfter(delay_ms(executions, lease.policy.base_ms, lease.policy.cap_ms), record)


def hard_ms(lease: Lease) -> int | None:
    """Return after how long an attempt is ended, or None when it has no limit."""
    policy = lease.policy
    if policy.hard_ms is not None:
        return policy.hard_ms
    return None if policy.soft_ms is None else policy.soft_ms + HARD_AFTER_SOFT_MS


def overran(lease: Lease, error: BaseException | None = None) -> Outcome:
    """Return what becomes of a job whose attempt ran out of time."""
    policy, executions = lease.policy, lease.attempt + 1
    limit = policy.soft_ms if policy.soft_ms is not None else policy.hard_ms
    seconds = "its limit" if limit is None else f"{limit / 1000:g} s"
    where = recorded(error) if error is not None else None
    record = ErrorRecord(
        "TimeoutError",
        f"the attempt ran longer than {seconds}",
        where.traceback if where else "",
        where.fingerprint if where else _digest("TimeoutError", lease.task or ""),
    )
    if not policy.retries_timeout or executions >= policy.attempts:
        return Failed(Reason.TIMEOUT, record)
    return RetryAfter(delay_ms(executions, policy.base_ms, policy.cap_ms), record)


def crashed(lease: Lease, *, alone: bool, how: str) -> Crashed:
    """Return the outcome of an attempt whose process died under it."""
    record = ErrorRecord("ProcessDied", how, "", _digest("ProcessDied", lease.task or "", how))
    return Crashed(alone, record)


def parked(lease: Lease) -> Outcome:
    """Return the outcome of a job whose task this application does not know.

    Another version of it may: the job is put off, longer each time, for an hour.
    """
    waited = lease.parked_ms or 0
    if waited < PARKED_END_MS:
        return Snoozed(min(PARKED_LONGEST_MS, max(PARKED_FIRST_MS, waited // 2)), parked=True)
    text = (
        f"no worker has known task {lease.task!r} for {waited // 60_000} minutes; start one that "
        "does and redrive the job, or delete it"
    )
    return Failed(Reason.UNKNOWN_TASK, ErrorRecord("UnknownTask", text))


def spoilt(reason: Reason, error: BaseException) -> Failed:
    """Return the outcome of a job whose bytes or result no retry will mend."""
    return Failed(reason, recorded(error))


def recorded(error: BaseException) -> ErrorRecord:
    """Return what is kept of an error. Never raises, whatever the error does."""
    kind = _kind(error)
    # Asked of BaseException itself: a class may put something else in its place.
    frames = _frames(vars(BaseException)["__traceback__"].__get__(error))
    return ErrorRecord(
        kind,
        _clipped(_message(error), MESSAGE_CHARS),
        _clipped(_traceback(error), TRACEBACK_CHARS),
        _digest(kind, *frames),
    )


def _kind(error: BaseException) -> str:
    cls = type(error)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001 - a broken __str__ must not hide the error
        return f"<its message cannot be shown: __str__ raised {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.TracebackException.from_exception(error, compact=True).format()
        return "".join(lines)
    except BaseException as broken:  # noqa: BLE001 - as above
        return f"<its traceback cannot be shown: {type(broken).__name__}>"


def _frames(tb: TracebackType | None) -> list[str]:
    """Return the user's frames as `file:function`: stable when lines move by an edit."""
    frames = []
    while tb is not None:
        code = tb.tb_frame.f_code
        if not code.co_filename.startswith(_OURS):
            frames.append(f"{code.co_filename}:{code.co_name}")
        tb = tb.tb_next
    return frames[-20:]  # the deepest tell causes apart; recursion must not tell depths apart


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=8)
    return digest.hexdigest()


def _clipped(text: str, most: int) -> str:
    """Return `text` in at most about `most` characters, keeping its start and more of its end."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be stored
    if len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: most // 4]}\n… {left_out} characters left out …\n{text[-(most * 3 // 4) :]}"
