"""Append: all jobs or none."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.memory.store import Line, Store
from backlane.engine.protocol import Admission
from backlane.model.ids import id_ms
from backlane.model.job import Job, Key, Receipt, Refusal
from backlane.model.queue import DEFAULT_BOUNDS, headroom


def append(store: Store, jobs: Sequence[Job], admission: Admission) -> list[Receipt] | Refusal:
    """Judge the jobs as a whole, then insert those that are new."""
    receipts = [Receipt(job.id, first) for job, first in _firsts(store, jobs)]
    new = [job for job, receipt in zip(jobs, receipts, strict=True) if receipt.is_new]
    refusal = _at_fault(store, new, admission) or _over_bound(store, new, admission)
    if refusal:
        return refusal
    for job in new:
        store.line(job.queue, admission.kind, admission.declared.get(job.queue))
        store.insert(job)
    return receipts


def _firsts(store: Store, jobs: Sequence[Job]) -> list[tuple[Job, bytes | None]]:
    """Pair each job with the one that has its id or key already, in the store or before it."""
    ids: set[bytes] = set()
    keys: dict[Key, bytes] = {}
    pairs = []
    for job in jobs:
        first = None
        if job.id in store.rows or job.id in ids:
            first = job.id
        elif job.key:
            first = store.keys.get(job.key) or keys.get(job.key)
        if first is None:
            ids.add(job.id)
            if job.key:
                keys[job.key] = job.id
        pairs.append((job, first))
    return pairs


def _at_fault(store: Store, new: Sequence[Job], admission: Admission) -> Refusal | None:
    """Refuse what no waiting would mend: the wrong kind of queue, an id from before history."""
    for job in new:
        line = store.lines.get(job.queue)
        if line and line.kind is not admission.kind:
            return _fault(job, "kind", line)
        if id_ms(job.id) <= store.forgotten_ms:
            return _fault(job, "stale", line)
    return None


def _fault(job: Job, limit: str, line: Line | None) -> Refusal:
    depth = line.depth.jobs if line else 0
    return Refusal(job.queue, limit, depth, bound=0, can_fit=False, job=job.id)


def _over_bound(store: Store, new: Sequence[Job], admission: Admission) -> Refusal | None:
    for queue in dict.fromkeys(job.queue for job in new):
        mine = [job for job in new if job.queue == queue]
        declared = admission.declared.get(queue)
        line = store.lines.get(queue) or Line(queue, admission.kind, declared or DEFAULT_BOUNDS)
        bounds, depth = line.bounds(declared), line.depth
        max_jobs = bounds.max_jobs
        if all(job.parent for job in mine):  # work born inside a job
            max_jobs += headroom(bounds.max_jobs)
        size = sum(job.size for job in mine)
        if depth.jobs + len(mine) > max_jobs:
            return Refusal(queue, "jobs", depth.jobs, max_jobs, len(mine), len(mine) <= max_jobs)
        if depth.bytes + size > bounds.max_bytes:
            return Refusal(
                queue, "bytes", depth.bytes, bounds.max_bytes, size, size <= bounds.max_bytes
            )
    return None
