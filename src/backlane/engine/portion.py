"""A portion: what a batch of jobs brings to one queue, judged by the bounds of that queue.

Jobs alike, as those of a bulk are, are judged by the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from backlane.model.job import Job, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, group_places, headroom

# Jobs, bytes, wait and share, where they were tuned.
Tuned = tuple[int | None, int | None, int | None, float | None]
NOT_TUNED: Tuned = (None, None, None, None)


@dataclass(slots=True)
class Line:
    """A queue as an append sees it."""

    id: int  # 0: not made yet
    name: str
    kind: str
    declared: Bounds
    tuned: Tuned = NOT_TUNED
    jobs: int = 0
    bytes: int = 0
    running: int = 0
    ready: list[int] = field(default_factory=lambda: [0] * 10)  # by priority
    groups: dict[str, int] | None = None  # jobs of each; None: none, or nobody asked
    is_fair: bool = False

    def bounds(self, declared: Bounds | None) -> Bounds:
        """What is in force: tuned, else declared by the caller, else by a worker."""
        declared = declared or self.declared
        return declared if self.tuned == NOT_TUNED else declared.tuned(*self.tuned)

    def add(self, jobs: Sequence[Job]) -> None:
        """Count jobs where those who come after look."""
        self.groups = self.groups or {}
        for job in jobs:
            if is_due(job):
                self.ready[job.priority] += 1
            if job.group is not None:
                self.groups[job.group] = self.groups.get(job.group, 0) + 1


class Portion:
    """What a batch brings to one queue, judged by its bounds."""

    __slots__ = (
        "are_ticks",
        "bounds",
        "expected",
        "has_deadlines",
        "jobs",
        "line",
        "longest_ms",
        "pace",
        "size",
    )

    def __init__(self, line: Line, bounds: Bounds, pace: Pace | None) -> None:
        self.line = line
        self.bounds = bounds  # in force
        self.pace = pace
        self.jobs: list[Job] = []
        self.size = 0
        self.has_deadlines = False
        self.expected: list[int | None] = []  # the wait of each job; empty: none is known
        self.longest_ms: int | None = None
        self.are_ticks = False  # of schedules, which may use headroom

    def over_bound(self) -> Refusal | None:
        """Refuse what would pass a bound on jobs, bytes or the share of a group."""
        if not self.jobs and self.size <= 0:
            return None  # what is replaced in it does not grow
        if self.pace is not None and self.jobs:
            self._foretell(self.pace)
        line, bounds, number = self.line, self.bounds, len(self.jobs)
        if number and line.jobs + number > bounds.max_jobs:
            most = self._places(bounds.max_jobs, self.jobs)
            if line.jobs + number > most:
                return self._refusal("jobs", line.jobs, most, number, can_fit=number <= most)
        if line.bytes + self.size > bounds.max_bytes:
            fits = self.size <= bounds.max_bytes
            return self._refusal("bytes", line.bytes, bounds.max_bytes, self.size, can_fit=fits)
        if bounds.group_share is not None:
            return self._over_share(group_places(bounds))
        return None

    def _foretell(self, pace: Pace) -> None:
        """Find the expected wait of each job; None of those that are due later."""
        ready, running, first = self.line.ready, self.line.running, self.jobs[0]
        if _are_alike(self.jobs):
            if is_due(first):
                ahead = sum(ready[first.priority :])
                places = range(ahead, ahead + len(self.jobs))
                self.expected = [pace.expected_ms(first.priority, n, running) for n in places]
                self.longest_ms = self.expected[-1]
            return
        ready = ready.copy()
        for job in self.jobs:
            if not is_due(job):
                self.expected.append(None)
                continue
            ahead = sum(ready[job.priority :])
            self.expected.append(pace.expected_ms(job.priority, ahead, running))
            ready[job.priority] += 1
        self.longest_ms = max((ms for ms in self.expected if ms is not None), default=None)

    def _over_share(self, places: int) -> Refusal | None:
        ours = Counter(job.group for job in self.jobs if job.group is not None)
        for group, number in ours.items():
            held = (self.line.groups or {}).get(group, 0)
            most = self._places(places, [job for job in self.jobs if job.group == group])
            if held + number > most:
                refusal = self._refusal("group", held, most, number, can_fit=number <= most)
                return msgspec.structs.replace(refusal, group=group)
        return None

    def _places(self, number: int, jobs: Sequence[Job]) -> int:
        """The places for these jobs: work born inside a job, or of a schedule, may use
        headroom."""
        may = self.are_ticks or all(job.parent for job in jobs)
        return number + headroom(number) if may else number

    def too_slow(self) -> Refusal | None:
        """Refuse what would wait for too long, or start too late to be done in time."""
        pace, max_wait = self.pace, self.bounds.max_wait_ms
        if pace is None or not self.longest_ms:  # who need not wait is never too late
            return None
        if max_wait and self.longest_ms > max_wait:
            waits = [(ms, i) for ms, i, job in self._due() if not (job.parent or self.are_ticks)]
            longest, i = max(waits, default=(0, 0))
            if longest > max_wait:
                return self._late(pace, "wait", longest, i, max_wait)
        if not self.has_deadlines:
            return None
        late = [
            (ms - pace.latest_ms(job.expires_ms), i, ms)
            for ms, i, job in self._due()
            if job.expires_ms is not None
        ]
        excess, i, ms = max(late, default=(0, 0, 0))
        return self._late(pace, "deadline", ms, i, ms - excess) if excess > 0 else None

    def _due(self) -> list[tuple[int, int, Job]]:
        """The jobs that wait from now on: how long, where in the batch, which."""
        told = enumerate(zip(self.expected, self.jobs, strict=True))
        return [(ms, i, job) for i, (ms, job) in told if ms is not None]

    def _late(self, pace: Pace, limit: str, ms: int, i: int, bound: int) -> Refusal:
        """Say how long the job that decides would wait, and how long it may."""
        priority = self.jobs[i].priority
        ahead = [job for job in self.jobs[:i] if job.priority >= priority and is_due(job)]
        fits = pace.can_fit(len(ahead), bound)
        refusal = self._refusal(limit, ms, bound, len(self.jobs), can_fit=fits)
        return msgspec.structs.replace(refusal, expected_ms=ms)

    def _refusal(self, limit: str, depth: int, bound: int, added: int, *, can_fit: bool) -> Refusal:
        return Refusal(
            queue=self.line.name,
            limit=limit,
            depth=depth,
            bound=bound,
            added=added,
            jobs=self.line.jobs,
            expected_ms=self.longest_ms,
            can_fit=can_fit,
        )

    def pressure(self) -> float:
        """How full the queue is now, 0 to 1, by the fullest of its bounds."""
        line, bounds = self.line, self.bounds
        fullest = max(line.jobs / max(1, bounds.max_jobs), line.bytes / max(1, bounds.max_bytes))
        if bounds.max_wait_ms and self.longest_ms:
            fullest = max(fullest, self.longest_ms / bounds.max_wait_ms)
        return min(1.0, fullest)


def _are_alike(jobs: Sequence[Job]) -> bool:
    """Whether the last of these jobs waits the longest, or none of them from now on."""
    if len(jobs) == 1:
        return True
    priority, waits = jobs[0].priority, is_due(jobs[0])
    return all(job.priority == priority and is_due(job) is waits for job in jobs)


def is_due(job: Job) -> bool:
    """Whether it waits in line from now on: of others no wait is foretold."""
    return job.delay_ms <= 0 and not job.after
