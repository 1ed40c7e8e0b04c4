"""Admission: may these jobs come in? Judged on what was read; nothing is written yet.

A batch is judged as a whole, and one batch after the other: each that is accepted
counts for the next. Jobs alike, as those of a bulk are, are judged by the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from backlane.engine.protocol import Admission
from backlane.model.ids import id_ms
from backlane.model.job import Idempotency, Job, Key, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import DEFAULT_BOUNDS, Bounds, group_places, headroom

NEWEST_ID = b"\xff" * 16  # above all others

# Jobs, bytes, wait and share, where they were tuned.
Tuned = tuple[int | None, int | None, int | None, float | None]
Batch = tuple[Sequence[Job], Admission]
Answer = list[Receipt] | Refusal


class Repeat(NamedTuple):
    """What is known of an idempotency key: the job that it stands for."""

    job: bytes
    print: bytes
    until_ms: int


Repeats = dict[tuple[str, str], Repeat]  # by scope and name
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

    def bounds(self, declared: Bounds | None) -> Bounds:
        """What is in force: tuned, else declared by the caller, else by a worker."""
        declared = declared or self.declared
        return declared if self.tuned == NOT_TUNED else declared.tuned(*self.tuned)

    def add(self, jobs: Sequence[Job]) -> None:
        """Count jobs where those who come after look."""
        self.groups = self.groups or {}
        for job in jobs:
            if job.delay_ms <= 0:
                self.ready[job.priority] += 1
            if job.group is not None:
                self.groups[job.group] = self.groups.get(job.group, 0) + 1


@dataclass(slots=True)
class Store:
    """What the store holds that an append is judged by; grows with each batch accepted."""

    ids: set[bytes]
    keys: dict[Key, bytes]
    repeats: Repeats  # whose time is not over
    lines: dict[str, Line]
    newest: int
    forgotten_ms: int
    now_ms: int
    accepted: list[tuple[Job, Line]] = field(default_factory=list)
    entered: dict[str, Line] = field(default_factory=dict)  # the queues of those
    predicted: list[tuple[int, int]] = field(default_factory=list)  # which, and its wait
    asked: Repeats = field(default_factory=dict)  # new ones, to be stored
    has_resources: bool = False  # that some of the jobs name
    has_followers: bool = False  # whose waits and shares depend on what is accepted before


def judge(store: Store, jobs: Sequence[Job], admission: Admission) -> Answer:
    """Answer one batch, and count it in if it is accepted."""
    judging = Judging(store, admission)
    refusal = judging.look_at(jobs) or judging.at_fault()
    if refusal:
        return refusal
    for portion in judging.portions.values():
        refusal = portion.over_bound() or portion.too_slow()
        if refusal:
            return refusal
    judging.accept()
    return judging.receipts(jobs)


class Judging:
    """One batch: which of its jobs are there already, and what the others bring where."""

    __slots__ = (
        "_admission",
        "_expected",
        "_firsts",
        "_ids",
        "_keys",
        "_new",
        "_oldest",
        "_repeats",
        "_store",
        "portions",
    )

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store = store
        self._admission = admission
        self._firsts: list[bytes | None] = []  # who stands for each job; None: it is new
        self._new: list[Job] = []
        self._oldest = NEWEST_ID
        self._ids: set[bytes] = set()
        self._keys: dict[Key, bytes] = {}
        self._repeats: Repeats = {}
        self._expected: list[int | None] = []  # the wait of each new job; empty: none is known
        self.portions: dict[str, Portion] = {}

    def look_at(self, jobs: Sequence[Job]) -> Refusal | None:
        """Find the jobs that are there already, in the store or before them in the batch."""
        store, ids, keys, portions = self._store, self._ids, self._keys, self.portions
        for job in jobs:
            first = None
            job_id = job.id
            if job.idempotency:
                known = self._known(job.idempotency)
                if known and known.print != job.idempotency.print:
                    return _fault(job, "reused", store.lines.get(job.queue))
                first = known.job if known else None
            if first is None:
                if job_id in store.ids or job_id in ids:
                    first = job_id
                elif job.key:
                    first = store.keys.get(job.key) or keys.get(job.key)
            if job.idempotency:
                self._ask(job.idempotency, first or job_id)
            self._firsts.append(first)
            if first is not None:
                continue
            ids.add(job_id)
            if job.key:
                keys[job.key] = job_id
            self._new.append(job)
            if job_id < self._oldest:
                self._oldest = job_id
            portion = portions.get(job.queue) or self._open(job.queue)
            portion.jobs.append(job)
            portion.size += len(job.body) + len(job.headers or b"")
            if job.expires_ms is not None:
                portion.has_deadlines = True
        return None

    def _known(self, asked: Idempotency) -> Repeat | None:
        name = (asked.scope, asked.name)
        return self._store.repeats.get(name) or self._repeats.get(name)

    def _ask(self, asked: Idempotency, job: bytes) -> None:
        if not self._known(asked):
            repeat = Repeat(job, asked.print, self._store.now_ms + asked.window_ms)
            self._repeats[asked.scope, asked.name] = repeat

    def _open(self, name: str) -> Portion:
        """Begin what the batch brings to a queue, which is made if it is accepted."""
        admission = self._admission
        declared = admission.declared.get(name)
        line = self._store.lines.get(name)
        if line is None:
            line = Line(0, name, admission.kind.value, declared or DEFAULT_BOUNDS)
        portion = Portion(line, line.bounds(declared), admission.paces.get(name))
        self.portions[name] = portion
        return portion

    def at_fault(self) -> Refusal | None:
        """Refuse what no waiting would mend: the wrong kind of queue, an id from before
        history."""
        kind, forgotten_ms = self._admission.kind, self._store.forgotten_ms
        # The oldest id speaks for all: looking at each took a tenth of a whole bulk.
        has_stale = id_ms(self._oldest) <= forgotten_ms
        is_ours = True
        for portion in self.portions.values():
            is_ours = is_ours and portion.line.kind == kind
        if is_ours and not has_stale:
            return None
        for job in self._new:
            line = self.portions[job.queue].line
            if line.kind != kind:
                return _fault(job, "kind", line)
            if id_ms(job.id) <= forgotten_ms:
                return _fault(job, "stale", line)
        return None

    def accept(self) -> None:
        """Count the batch in, for those that come after it."""
        store, portions = self._store, self.portions
        store.ids |= self._ids
        store.keys |= self._keys
        if self._repeats:
            store.repeats |= self._repeats
            store.asked |= self._repeats
        for name, portion in portions.items():
            line = store.lines[name] = store.entered[name] = portion.line
            line.jobs += len(portion.jobs)
            line.bytes += portion.size
            if store.has_followers:
                line.add(portion.jobs)
        self._foretell()
        if len(portions) == 1:
            store.accepted += [(job, line) for job in self._new]
        else:
            store.accepted += [(job, portions[job.queue].line) for job in self._new]

    def _foretell(self) -> None:
        """Let the last job that waits from now on keep the wait it is told."""
        portions = self.portions
        if len(portions) == 1:
            self._expected = self._first_portion().expected
        elif any(portion.expected for portion in portions.values()):
            waits = {name: iter(portion.expected) for name, portion in portions.items()}
            self._expected = [next(waits[job.queue], None) for job in self._new]
        for i in range(len(self._expected) - 1, -1, -1):
            expected_ms = self._expected[i]
            if expected_ms is not None:
                self._store.predicted.append((len(self._store.accepted) + i, expected_ms))
                return

    def receipts(self, jobs: Sequence[Job]) -> list[Receipt]:
        """Answer the batch that was accepted."""
        expected = self._expected
        if len(self.portions) == 1 and len(self._new) == len(jobs):
            fullest = self._first_portion().pressure()
            if not expected:
                return [Receipt(job.id, None, fullest) for job in jobs]
            pairs = zip(jobs, expected, strict=True)
            return [Receipt(job.id, None, fullest, expected_ms) for job, expected_ms in pairs]
        fullness = {job.queue: self._pressure(job.queue) for job in jobs}
        waits = iter(expected)
        return [
            Receipt(job.id, first, fullness[job.queue], None if first else next(waits, None))
            for job, first in zip(jobs, self._firsts, strict=True)
        ]

    def _first_portion(self) -> Portion:
        return next(iter(self.portions.values()))

    def _pressure(self, queue: str) -> float:
        """How full a queue is now, also one that got duplicates only."""
        portion = self.portions.get(queue)
        if portion is None and queue in self._store.lines:
            portion = self._open(queue)
        return portion.pressure() if portion else 0.0


def _fault(job: Job, limit: str, line: Line | None) -> Refusal:
    depth = line.jobs if line else 0
    return Refusal(job.queue, limit, depth, bound=0, jobs=depth, can_fit=False, job=job.id)


class Portion:
    """What a batch brings to one queue, judged by its bounds."""

    __slots__ = (
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

    def over_bound(self) -> Refusal | None:
        """Refuse what would pass a bound on jobs, bytes or the share of a group."""
        if self.pace is not None:
            self._foretell(self.pace)
        line, bounds, number = self.line, self.bounds, len(self.jobs)
        if line.jobs + number > bounds.max_jobs:
            most = _places(bounds.max_jobs, self.jobs)
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
            if first.delay_ms <= 0:
                ahead = sum(ready[first.priority :])
                places = range(ahead, ahead + len(self.jobs))
                self.expected = [pace.expected_ms(first.priority, n, running) for n in places]
                self.longest_ms = self.expected[-1]
            return
        ready = ready.copy()
        for job in self.jobs:
            if job.delay_ms > 0:
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
            most = _places(places, [job for job in self.jobs if job.group == group])
            if held + number > most:
                refusal = self._refusal("group", held, most, number, can_fit=number <= most)
                return msgspec.structs.replace(refusal, group=group)
        return None

    def too_slow(self) -> Refusal | None:
        """Refuse what would wait for too long, or start too late to be done in time."""
        pace, max_wait = self.pace, self.bounds.max_wait_ms
        if pace is None or not self.longest_ms:  # who need not wait is never too late
            return None
        if max_wait and self.longest_ms > max_wait:
            waits = [(ms, i) for ms, i, job in self._due() if not job.parent]
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
        ahead = [job for job in self.jobs[:i] if job.priority >= priority and job.delay_ms <= 0]
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
    priority, is_delayed = jobs[0].priority, jobs[0].delay_ms > 0
    return all(job.priority == priority and (job.delay_ms > 0) == is_delayed for job in jobs)


def _places(number: int, jobs: Sequence[Job]) -> int:
    """The places for these jobs: work born inside a job may use headroom."""
    return number + headroom(number) if all(job.parent for job in jobs) else number
