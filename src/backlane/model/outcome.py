"""How an attempt ended: one small frozen value, which `settle` carries out.

These are msgspec structs: they cross the pipe between executor and dispatcher as
they are, and building one costs a tenth of what a frozen dataclass does.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a job is in state failed."""

    ERROR = "error"  # it raised an error that its retry policy does not retry
    ATTEMPTS = "attempts"  # every attempt it was allowed failed
    CRASHED = "crashed"  # it took its process down, or was lost with it, once too often
    TIMEOUT = "timeout"  # its last attempt ran out of time
    UNKNOWN_TASK = "unknown_task"  # no worker knew its task for an hour
    UNDECODABLE = "undecodable"  # its arguments do not fit the task's annotations
    UNSTORABLE = "unstorable"  # its result could not be encoded or stored


class ErrorRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of an error: text only, never the object."""

    kind: str  # the dotted name of its class
    message: str
    traceback: str = ""
    fingerprint: str = ""  # equal for errors of one cause: class and the lines of our frames


class Succeeded(msgspec.Struct, frozen=True, array_like=True, tag="succeeded"):
    """The function returned; `result` is its encoded value, or None to keep nothing."""

    result: bytes | None = None


class RetryAfter(msgspec.Struct, frozen=True, array_like=True, tag="retry"):
    """The attempt failed; the job is due again `delay_ms` after the engine's now."""

    delay_ms: int
    error: ErrorRecord


class Snoozed(msgspec.Struct, frozen=True, array_like=True, tag="snoozed"):
    """The job asked to be put off: due again after `delay_ms`, attempt not counted.

    `parked` marks a job whose task this worker does not know; the engine remembers
    when that was first said (`Lease.parked_ms`).
    """

    delay_ms: int
    parked: bool = False


class Cancelled(msgspec.Struct, frozen=True, array_like=True, tag="cancelled"):
    """The attempt stopped because its job was cancelled."""

    error: ErrorRecord | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """No retry will help: the job becomes a dead letter."""

    reason: Reason
    error: ErrorRecord


class Released(msgspec.Struct, frozen=True, array_like=True, tag="released"):
    """The attempt did not start, or was given back: same place, attempt not counted."""


class Crashed(msgspec.Struct, frozen=True, array_like=True, tag="crashed"):
    """The attempt's process died under it.

    The engine counts the attempt, keeps the job's place and moves it to the exclusive
    lane, where it runs alone. `alone` says that it did so already: only then the crash
    counts to the poison cap (`POISON_CAP`), at which the job is failed as crashed.
    """

    alone: bool
    error: ErrorRecord


class Awaiting(msgspec.Struct, frozen=True, array_like=True, tag="awaiting"):
    """The job waits, blocked, until these jobs have ended, however they did; then it runs
    again from the place it had. The attempt is not counted.

    Jobs that ended already, unknown ones and the job itself are not waited for. The records
    of all that are known stay until this job has ended.
    """

    jobs: tuple[bytes, ...]


Outcome = Succeeded | RetryAfter | Snoozed | Cancelled | Failed | Released | Crashed | Awaiting

POISON_CAP = 3  # crashes alone in a process before a job is buried


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of one lease, fenced by its token."""

    job: bytes
    token: int
    outcome: Outcome
    ran_ms: int = 0  # how long the function ran
