"""Scheduling: what the verbs of schedules take and answer.

What a schedule means is the model's affair. A store keeps of each up to when it was applied
(`last_ms`) and when it is next to be looked at (`next_ms`). Whoever looks computes what is
due and ticks; a tick counts only if nobody else ticked that schedule in the meantime, so any
number may look.
"""

from __future__ import annotations

import msgspec

from backlane.model.job import Job, Refusal


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the engine has it. Times are wall-clock milliseconds of the store."""

    name: str
    spec: bytes  # opaque to the engine
    task: str
    is_declared: bool = False  # by code: it goes when no code declares it any more
    paused: bool = False
    revision: int = 0  # +1 at every change, also at a tick. A new one begins with the store's
    # now, so that a tick that was made for one of its name before it does not count
    last_ms: int = 0  # all that was due up to then is done with
    next_ms: int | None = None  # when to look again; None: at once
    last_job: bytes | None = None  # of the newest tick that made one: the last of its jobs
    # (where that was a duplicate: the one that stands for it)


class Timetable(msgspec.Struct, frozen=True):
    """Schedules by name, the store's own now, and the earliest `next_ms` of those not due."""

    now_ms: int
    schedules: list[ScheduleRecord] = []
    next_ms: int | None = None


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule is to be there, with this spec.

    A new one begins now: `last_ms` is the store's now. One that has another spec or task
    begins anew as well; whether it is paused, and its last job, stay. Of one that is as given
    nothing changes, but that it was declared just now. What is put at run time (not
    declared) stays until it is removed, whatever code says; code that declares a name that
    was put so leaves it as it is. A put over a declared one makes it one of run time.
    """

    spec: bytes
    task: str
    is_declared: bool = False


class Pause(msgspec.Struct, frozen=True):
    """It is not looked at any more. One that is paused already is left as it is."""


class Resume(msgspec.Struct, frozen=True):
    """It goes on from now: what was due while it was paused is not caught up with.

    One that is not paused is left as it is.
    """


class Remove(msgspec.Struct, frozen=True):
    """It is forgotten. Jobs that it made stay."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a schedule once comes to."""

    name: str
    revision: int  # as it was read
    last_ms: int
    next_ms: int | None  # None: it never fires again, and is forgotten
    jobs: tuple[Job, ...] = ()


class Ticked(msgspec.Struct, frozen=True):
    """`is_applied` is False where another was first (or the schedule is gone), or where
    `refusal` says why not."""

    name: str
    is_applied: bool
    refusal: Refusal | None = None
