"""Append: all jobs or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from backlane.engine.memory.ending import follow_ended
from backlane.engine.memory.limiting import declare
from backlane.engine.memory.line import Line
from backlane.engine.memory.row import Row
from backlane.engine.memory.standing import Standing, reused, standing, supplant
from backlane.engine.memory.store import Store
from backlane.engine.protocol import Admission
from backlane.model.circle import first_stuck
from backlane.model.ids import id_ms
from backlane.model.job import Job, Receipt, Refusal, State
from backlane.model.pressure.pace import LONGEST_PROMISE_MS, Pace
from backlane.model.queue import DEFAULT_BOUNDS, Bounds, group_places, headroom


def append(
    store: Store, jobs: Sequence[Job], admission: Admission, *, ticking: bool = False
) -> list[Receipt] | Refusal:
    """Judge the jobs as a whole, then insert those that are new.

    Those of a schedule (`ticking`) have headroom as if they were born inside a job.
    """
    asking = [job for job in jobs if job.idempotency is not None]
    again = reused(store, asking) if asking else None
    if again:
        return _fault(again, "reused", store.lines.get(again.queue))
    found = standing(store, jobs)
    if found.clash:
        job, holder = found.clash
        return replace(_fault(job, "key", store.lines.get(job.queue)), first=holder)
    new = list(found.new.values())
    refusal = _moving(store, [*new, *found.newcomers.values()]) or _at_fault(
        store, new, admission, ticking=ticking
    )
    if refusal:
        return refusal
    growths = _growths(store, found)
    portions = [
        _portion(store, mine, queue, admission, growths.pop(queue, 0), ticking=ticking)
        for queue, mine in _by_queue(new)
    ]
    portions += [
        _portion(store, [], queue, admission, grown, ticking=ticking)
        for queue, grown in growths.items()
        if grown > 0
    ]
    for portion in portions:
        refusal = _over_bound(portion) or _too_slow(portion)
        if refusal:
            return refusal
    return _carry_out(store, jobs, found, portions, admission)


def _carry_out(
    store: Store,
    jobs: Sequence[Job],
    found: Standing,
    portions: Sequence[Portion],
    admission: Admission,
) -> list[Receipt]:
    """Insert what is new and change what is replaced: nothing can be refused any more."""
    expected = {job: ms for portion in portions for job, ms in portion.expected.items()}
    for portion in portions:
        line = store.lines.setdefault(portion.queue, portion.line)
        line.is_fair = portion.queue in admission.fair
    for name, limit in admission.limits.items():
        declare(store, name, limit)
    told = None
    made: dict[bytes, Row] = {}
    for job in found.new.values():
        row = made[job.id] = store.insert(job)
        if expected[job.id] is not None:
            told = row
    for row in made.values():
        if row.job.after:
            follow_ended(store, row)
    for holder, newcomer in found.newcomers.items():
        supplant(store, store.rows[holder], newcomer)
    if told:
        wait_ms = expected[told.job.id] or 0
        told.predicted_ms = wait_ms if wait_ms <= LONGEST_PROMISE_MS else None
    store.repeats |= found.repeats
    waits = {portion.queue: portion.longest_ms for portion in portions}
    queues = waits if len(made) == len(jobs) else dict.fromkeys(job.queue for job in jobs)
    ended = [row.job for row in made.values() if row.state.is_final]
    pressure = {queue: _pressure(store, queue, admission, waits, ended) for queue in queues}
    return [
        Receipt(job.id, first, pressure[job.queue], replaced=replaced)
        if first
        else Receipt(
            job.id,
            None,
            pressure[job.queue],
            expected[job.id],
            made[job.id].enqueued_ms,
            made[job.id].place_ms,
        )
        for job, first, replaced in zip(jobs, found.firsts, found.replaced, strict=True)
    ]


def _growths(store: Store, found: Standing) -> dict[str, int]:
    """By how many bytes the jobs of each queue grow that are replaced."""
    growths: dict[str, int] = {}
    for holder, newcomer in found.newcomers.items():
        row = store.rows[holder]
        growths[row.queue] = growths.get(row.queue, 0) + newcomer.size - row.job.size
    return growths


def _by_queue(jobs: Sequence[Job]) -> Collection[tuple[str, list[Job]]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.queue, []).append(job)
    return found.items()


def _moving(store: Store, new: Sequence[Job]) -> Refusal | None:
    """Refuse what is new while the store is being moved, but for work born inside a job."""
    seal = store.seal
    if seal is None or not new or (not seal.is_done and all(job.parent for job in new)):
        return None
    line = store.lines.get(new[0].queue)
    refusal = _fault(new[0], "moving", line)
    return replace(refusal, can_fit=not seal.is_done, job=None, to=seal.to)


# -- what no waiting would mend --


def _at_fault(
    store: Store, new: Sequence[Job], admission: Admission, *, ticking: bool
) -> Refusal | None:
    """Refuse the wrong kind of queue, an id from before history, and edges to nowhere or in
    a circle."""
    come = {job.id for job in new}
    for job in new:
        line = store.lines.get(job.queue)
        if line and line.kind is not admission.kind:
            return _fault(job, "kind", line)
        if id_ms(job.id) <= store.forgotten_ms and not ticking:
            return _fault(job, "stale", line)
        if job.after and not _are_known(store, job, come):
            return _fault(job, "after", line)
    stuck = first_stuck(new)
    return _fault(stuck, "after", store.lines.get(stuck.queue)) if stuck else None


def _are_known(store: Store, job: Job, come: Collection[bytes]) -> bool:
    """Whether all that a job waits for is in the store, or comes with it."""
    others = [edge.job for edge in job.after]
    return job.id not in others and all(it in store.rows or it in come for it in others)


def _fault(job: Job, limit: str, line: Line | None) -> Refusal:
    depth = line.jobs if line else 0
    return Refusal(job.queue, limit, depth, bound=0, jobs=depth, can_fit=False, job=job.id)


# -- bounds --


class Portion(NamedTuple):
    """What an append brings to one queue."""

    queue: str
    jobs: list[Job]
    line: Line
    bounds: Bounds  # in force
    pace: Pace | None
    expected: dict[bytes, int | None]  # the wait of each job
    grown: int  # bytes that those which are replaced in it grow by
    ticking: bool  # it is of a schedule

    @property
    def longest_ms(self) -> int | None:
        return max((ms for ms in self.expected.values() if ms is not None), default=None)

    def refusal(self, limit: str, depth: int, bound: int, added: int, *, can_fit: bool) -> Refusal:
        return Refusal(
            queue=self.queue,
            limit=limit,
            depth=depth,
            bound=bound,
            added=added,
            jobs=self.line.jobs,
            expected_ms=self.longest_ms,
            can_fit=can_fit,
        )


def _portion(
    store: Store, mine: list[Job], queue: str, admission: Admission, grown: int, *, ticking: bool
) -> Portion:
    declared = admission.declared.get(queue)
    line = store.lines.get(queue) or Line(queue, admission.kind, declared or DEFAULT_BOUNDS)
    pace = admission.paces.get(queue)
    expected: dict[bytes, int | None] = {job.id: None for job in mine}
    if pace:
        running, ready = line.held[State.RUNNING], _ready(line)
        for job in mine:
            if _is_next(job):
                ahead = sum(ready[job.priority :])
                expected[job.id] = pace.expected_ms(job.priority, ahead, running)
                ready[job.priority] += 1
    return Portion(queue, mine, line, line.bounds(declared), pace, expected, grown, ticking)


def _ready(line: Line) -> list[int]:
    """How many jobs wait, by priority."""
    ready = [0] * 10
    for priority, tally in line.tallies.items():
        ready[priority] = tally.ready
    return ready


def _is_next(job: Job) -> bool:
    """Whether a job is in line from its append on."""
    return job.delay_ms <= 0 and not job.after


def _ahead(jobs: Sequence[Job], i: int) -> int:
    """How many jobs of a batch go before this one of it."""
    return sum(_is_next(job) and job.priority >= jobs[i].priority for job in jobs[:i])


def _over_bound(portion: Portion) -> Refusal | None:
    """Refuse what would pass a bound on jobs, bytes or the share of a group."""
    bounds, line, mine = portion.bounds, portion.line, portion.jobs
    most, held = bounds.max_jobs, line.jobs
    if mine and held + len(mine) > most:
        most = _places(most, portion, mine)
        if held + len(mine) > most:
            return portion.refusal("jobs", held, most, len(mine), can_fit=len(mine) <= most)
    size, room = sum(job.size for job in mine) + portion.grown, bounds.max_bytes
    if line.bytes + size > room:
        return portion.refusal("bytes", line.bytes, room, size, can_fit=size <= room)
    if bounds.group_share is None:
        return None
    for group in dict.fromkeys(job.group for job in mine if job.group is not None):
        ours = [job for job in mine if job.group == group]
        held, most = portion.line.groups[group], _places(group_places(bounds), portion, ours)
        if held + len(ours) > most:
            fits = len(ours) <= most
            refusal = portion.refusal("group", held, most, len(ours), can_fit=fits)
            return replace(refusal, group=group)
    return None


def _places(number: int, portion: Portion, jobs: Sequence[Job]) -> int:
    """The places for these jobs: work born inside a job, or of a schedule, may use headroom."""
    may = portion.ticking or all(job.parent for job in jobs)
    return number + headroom(number) if may else number


def _too_slow(portion: Portion) -> Refusal | None:
    """Refuse what would wait for too long, or start too late to be done in time."""
    pace = portion.pace
    if pace is None:
        return None
    due = [(i, job, portion.expected[job.id]) for i, job in enumerate(portion.jobs)]
    max_wait = portion.bounds.max_wait_ms
    waits = [
        (ms, i) for i, job, ms in due if ms is not None and not job.parent and not portion.ticking
    ]
    if waits and max_wait is not None and max(waits)[0] > max_wait:
        longest, i = max(waits)
        return _late(portion, pace, "wait", longest, i, max_wait)
    late = [
        (ms - pace.latest_ms(job.expires_ms), i, ms)
        for i, job, ms in due
        if ms is not None and job.expires_ms is not None
    ]
    if late and max(late)[0] > 0:
        excess, i, ms = max(late)
        return _late(portion, pace, "deadline", ms, i, ms - excess)
    return None


def _late(portion: Portion, pace: Pace, limit: str, ms: int, i: int, bound: int) -> Refusal:
    """Say how long the job that decides would wait, and how long it may."""
    fits = pace.can_fit(_ahead(portion.jobs, i), bound)
    refusal = portion.refusal(limit, ms, bound, len(portion.jobs), can_fit=fits)
    return replace(refusal, expected_ms=ms)


# -- what the caller is told --


def _pressure(
    store: Store,
    queue: str,
    admission: Admission,
    waits: dict[str, int | None],
    ended: Sequence[Job],
) -> float:
    """How full the queue is now, by the fullest of its bounds, with those that ended at once."""
    line = store.lines.get(queue)
    if line is None:
        return 0.0
    bounds = line.bounds(admission.declared.get(queue))
    ended = [job for job in ended if job.queue == queue]
    jobs, size = line.jobs + len(ended), line.bytes + sum(job.size for job in ended)
    fullest = max(jobs / max(1, bounds.max_jobs), size / max(1, bounds.max_bytes))
    if bounds.max_wait_ms is not None:
        fullest = max(fullest, (waits.get(queue) or 0) / bounds.max_wait_ms)
    return min(1.0, fullest)
