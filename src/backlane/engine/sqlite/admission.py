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


@dataclass(slots=True)
class Line:
    """A queue as an append sees it."""

    id: int  # 0: not made yet
    name: str
    kind: str
    declared: Bounds
    tuned: Tuned = (None, None, None, None)
    jobs: int = 0
    bytes: int = 0
    running: int = 0
    ready: list[int] = field(default_factory=lambda: [0] * 10)  # by priority, if it is asked for
    groups: Counter[str] = field(default_factory=Counter)  # jobs of each, if it is asked for

    def bounds(self, declared: Bounds | None) -> Bounds:
        """What is in force: tuned, else declared by the caller, else by a worker."""
        return (declared or self.declared).tuned(*self.tuned)


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
    predicted: list[tuple[int, int]] = field(default_factory=list)  # index of accepted, wait
    asked: Repeats = field(default_factory=dict)  # new ones, to be stored
    has_followers: bool = False  # whose waits and shares depend on what is accepted before


class Paired(NamedTuple):
    """The jobs of a batch, and which of them are there already."""

    firsts: list[bytes | None]  # the job that stands for each already; None: it is new
    new: list[Job]
    ids: set[bytes]
    keys: dict[Key, bytes]
    repeats: Repeats


def judge(store: Store, jobs: Sequence[Job], admission: Admission) -> Answer:
    """Answer one batch, and count it in if it is accepted."""
    paired = _pair(store, jobs)
    if isinstance(paired, Refusal):
        return paired
    new = paired.new
    portions = _portions(store, new, admission)
    refusal = _at_fault(store, new, portions, admission)
    if refusal:
        return refusal
    for portion in portions.values():
        refusal = portion.over_bound() or portion.too_slow()
        if refusal:
            return refusal
    _accept(store, paired, portions)
    return _receipts(store, jobs, paired, portions, admission)


def _pair(store: Store, jobs: Sequence[Job]) -> Paired | Refusal:
    """Find the jobs that are there already, in the store or before it in the batch."""
    firsts: list[bytes | None] = []
    new: list[Job] = []
    ids: set[bytes] = set()
    keys: dict[Key, bytes] = {}
    repeats: Repeats = {}
    for job in jobs:
        first = None
        asked = job.idempotency
        known = _known(store, repeats, asked) if asked else None
        if asked and known and known.print != asked.print:
            return _fault(job, "reused", store.lines.get(job.queue))
        if known:
            first = known.job
        elif job.id in store.ids or job.id in ids:
            first = job.id
        elif job.key:
            first = store.keys.get(job.key) or keys.get(job.key)
        firsts.append(first)
        if first is None:
            new.append(job)
            ids.add(job.id)
            if job.key:
                keys[job.key] = job.id
        if asked and not known:
            until_ms = store.now_ms + asked.window_ms
            repeats[asked.scope, asked.name] = Repeat(first or job.id, asked.print, until_ms)
    return Paired(firsts, new, ids, keys, repeats)


def _known(store: Store, repeats: Repeats, asked: Idempotency) -> Repeat | None:
    name = (asked.scope, asked.name)
    return store.repeats.get(name) or repeats.get(name)


def _fault(job: Job, limit: str, line: Line | None) -> Refusal:
    depth = line.jobs if line else 0
    return Refusal(job.queue, limit, depth, bound=0, jobs=depth, can_fit=False, job=job.id)


def _at_fault(
    store: Store, new: Sequence[Job], portions: dict[str, Portion], admission: Admission
) -> Refusal | None:
    """Refuse what no waiting would mend: the wrong kind of queue, an id from before history."""
    # The oldest id speaks for all: looking at each took a tenth of a whole bulk.
    is_ours = all(portion.line.kind == admission.kind for portion in portions.values())
    if is_ours and (not new or id_ms(min(job.id for job in new)) > store.forgotten_ms):
        return None
    for job in new:
        line = portions[job.queue].line
        if line.kind != admission.kind:
            return _fault(job, "kind", line)
        if id_ms(job.id) <= store.forgotten_ms:
            return _fault(job, "stale", line)
    return None


def _portions(store: Store, new: list[Job], admission: Admission) -> dict[str, Portion]:
    """Part the jobs by queue; those that do not exist yet are as they would be made."""
    names = dict.fromkeys([job.queue for job in new])
    portions = {}
    for name in names:
        mine = new if len(names) == 1 else [job for job in new if job.queue == name]
        declared = admission.declared.get(name)
        line = store.lines.get(name)
        if line is None:
            line = Line(0, name, admission.kind.value, declared or DEFAULT_BOUNDS)
        portions[name] = Portion(line, mine, line.bounds(declared), admission.paces.get(name))
    return portions


