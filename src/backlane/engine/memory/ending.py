"""Ending: how a job ends, and what comes of it for those who waited for it."""

from __future__ import annotations

from collections import deque

from backlane.engine.memory.edges import by_job, is_met, skipped
from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.moving import Whole
from backlane.model.job import FINAL, State, When
from backlane.model.outcome import Awaiting, Reason


def finish(
    store: Store,
    row: Row,
    state: State,
    *,
    reason: Reason | None = None,
    result: bytes | None = None,
) -> None:
    """End a job, and follow its edges."""
    store.end(row, state, reason=reason, result=result)
    follow(store, row.job.id, state)


def follow(store: Store, job: bytes, state: State) -> None:
    """Follow the edges of a job that ended, and of those that end by it.

    One after the other, not one within the other: a chain may be of any length.
    """
    ended = deque([(job, state)])
    while ended:
        job, state = ended.popleft()
        for waiter, when in store.edges.close(job):
            row = store.rows[waiter]
            row.waits_for = store.edges.left(waiter)
            if not is_met(when, state):
                row.keep_error(skipped(job, state), store.clock.wall_ms())
                store.end(row, State.CANCELLED)
                ended.append((waiter, State.CANCELLED))
            elif not row.waits_for:
                _unblock(store, row)


def follow_ended(store: Store, row: Row) -> None:
    """Follow those edges of a new job that had failed before it came."""
    for job, when in by_job(row.job.after).items():
        other = store.rows.get(job)
        if row.state in FINAL:  # by another one of its append
            return
        if other is not None and other.state in FINAL and not is_met(when, other.state):
            row.keep_error(skipped(job, other.state), store.clock.wall_ms())
            finish(store, row, State.CANCELLED)


def wait_for(store: Store, row: Row, outcome: Awaiting) -> None:
    """Give a lease back until other jobs have ended."""
    for job in outcome.jobs:
        other = store.rows.get(job)
        if other is None or other is row:
            continue
        if other.state in FINAL:
            store.edges.remember(row.job.id, job)
        else:
            store.edges.open(row.job.id, job, When.ENDED)
    row.waits_for = store.edges.left(row.job.id)
    store.put_back(row)


def resume(store: Store, row: Row, whole: Whole) -> None:
    """Let a job from another store wait on; follow its edges, if it has ended there."""
    job = row.job.id
    if row.state in FINAL:
        follow(store, job, row.state)
        return
    for other in (*(edge.job for edge in row.job.after), *whole.waited):
        store.edges.remember(job, other)
    for edge in whole.open:
        store.edges.open(job, edge.job, edge.when)
    row.waits_for = store.edges.left(job)
    for edge in whole.open:
        ended = store.rows.get(edge.job)
        if ended is not None and ended.state in FINAL:
            follow(store, edge.job, ended.state)


def _unblock(store: Store, row: Row) -> None:
    """What was waited for has ended: in line, at the place it has.

    Who has run already is due whatever the wall clock says by now: it may have been set.
    """
    is_due = row.token > 0 or row.place_ms <= store.clock.wall_ms()
    store.get_in_line(row, is_due=is_due)
