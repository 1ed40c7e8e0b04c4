"""Queues: a named, bounded line of jobs, as an application declares it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

import msgspec

from backlane.errors import BadOption
from backlane.model.limit import Use
from backlane.model.limiting import Limit, checked_limit, use
from backlane.model.option import check_options
from backlane.model.retry import Duration, milliseconds

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

DEFAULT_MAX_JOBS = 100_000
DEFAULT_MAX_BYTES = 256 * 1024 * 1024
MOST = 2**62  # of any bound: stores count so far

RunsIn = Literal["loop", "thread", "process"]
Ordering = Literal["group"]  # the jobs of a group run one at a time, in order
OnFull = Literal["refuse", "wait"]  # what becomes of a caller that meets a full queue

ON_FULL_TIMEOUT: Duration = 30.0  # seconds, of a caller that waits for room


def checked_name(name: str, what: str) -> str:
    """Return the name of a queue, task, key scope or worker, or refuse it.

    Raises:
        BadOption: it is not 1 to 128 letters, digits, `_`, `.`, `:` or `-`.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadOption(
            f"{name!r} cannot name a {what}: use 1 to 128 letters, digits, '_', '.', ':' or '-'"
        )
    return name


class Kind(StrEnum):
    """What a queue holds. The first use fixes it."""

    TASKS = "tasks"
    MESSAGES = "messages"


class Bounds(msgspec.Struct, frozen=True):
    """The most a queue holds: jobs in the four waiting states, and their bytes.

    `max_wait_ms` bounds what a new job is expected to wait until a worker takes it,
    `group_share` the part of `max_jobs` that the jobs of one group may fill.
    """

    max_jobs: int = DEFAULT_MAX_JOBS
    max_bytes: int = DEFAULT_MAX_BYTES
    max_wait_ms: int | None = None
    group_share: float | None = None

    def tuned(
        self,
        max_jobs: int | None = None,
        max_bytes: int | None = None,
        max_wait_ms: int | None = None,
        group_share: float | None = None,
    ) -> Bounds:
        """Return what is in force: what was tuned goes first, and a wait of 0 lifts it."""
        wait_ms = self.max_wait_ms if max_wait_ms is None else max_wait_ms
        return Bounds(
            max_jobs or self.max_jobs,
            max_bytes or self.max_bytes,
            wait_ms or None,
            group_share or self.group_share,
        )


DEFAULT_BOUNDS = Bounds()


