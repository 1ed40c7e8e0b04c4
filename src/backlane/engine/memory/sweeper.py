"""Sweep: mend what lapsed, end what expired, age what waits, prune what is old."""

from __future__ import annotations

from collections.abc import Iterable

from backlane.engine.memory.ending import follow
from backlane.engine.memory.leases import lapse
from backlane.engine.memory.row import Row
from backlane.engine.memory.schedules import forget_undeclared
from backlane.engine.memory.store import Store
from backlane.engine.retention import Retention, Swept
from backlane.model.job import FINAL, State

LEVEL_MS = 300_000  # of waiting are one level of priority
TOP = 9
SILENT_MS = 60_000  # without a beat: the worker is forgotten
DONE = (State.SUCCEEDED, State.CANCELLED, State.EXPIRED)


def sweep(store: Store, limit: int, retention: Retention) -> Swept:
    left = limit
    lapsed = [row for row in store.in_state(State.RUNNING) if store.has_lapsed(row)][:left]
    for row in lapsed:
        lapse(store, row)
    left -= len(lapsed)
    waiting = store.in_state(State.SCHEDULED, State.READY, State.BLOCKED)
    expired = [row for row in waiting if store.has_expired(row)][:left]
    for row in expired:
        store.end(row, State.EXPIRED)
    for row in expired:
        follow(store, row.job.id, State.EXPIRED)
    left -= len(expired)
    aged = [row for row in store.in_state(State.READY) if row.rank < _aged_rank(store, row)][:left]
    for row in aged:
        store.age(row, _aged_rank(store, row))
    left -= len(aged)
    old = _outkept(store, retention) + _outdated(store, retention)
    old = [row for row in old if not store.edges.is_needed(row.job.id)][:left]
    for row in old:
        store.forget(row, pruned=True)
    left -= len(old)
    left -= _forget_repeats(store, left)
    left -= store.keys.sweep(left)
    _forget_silent_workers(store)
    if store.workers:
        forget_undeclared(store)
    return Swept(
        lapsed=len(lapsed),
        buried=[row.job.id for row in lapsed if row.state is State.FAILED],
        expired=len(expired),
        aged=len(aged),
        pruned=len(old),
        more=left <= 0,
    )


def _aged_rank(store: Store, row: Row) -> int:
    waited = max(0, store.clock.wall_ms() - row.place_ms)
    return max(row.rank, min(TOP, row.priority + waited // LEVEL_MS))


def _outkept(store: Store, retention: Retention) -> list[Row]:
    """Finished rows past the time that their own policy keeps them for."""
    now = store.clock.wall_ms()
    kept = [
        (row, (row.ended_ms or 0) + max(row.job.policy.keep_ms, retention.least_ms))
        for row in store.in_state(*FINAL)
        if row.job.policy.keep_ms is not None and row.job.policy.keep_ms >= 0
    ]
    past = [(end_ms, row.seq, row) for row, end_ms in kept if end_ms <= now]
    return [row for _, _, row in sorted(past, key=lambda it: it[:2])]


def _outdated(store: Store, retention: Retention) -> list[Row]:
    """Finished rows past their age, or beyond the number kept of their queue.

    Those whose policy says how long they are kept are none of these.
    """
    found = []
    for queue in store.lines:
        finished = [row for row in store.in_state(*DONE) if _is_plain(row, queue)]
        found += _beyond(store, finished, retention.done_ms, retention.done_jobs, retention)
        failed = [row for row in store.in_state(State.FAILED) if _is_plain(row, queue)]
        found += _beyond(store, failed, retention.failed_ms, retention.failed_jobs, retention)
    return found


def _is_plain(row: Row, queue: str) -> bool:
    return row.queue == queue and row.job.policy.keep_ms is None


def _beyond(
    store: Store, rows: Iterable[Row], age_ms: int, number: int, retention: Retention
) -> list[Row]:
    now = store.clock.wall_ms()
    newest_first = sorted(rows, key=lambda row: (row.ended_ms or 0, row.seq), reverse=True)
    found = []
    for i, row in enumerate(newest_first):
        age = now - (row.ended_ms or 0)
        if age >= retention.least_ms and (age >= age_ms or i >= number):
            found.append(row)
    return found[::-1]


def _forget_repeats(store: Store, limit: int) -> int:
    """Forget idempotency keys past their time, the oldest first; return how many."""
    now = store.clock.wall_ms()
    past = [name for name, one in store.repeats.items() if one.until_ms <= now]
    past = sorted(past, key=lambda name: (store.repeats[name].until_ms, name))[: max(0, limit)]
    for name in past:
        del store.repeats[name]
    return len(past)


def _forget_silent_workers(store: Store) -> None:
    boot = store.clock.boot_ms()
    for owner, (_, _, beat_ms) in list(store.workers.items()):
        if boot - beat_ms > SILENT_MS:
            del store.workers[owner]
