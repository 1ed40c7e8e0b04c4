"""Circles: jobs that would wait for each other for ever."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.model.job import Job


def first_stuck(jobs: Sequence[Job]) -> Job | None:
    """Return the first of these jobs that waits in a circle of them, or behind one."""
    after = {job.id: {edge.job for edge in job.after} for job in jobs if job.after}
    left = {job: others & after.keys() for job, others in after.items()}
    behind: dict[bytes, list[bytes]] = {}
    for job, others in left.items():
        for other in others:
            behind.setdefault(other, []).append(job)
    free = [job for job, others in left.items() if not others]
    while free:
        done = free.pop()
        del left[done]
        for job in behind.get(done, ()):
            left[job].discard(done)
            if not left[job]:
                free.append(job)
    return next((job for job in jobs if job.id in left), None)
