"""Records: what the gateway tells of a job, a queue or a message."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from backlane.client.step import Answer
from backlane.errors import (
    GatewayRefused,
    JobCancelled,
    JobExpired,
    JobFailed,
    ResultGone,
)
from backlane.model.job import State

T = TypeVar("T")


class RemoteProgress(msgspec.Struct, frozen=True):
    """How far a running job says it is."""

    fraction: float | None = None  # 0..1
    message: str | None = None


class RemoteError(msgspec.Struct, frozen=True):
    """The error that ended the last attempt that failed; its traceback stays where it ran."""

    kind: str  # the dotted name of its class
    message: str
    attempt: int = 0
    at: datetime | None = None

    @property
    def traceback(self) -> str:
        """Nothing: a gateway tells no traceback. It is there for who reads `JobFailed.error`."""
        return ""


class RemoteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that the gateway tells of a job, as it was when it was read.

    .. versionadded:: 0.1
    """

    id: uuid.UUID
    task: str | None
    queue: str
    state: State
    priority: int
    attempt: int = 0  # executions counted so far
    revision: int = 1  # +1 at every change
    enqueued_at: datetime
    due_at: datetime | None = None
    started_at: datetime | None = None  # of the running or last attempt
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    progress: RemoteProgress | None = None
    reason: str | None = None  # why it failed
    error: RemoteError | None = None
    group: str | None = None
    key: str | None = None
    resource: str | None = None
    cancelling: bool = False
    expected_wait: float | None = None  # seconds; only known when it was submitted
    result: Any | UnsetType = UNSET  # plain data; unset until it succeeded, or when not kept

    def value(self) -> Any:
        """Return the result of a job that has ended.

        Raises:
            JobFailed, JobCancelled, JobExpired: it did not succeed.
            ResultGone: its result was not kept.
        """
        name = f"job {self.id} ({self.task})"
        match self.state:
            case State.FAILED:
                last = f": {self.error.kind}: {self.error.message}" if self.error else ""
                reason = self.reason or "error"
                raise JobFailed(f"{name} failed ({reason}){last}", reason, self.error)
            case State.CANCELLED:
                raise JobCancelled(f"{name} was cancelled, so there is no result")
            case State.EXPIRED:
                raise JobExpired(f"{name} expired before a worker could start it")
        if self.result is UNSET:
            raise ResultGone(f"{name} succeeded and its result was not kept")
        return self.result


class RemoteMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was received, and the receipt to ack, release or extend it by.

    .. versionadded:: 0.1
    """

    id: uuid.UUID
    receipt: str
    body: bytes
    attempt: int  # which delivery this is; 1 is the first
    enqueued_at: datetime
    headers: dict[str, str]


class RemoteDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The unfinished jobs of a queue by state, and their bytes."""

    jobs: int = 0
    scheduled: int = 0
    ready: int = 0
    running: int = 0
    blocked: int = 0
    bytes: int = 0


class RemoteBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The most a queue holds; None where nothing bounds it, or nothing was tuned."""

    max_jobs: int | None = None
    max_bytes: int | None = None
    max_wait: float | None = None  # seconds
    group_share: float | None = None


class RemoteCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a queue's jobs since it was made."""

    appended: int = 0
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    retried: int = 0


class RemoteQueueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that the gateway tells of a queue. Durations are seconds, rates jobs a second.

    .. versionadded:: 0.1
    """

    name: str
    kind: str = "tasks"
    paused: bool = False
    depth: RemoteDepth = RemoteDepth()
    bounds: RemoteBounds = RemoteBounds()  # in force
    tuned: RemoteBounds = RemoteBounds()  # set at run time
    oldest_ready_age: float | None = None
    pressure: float | None = None  # 0..1
    expected_wait: float | None = None  # of a job of usual priority; None: not known
    service_rate: float | None = None
    arrival_rate: float | None = None
    counters: RemoteCounters = RemoteCounters()


class RemoteQueues(msgspec.Struct, frozen=True):
    """The answer that lists queues."""

    queues: list[RemoteQueueRecord]


class Sent(msgspec.Struct, frozen=True):
    """The answer to a message that was sent."""

    id: uuid.UUID


class _Messages(msgspec.Struct, frozen=True):
    messages: list[_Message]


class _Message(msgspec.Struct, frozen=True):
    id: uuid.UUID
    receipt: str
    attempt: int
    enqueued_at: datetime
    body: str
    headers: dict[str, str] = {}


class Done(msgspec.Struct, frozen=True):
    """What became of receipts: done, or lost because their leases had ended."""

    done: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (RemoteRecord, RemoteQueueRecord, RemoteQueues, Sent, Done, _Messages)
}


def read(answer: Answer, kind: type[T]) -> T:
    """Return the record in an answer.

    Raises:
        GatewayRefused: it is not what a gateway answers: is the address right?
    """
    return read_bytes(answer.body, kind, answer.status)


def read_bytes(body: bytes, kind: type[T], status: int = 200) -> T:
    """Like `read`, of what stood in a stream."""
    try:
        value: T = _DECODERS[kind].decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _strange(status, f"{error}") from error
    return value


def read_messages(answer: Answer) -> list[RemoteMessage]:
    """Return the messages in an answer to a receive."""
    try:
        return [
            RemoteMessage(
                id=each.id,
                receipt=each.receipt,
                body=base64.b64decode(each.body, validate=True),
                attempt=each.attempt,
                enqueued_at=each.enqueued_at,
                headers=each.headers,
            )
            for each in read(answer, _Messages).messages
        ]
    except binascii.Error as error:
        raise _strange(answer.status, "a body is not base64") from error


def _strange(status: int, why: str) -> GatewayRefused:
    return GatewayRefused(
        f"the answer (HTTP {status}) is not that of a gateway: {why}; is the address right, up "
        "to where the gateway is mounted?",
        status,
    )