class Portion:
    """What a batch brings to one queue, judged by its bounds."""

    __slots__ = ("bounds", "expected", "jobs", "line", "longest_ms", "pace", "size")

    def __init__(self, line: Line, jobs: list[Job], bounds: Bounds, pace: Pace | None) -> None:
        self.line = line
        self.jobs = jobs
        self.bounds = bounds  # in force
        self.pace = pace
        self.size = sum([len(job.body) + len(job.headers or b"") for job in jobs])
        self.expected: list[int | None] = []  # the wait of each job; empty: none is known
        self.longest_ms: int | None = None
        if pace is not None:
            self.expected = self._foretell(pace)
            self.longest_ms = max((ms for ms in self.expected if ms is not None), default=None)

    def _foretell(self, pace: Pace) -> list[int | None]:
        running, ready, priority = self.line.running, self.line.ready, self.jobs[0].priority
        if all(job.priority == priority and job.delay_ms <= 0 for job in self.jobs):
            ahead = sum(ready[priority:])
            places = range(ahead, ahead + len(self.jobs))
            return [pace.expected_ms(priority, place, running) for place in places]
        ready = ready.copy()
        expected: list[int | None] = []
        for job in self.jobs:
            if job.delay_ms > 0:
                expected.append(None)
                continue
            ahead = sum(ready[job.priority :])
            expected.append(pace.expected_ms(job.priority, ahead, running))
            ready[job.priority] += 1
        return expected

    def over_bound(self) -> Refusal | None:
        """Refuse what would pass a bound on jobs, bytes or the share of a group."""
        line, bounds, number = self.line, self.bounds, len(self.jobs)
        most = _places(bounds.max_jobs, self.jobs)
        if line.jobs + number > most:
            return self._refusal("jobs", line.jobs, most, number, can_fit=number <= most)
        if line.bytes + self.size > bounds.max_bytes:
            fits = self.size <= bounds.max_bytes
            return self._refusal("bytes", line.bytes, bounds.max_bytes, self.size, can_fit=fits)
        if bounds.group_share is not None:
            return self._over_share(group_places(bounds))
        return None

    def _over_share(self, places: int) -> Refusal | None:
        ours = Counter(job.group for job in self.jobs if job.group is not None)
        for group, number in ours.items():
            held, most = self.line.groups[group], places
            if held + number > most:
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
        if max_wait is not None and self.longest_ms > max_wait:
            waits = [(ms, i) for ms, i, job in self._due() if not job.parent]
            longest, i = max(waits, default=(0, 0))
            if longest > max_wait:
                return self._late(pace, "wait", longest, i, max_wait)
        if all(job.expires_ms is None for job in self.jobs):
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
        """How full the queue is now, by the fullest of its bounds."""
        return pressure(self.line, self.bounds, self.longest_ms)


def _places(number: int, jobs: Sequence[Job]) -> int:
    """The places for these jobs: work born inside a job may use headroom."""
    return number + headroom(number) if all(job.parent for job in jobs) else number


def pressure(line: Line, bounds: Bounds, wait_ms: int | None = None) -> float:
    """Return how full a queue is, 0 to 1, by the fullest of its bounds."""
    fullest = max(line.jobs / max(1, bounds.max_jobs), line.bytes / max(1, bounds.max_bytes))
    if wait_ms is not None and bounds.max_wait_ms is not None:
        fullest = max(fullest, wait_ms / bounds.max_wait_ms)
    return min(1.0, fullest)


# -- accepting --


def _accept(store: Store, paired: Paired, portions: dict[str, Portion]) -> None:
    store.ids |= paired.ids
    store.keys |= paired.keys
    store.repeats |= paired.repeats
    store.asked |= paired.repeats
    for name, portion in portions.items():
        line = store.lines[name] = portion.line
        line.jobs += len(portion.jobs)
        line.bytes += portion.size
        if len(portions) == 1:
            store.accepted += [(job, line) for job in paired.new]
        if store.has_followers:
            for job in portion.jobs:
                if job.delay_ms <= 0:
                    line.ready[job.priority] += 1
                if job.group is not None:
                    line.groups[job.group] += 1
    if len(portions) > 1:
        store.accepted += [(job, portions[job.queue].line) for job in paired.new]


def _receipts(
    store: Store,
    jobs: Sequence[Job],
    paired: Paired,
    portions: dict[str, Portion],
    admission: Admission,
) -> list[Receipt]:
    expected = _expected(paired.new, portions)
    if expected:
        told = next((i for i in range(len(expected) - 1, -1, -1) if expected[i] is not None), None)
        if told is not None:
            at = len(store.accepted) - len(expected) + told
            store.predicted.append((at, expected[told] or 0))
    pressures = {name: portion.pressure() for name, portion in portions.items()}
    if len(paired.new) == len(jobs) and len(portions) == 1:
        (fullest,) = pressures.values()
        if not expected:
            return [Receipt(job.id, None, fullest) for job in jobs]
        pairs = zip(jobs, expected, strict=True)
        return [Receipt(job.id, None, fullest, ms) for job, ms in pairs]
    for job in jobs:
        if job.queue not in pressures:
            line = store.lines.get(job.queue)
            bounds = line.bounds(admission.declared.get(job.queue)) if line else None
            pressures[job.queue] = pressure(line, bounds) if line and bounds else 0.0
    waits = iter(expected)
    return [
        Receipt(job.id, first, pressures[job.queue], None if first else next(waits, None))
        for job, first in zip(jobs, paired.firsts, strict=True)
    ]


def _expected(new: Sequence[Job], portions: dict[str, Portion]) -> list[int | None]:
    """The wait of each new job, in order; empty where none is known."""
    if len(portions) == 1:
        (portion,) = portions.values()
        return portion.expected
    if not any(portion.expected for portion in portions.values()):
        return []
    waits = {name: iter(portion.expected) for name, portion in portions.items()}
    return [next(waits[job.queue], None) for job in new]