def headroom(max_jobs: int) -> int:
    """Return the places above `max_jobs` for work born inside a job: 10 %, at least 10."""
    return max(10, max_jobs // 10)


def group_places(bounds: Bounds) -> int:
    """Return how many jobs of one group the queue holds: its share, at least 1."""
    if bounds.group_share is None:
        return bounds.max_jobs
    # Rounded first: 0.29 of 100 comes to a hair below 29.
    return max(1, int(round(bounds.group_share * bounds.max_jobs, 6)))


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and what the application asks of it.

    Args:
        name: letters, digits, `_`, `.`, `:` or `-`.
        max_jobs: the most jobs it holds; one more is refused with `QueueFull`.
        max_bytes: the most bytes of arguments and headers it holds.
        runs_in: where its plain functions run unless the task says: `"thread"`, or
            `"process"` (alone in a process that can be killed).
        concurrency: the most jobs of it that one worker runs at a time; None is
            bounded by the worker's own slots alone.
        max_wait: the longest that a new job may be expected to wait until a worker
            takes it; one that would wait longer is refused.
        group_share: the part of `max_jobs`, above 0 and up to 1, that the jobs of one
            group may fill.
        on_full: `"refuse"` raises `QueueFull` at once, `"wait"` waits for room.
        on_full_timeout: how long it waits at most, in all.
        limit: how many of its jobs run at a time, or begin in a time, over all workers.
        fair: its groups get the same share of the workers, whatever each sends.
        ordering: `"group"`: the jobs of a group run one at a time, in the order of
            their enqueue, each until it has ended.

    Raises:
        BadOption: a value cannot work.
        UnknownOption: an option does not exist; names the nearest one that does.
    """

    name: str
    max_jobs: int | None = None
    max_bytes: int | None = None
    runs_in: RunsIn | None = None
    concurrency: int | None = None
    max_wait: Duration | None = None
    group_share: float | None = None
    on_full: OnFull = "refuse"
    on_full_timeout: Duration = ON_FULL_TIMEOUT
    limit: Limit | None = None
    fair: bool = False
    ordering: Ordering | None = None

    def __new__(cls, *_: Any, **options: Any) -> Self:
        check_options(options, cls.__dataclass_fields__, "Queue()")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        checked_name(self.name, "queue")
        for option in ("max_jobs", "max_bytes", "concurrency"):
            value = getattr(self, option)
            if value is not None:
                checked_number(value, f"queue {self.name!r}: {option}")
        if self.runs_in not in (None, "loop", "thread", "process"):
            raise BadOption(
                f"queue {self.name!r}: runs_in is {self.runs_in!r}; use 'thread' or 'process'"
            )
        of = f"queue {self.name!r}: "
        if self.max_wait is not None:
            checked_max_wait(self.max_wait, of)
        if self.group_share is not None:
            checked_group_share(self.group_share, of)
        checked_on_full(self.on_full, of)
        milliseconds(self.on_full_timeout, f"{of}on_full_timeout")
        _check_order(self, of)

    @property
    def is_bounded(self) -> bool:
        """Whether it says anything of its bounds; otherwise the store's own hold."""
        said = (self.max_jobs, self.max_bytes, self.max_wait, self.group_share)
        return any(bound is not None for bound in said)

    def uses(self, group: str | None) -> tuple[Use, ...]:
        """What a job of this group is under here, beside the limit of the whole queue."""
        name = f"queue:{self.name}"
        turn = (Use(name, group, turn=True),) if self.ordering and group else ()
        limit = self.limit
        return (*turn, use(name, limit, group)) if limit and limit.per_group else turn

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            DEFAULT_MAX_JOBS if self.max_jobs is None else self.max_jobs,
            DEFAULT_MAX_BYTES if self.max_bytes is None else self.max_bytes,
            None if self.max_wait is None else milliseconds(self.max_wait, "max_wait"),
            None if self.group_share is None else float(self.group_share),
        )


def _check_order(queue: Queue, of: str) -> None:
    """Refuse what cannot be said of the order and the speed of a queue's jobs."""
    limit = None if queue.limit is None else checked_limit(queue.limit, of)
    if not isinstance(queue.fair, bool):
        raise BadOption(f"{of}fair is {queue.fair!r}; use True or False")
    if queue.ordering not in (None, "group"):
        raise BadOption(
            f"{of}ordering is {queue.ordering!r}; use 'group' for the jobs of a group to run one "
            "at a time in their order, or leave it out"
        )
    if queue.ordering and limit and limit.per_group and limit.concurrency is not None:
        raise BadOption(
            f"{of}ordering='group' runs one job of a group at a time already, so a concurrency "
            "per group says nothing; leave it out, or leave per_group out to limit the whole queue"
        )


def checked_number(given: int, what: str) -> int:
    """Return how many there may be of something, or refuse it.

    Raises:
        BadOption: it is not a whole number from 1 up to what a store can count.
    """
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MOST:
        most = ", at most 2**62" if isinstance(given, int) and given > MOST else ""
        raise BadOption(f"{what} is {given!r}; use a whole number from 1{most}, or leave it out")
    return given


