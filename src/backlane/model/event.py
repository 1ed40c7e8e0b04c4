"""Events: frozen records of what happened, for observers.

An observer only watches. One that raises is logged and stays: it is never detached
and never in the way of the work it watches. Events are msgspec structs, because eight
dataclasses would cost `import backlane` a tenth of its time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta

import msgspec

log = logging.getLogger("backlane")


class JobEnqueued(msgspec.Struct, frozen=True):
    """A job was stored (`is_new`), or was known already."""

    job: uuid.UUID
    task: str | None
    queue: str
    is_new: bool


class JobRefused(msgspec.Struct, frozen=True):
    """`count` jobs were refused; `limit` says by what."""

    task: str | None
    queue: str
    limit: str
    count: int


class RoomAwaited(msgspec.Struct, frozen=True):
    """A caller with `count` jobs met a full queue and waits `wait` before the next try.

    `limit` says what was full. See `on_full="wait"`.
    """

    task: str | None
    queue: str
    limit: str
    count: int
    wait: timedelta


class AttemptStarted(msgspec.Struct, frozen=True):
    """A function is about to run. `waited` is the time since its job was enqueued."""

    job: uuid.UUID
    task: str
    queue: str
    attempt: int
    waited: timedelta


class AttemptEnded(msgspec.Struct, frozen=True):
    """A function has ended. `outcome` is the outcome's class name in lower case."""

    job: uuid.UUID
    task: str
    queue: str
    attempt: int
    outcome: str
    ran: timedelta
    error: str | None


class LeaseLost(msgspec.Struct, frozen=True):
    """A lease ended under its holder; what it writes from now on is refused."""

    job: uuid.UUID
    task: str | None
    queue: str


class JobBuried(msgspec.Struct, frozen=True):
    """A job became a dead letter."""

    job: uuid.UUID
    task: str | None
    queue: str
    reason: str


class QueueChanged(msgspec.Struct, frozen=True):
    """A queue was tuned, paused or resumed."""

    queue: str
    change: str


class ResourceChanged(msgspec.Struct, frozen=True):
    """A resource's breaker opened, tries or closed, as this worker sees it; `why` it opened."""

    resource: str
    state: str  # "open" | "trying" | "closed"
    why: str | None


class WorkerChanged(msgspec.Struct, frozen=True):
    """The worker that runs this process `"started"`, or is `"draining"`: it claims no more."""

    owner: str
    change: str


Event = (
    JobEnqueued
    | JobRefused
    | RoomAwaited
    | AttemptStarted
    | AttemptEnded
    | LeaseLost
    | JobBuried
    | QueueChanged
    | ResourceChanged
    | WorkerChanged
)

Observer = Callable[[Event], None]


class Observers:
    """Who listens. Falsy while nobody does, so that a hot path need not build events."""

    __slots__ = ("_observers",)

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def tell(self, event: Event) -> None:
        """Call every observer; log and go on where one raises."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # an observer is never in the way, whatever it raises
                log.exception("observer %r raised on %r; it stays attached", observer, event)
