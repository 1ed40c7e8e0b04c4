"""Steps: what jobs of several steps did already, kept beside their rows."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.memory.store import Store
from backlane.engine.recalling import Resulted
from backlane.model.job import Note, Step


def note(store: Store, notes: Sequence[Note]) -> list[bytes]:
    """Keep progress and steps; return the jobs whose lease was no longer current."""
    lost = []
    for one in notes:
        row = store.held(one.job, one.token)
        if row is None:
            lost.append(one.job)
            continue
        row.progress = one.progress or row.progress
        if one.steps:
            store.steps.setdefault(one.job, {}).update((it.name, it.result) for it in one.steps)
        store.change(row)
    return lost


def recall(store: Store, job: bytes) -> list[Step]:
    """Return the steps of a job in the order of their first note."""
    return [Step(name, result) for name, result in store.steps.get(job, {}).items()]


def results(store: Store, jobs: Sequence[bytes]) -> list[Resulted]:
    """Return what those of these jobs that are stored resulted in."""
    rows = [store.rows[job] for job in dict.fromkeys(jobs) if job in store.rows]
    return [
        Resulted(row.job.id, row.state if row.state.is_final else None, row.result) for row in rows
    ]
