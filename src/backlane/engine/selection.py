"""Selections: which jobs, what is known of them, and what is to become of them."""

from __future__ import annotations

import msgspec

from backlane.model.job import JobRecord, State
from backlane.model.outcome import Reason


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs. Empty fields select all; all given ones must hold."""

    ids: tuple[bytes, ...] = ()
    states: tuple[State, ...] = ()
    reasons: tuple[Reason, ...] = ()
    queue: str | None = None
    task: str | None = None
    key: str | None = None
    group: str | None = None
    text: str | None = None  # in the message of an error; ASCII case is ignored
    tag: str | None = None
    workflow: bytes | None = None
    since_ms: int | None = None  # enqueued then or later
    before_ms: int | None = None  # enqueued earlier than that


class Page(msgspec.Struct, frozen=True):
    """Some records, newest enqueued first; ask again with `cursor` until it is None."""

    records: list[JobRecord]
    cursor: bytes | None = None


class Cancel(msgspec.Struct, frozen=True):
    """Waiting jobs end as cancelled at once; running ones are asked to stop."""


class Redrive(msgspec.Struct, frozen=True):
    """Failed, cancelled and expired jobs are ready again, their attempts counted anew.

    Scheduled ones become due now. A job whose key another holds by now is skipped. One with
    edges (`after`) waits again for those of its jobs that have not ended; where one of them
    ended otherwise than its edge asks for, it is skipped: redrive that one first. What is not
    known any more is not waited for.
    """


class Reprioritise(msgspec.Struct, frozen=True):
    """Waiting jobs get this priority."""

    priority: int


class Delete(msgspec.Struct, frozen=True):
    """Jobs that are not running are forgotten."""


class Move(msgspec.Struct, frozen=True):
    """Waiting jobs that are not running go to another queue, whose bound does not apply."""

    queue: str


Change = Cancel | Redrive | Reprioritise | Delete | Move


class Skipped(msgspec.Struct, frozen=True):
    """A selected job that was left as it is, and why."""

    job: bytes
    why: str


class Amended(msgspec.Struct, frozen=True):
    """What was changed, newest enqueued first; ask again with `cursor` until it is None."""

    changed: list[bytes] = []
    flagged: list[bytes] = []  # running jobs asked to stop
    skipped: list[Skipped] = []
    cursor: bytes | None = None
