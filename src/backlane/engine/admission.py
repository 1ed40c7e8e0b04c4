"""Admission: may these jobs come in? Judged on what was read; nothing is written yet.

A batch is judged as a whole, and one batch after the other: each that is accepted
counts for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from backlane.engine.moving import Seal
from backlane.engine.portion import Line, Portion, is_due
from backlane.engine.protocol import Admission
from backlane.model.circle import first_stuck
from backlane.model.ids import id_ms
from backlane.model.job import DEFAULT_RULE, Idempotency, Job, Key, Receipt, Refusal
from backlane.model.pressure.pace import LONGEST_PROMISE_MS
from backlane.model.queue import DEFAULT_BOUNDS

NEWEST_ID = b"\xff" * 16  # above all others

Batch = tuple[Sequence[Job], Admission]
Answer = list[Receipt] | Refusal


class Repeat(NamedTuple):
    """What is known of an idempotency key: the job that it stands for."""

    job: bytes
    print: bytes
    until_ms: int


Repeats = dict[tuple[str, str], Repeat]  # by scope and name


@dataclass(slots=True)
class Store:
    """What the store holds that an append is judged by; grows with each batch accepted."""

    ids: set[bytes]  # known already: of those appended, and of those they wait for
    keys: dict[Key, bytes]  # who holds them now
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
    has_special: bool = False  # jobs under limits, or that wait for others
    seal: Seal | None = None
    has_followers: bool = False  # whose waits and shares depend on what is accepted before
    are_ticks: bool = False  # of schedules: may use headroom, and are never stale
    # Holders of `keys` that wait and were never leased: their queue and size. And those whose
    # arguments are to be replaced, by what.
    unstarted: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    newcomers: dict[bytes, Job] = field(default_factory=dict)
    grown: dict[str, int] = field(default_factory=dict)  # bytes that those grow by, by queue


def judge(store: Store, jobs: Sequence[Job], admission: Admission) -> Answer:
    """Answer one batch, and count it in if it is accepted."""
    judged = weigh(store, jobs, admission)
    return judged if isinstance(judged, Refusal) else judged.receipts(jobs, store.now_ms)


def weigh(store: Store, jobs: Sequence[Job], admission: Admission) -> Judging | Refusal:
    """Like `judge`, with the receipts still to be written once it is known when."""
    judging = Judging(store, admission)
    refusal = judging.look_at(jobs)
    if refusal is None and store.seal is not None:
        refusal = judging.moving(store.seal)
    refusal = refusal or judging.at_fault() or judging.waits_in_vain()
    if refusal:
        return refusal
    for portion in judging.portions.values():
        refusal = portion.over_bound() or portion.too_slow()
        if refusal:
            return refusal
    judging.accept(jobs)
    return judging


class Judging:
    """One batch: which of its jobs are there already, and what the others bring where."""

    __slots__ = (
        "_admission",
        "_clash",
        "_expected",
        "_firsts",
        "_fullness",
        "_ids",
        "_keys",
        "_new",
        "_newcomers",
        "_oldest",
        "_repeats",
        "_replaced",
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
        self._clash: tuple[Job, bytes] | None = None  # one that must not meet its key held
        self._newcomers: dict[bytes, Job] = {}  # the newest, by holder
        self._replaced: set[int] = set()  # which of the jobs are those
        self._repeats: Repeats = {}
        self._expected: list[int | None] = []  # the wait of each new job; empty: none is known
        self._fullness: dict[str, float] = {}  # how full each queue is with this batch in it
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
                    if first and job.rule is not DEFAULT_RULE:
                        self._meet(job, first)
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
        if self._clash is not None:
            job, holder = self._clash
            return replace(_fault(job, "key", store.lines.get(job.queue)), first=holder)
        if self._newcomers:
            self._grow()
        return None

    def _meet(self, job: Job, holder: bytes) -> None:
        """A job finds its key held: note whether its holder takes its arguments."""
        conflict = job.rule.conflict
        if conflict == "raise" and self._clash is None:
            self._clash = (job, holder)
        can_replace = holder in self._ids or holder in self._store.unstarted
        if conflict in ("replace", "debounce") and can_replace:
            self._replaced.add(len(self._firsts))
            if holder in self._ids:
                self._supplant(self._new, holder, job)
            else:
                self._newcomers[holder] = job

    def _supplant(self, jobs: list[Job], holder: bytes, newcomer: Job) -> None:
        """Let a job of this batch take the arguments of a later one."""
        at = next(i for i, job in enumerate(jobs) if job.id == holder)
        held = jobs[at]
        jobs[at] = taken = supplanted(held, newcomer)
        portion = self.portions[held.queue]
        portion.jobs[portion.jobs.index(held)] = taken
        portion.size += taken.size - held.size

    def _grow(self) -> None:
        """Count by how much jobs grow that are replaced, where they are."""
        for holder, newcomer in self._newcomers.items():
            queue, size = self._store.unstarted[holder]
            portion = self.portions.get(queue) or self._open(queue)
            portion.size += newcomer.size - size

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
        portion.are_ticks = self._store.are_ticks
        self.portions[name] = portion
        return portion

    def moving(self, seal: Seal) -> Refusal | None:
        """Refuse what is new, but for work born inside a job that still runs here."""
        new = [*self._new, *self._newcomers.values()]
        if not new or (not seal.is_done and all(job.parent for job in new)):
            return None
        refusal = _fault(new[0], "moving", self._store.lines.get(new[0].queue))
        return replace(refusal, can_fit=not seal.is_done, job=None, to=seal.to)

    def at_fault(self) -> Refusal | None:
        """Refuse what no waiting would mend: the wrong kind of queue, an id from before
        history."""
        kind, forgotten_ms = self._admission.kind, self._store.forgotten_ms
        if self._store.are_ticks:
            forgotten_ms = -1
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
            if not self._are_known(job):
                return _fault(job, "after", line)
        return None

    def waits_in_vain(self) -> Refusal | None:
        """Refuse what waits for a job that nobody knows, or in a circle."""
        are_tied = False
        for job in self._new:
            if job.after:
                are_tied = True
                if not self._are_known(job):
                    return _fault(job, "after", self.portions[job.queue].line)
        stuck = first_stuck(self._new) if are_tied else None
        return _fault(stuck, "after", self.portions[stuck.queue].line) if stuck else None

    def _are_known(self, job: Job) -> bool:
        """Whether all that a job waits for is in the store, or comes with it."""
        others = [edge.job for edge in job.after]
        known = (self._ids, self._store.ids)
        return job.id not in others and all(any(it in ids for ids in known) for it in others)

    def accept(self, jobs: Sequence[Job]) -> None:
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
        if self._newcomers:
            self._replace()
        if len(portions) == 1:
            store.accepted += [(job, line) for job in self._new]
        else:
            store.accepted += [(job, portions[job.queue].line) for job in self._new]
        if store.has_followers:
            store.unstarted |= {
                job.id: (job.queue, job.size) for job in self._new if job.key is not None
            }
        if len(portions) == 1 and len(self._new) == len(jobs):
            self._fullness = {name: portion.pressure()}
        else:
            self._fullness = {queue: self._pressure(queue) for queue in {it.queue for it in jobs}}

    def _replace(self) -> None:
        """Keep what is to be replaced, of jobs of earlier batches at once."""
        store = self._store
        places = {job.id: at for at, (job, _) in enumerate(store.accepted)}
        for holder, newcomer in self._newcomers.items():
            queue, size = store.unstarted[holder]
            at = places.get(holder)
            if at is None:
                store.newcomers[holder] = newcomer
                store.grown[queue] = store.grown.get(queue, 0) + newcomer.size - size
            else:
                job, line = store.accepted[at]
                taken = supplanted(job, newcomer)
                store.accepted[at] = (taken, line)
                if store.has_followers:
                    line.ready[job.priority] += is_due(taken) - is_due(job)
            store.unstarted[holder] = (queue, newcomer.size)

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
                if expected_ms <= LONGEST_PROMISE_MS:
                    self._store.predicted.append((len(self._store.accepted) + i, expected_ms))
                return

    def receipts(self, jobs: Sequence[Job], now: int) -> list[Receipt]:
        """Answer the batch that was accepted, and stored at this time."""
        expected, fullness = self._expected, self._fullness
        if len(self.portions) == 1 and len(self._new) == len(jobs):
            fullest = fullness[jobs[0].queue]
            if not expected:
                return [Receipt(job.id, None, fullest, None, now, _due(job, now)) for job in jobs]
            return [
                Receipt(job.id, None, fullest, expected_ms, now, _due(job, now))
                for job, expected_ms in zip(jobs, expected, strict=True)
            ]
        waits, dues = iter(expected), (_due(job, now) for job in self._new)
        return [
            Receipt(job.id, first, fullness[job.queue], replaced=i in self._replaced)
            if first
            else Receipt(job.id, None, fullness[job.queue], next(waits, None), now, next(dues))
            for i, (job, first) in enumerate(zip(jobs, self._firsts, strict=True))
        ]

    def _first_portion(self) -> Portion:
        return next(iter(self.portions.values()))

    def _pressure(self, queue: str) -> float:
        """How full a queue is now, also one that got duplicates only."""
        portion = self.portions.get(queue)
        if portion is None and queue in self._store.lines:
            portion = self._open(queue)
        return portion.pressure() if portion else 0.0


def supplanted(held: Job, newcomer: Job) -> Job:
    """A job that was appended in the same moment, with what it takes of its newcomer."""
    delay_ms = most_delayed(newcomer, newcomer.rule.most_ms)
    return replace(held, body=newcomer.body, headers=newcomer.headers, delay_ms=delay_ms)


def most_delayed(newcomer: Job, left_ms: int | None) -> int:
    """The delay that a newcomer brings its holder, of which `left_ms` may be put off."""
    is_capped = newcomer.rule.conflict == "debounce" and left_ms is not None
    return min(newcomer.delay_ms, left_ms or 0) if is_capped else newcomer.delay_ms


def _due(job: Job, now: int) -> int:
    return now + job.delay_ms if job.delay_ms > 0 else now


def _fault(job: Job, limit: str, line: Line | None) -> Refusal:
    depth = line.jobs if line else 0
    return Refusal(job.queue, limit, depth, bound=0, jobs=depth, can_fit=False, job=job.id)