def checked_max_wait(given: Duration, of: str = "") -> int:
    """Return a bound on the wait in milliseconds, or refuse it; `of` begins the message.

    Raises:
        BadOption: it is no duration, or so short that nothing would ever be let in.
    """
    max_wait_ms = milliseconds(given, f"{of}max_wait")
    if max_wait_ms == 0:
        raise BadOption(
            f"{of}max_wait is {given!r}, and no job starts that soon; use a longer one, or leave "
            "it out for no bound on the wait"
        )
    return max_wait_ms


def checked_group_share(given: float, of: str = "") -> float:
    """Return the part of a queue that one group may fill, or refuse it.

    Raises:
        BadOption: it is not a number above 0 and up to 1.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
        raise BadOption(
            f"{of}group_share is {given!r}; use a number above 0 and up to 1, such as 0.1 for a "
            "tenth of max_jobs"
        )
    return float(given)


def checked_on_full(given: OnFull, of: str = "") -> OnFull:
    """Return what becomes of a caller that meets a full queue, or refuse it.

    Raises:
        BadOption: it is neither "refuse" nor "wait".
    """
    if given not in ("refuse", "wait"):
        raise BadOption(f"{of}on_full is {given!r}; use 'refuse' or 'wait'")
    return given


class Depth(msgspec.Struct, frozen=True):
    """How many jobs of a queue wait, and their bytes, by state."""

    scheduled: int = 0
    ready: int = 0
    running: int = 0
    blocked: int = 0
    bytes: int = 0

    @property
    def jobs(self) -> int:
        """What `max_jobs` bounds."""
        return self.scheduled + self.ready + self.running + self.blocked


class QueueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as the engine has it. Counters only ever grow."""

    name: str
    kind: Kind
    paused: bool
    is_fair: bool = False
    bounds: Bounds  # in force: tuned, else declared, else the default
    declared: Bounds
    tuned_max_jobs: int | None = None
    tuned_max_bytes: int | None = None
    tuned_max_wait_ms: int | None = None  # 0: the wait is not bounded, whatever the code says
    tuned_group_share: float | None = None
    depth: Depth = Depth()
    oldest_ready_ms: int | None = None  # how long the job next in line has been due;
    # what waits for a resource that is down is not in line
    appended: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    retried: int = 0
    started: int = 0  # leases given
    ended: int = 0  # attempts that ended, however; `ran_ms` is what they ran in all
    ran_ms: int = 0


class LineSample(msgspec.Struct, frozen=True):
    """One priority of a queue at a moment. `appended` and `started` only ever grow."""

    priority: int
    ready: int = 0  # those that wait for a worker, not for a resource that is down
    running: int = 0
    appended: int = 0  # jobs stored, and jobs that came back for a retry
    started: int = 0  # leases given


class QueueSample(msgspec.Struct, frozen=True, kw_only=True):
    """What the speed of a queue is measured by: two of these give a rate.

    `foretold` counts the jobs that began with an expected wait on them, `foretold_ms`
    is the sum of those waits, `waited_ms` what the same jobs did wait.
    """

    name: str
    bounds: Bounds  # in force, as the store alone knows them: tuned, else declared
    is_paused: bool = False
    lines: tuple[LineSample, ...] = ()
    scheduled: int = 0
    bytes: int = 0
    ended: int = 0
    ran_ms: int = 0
    foretold: int = 0
    foretold_ms: int = 0
    waited_ms: int = 0
    oldest_ready_ms: int | None = None
    slots: int | None = None  # of live workers that serve it; None: no worker was ever there
    reserved_ms: int = 0  # how far the queue's virtual clock is ahead of now


def in_line(ready: Mapping[int, int], withheld: Mapping[int, int]) -> dict[int, int]:
    """Return what is in line by priority, of all that is ready.

    `withheld` counts what is not in line by the level it waits at, which ageing may have
    raised above its priority: then the nearest priorities below have it.
    """
    left = dict(ready)
    over = 0
    for priority in range(9, -1, -1):
        over += withheld.get(priority, 0)
        fewer = min(left.get(priority, 0), over)
        if fewer:
            left[priority] -= fewer
            over -= fewer
    return left
