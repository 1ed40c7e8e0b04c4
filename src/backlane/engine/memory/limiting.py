"""The verbs of limits."""

from __future__ import annotations

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.memory.store import Store
from backlane.model.job import State
from backlane.model.limit import Limit, LimitRecord, Use

LISTED = 1_000


def list_limits(store: Store) -> list[LimitRecord]:
    """Return the limits by name."""
    return [_record(store, name) for name in sorted(store.limits.declared)[:LISTED]]


def regulate(store: Store, name: str, change: Declared | Tuned) -> LimitRecord | None:
    """Declare or tune a limit."""
    limits = store.limits
    if isinstance(change, Declared):
        declare(store, name, change.limit)
        return _record(store, name)
    if name not in limits.declared:
        if _queue(name) not in store.lines:
            return None
        limits.declared[name] = Limit()
    if change.limit is None:
        limits.tuned.pop(name, None)
    else:
        limits.tuned[name] = change.limit
    _ring(store, name)
    return _record(store, name)


def declare(store: Store, name: str, limit: Limit) -> None:
    """Take in what the code says of a limit."""
    if store.limits.declared.get(name) != limit:
        store.limits.declared[name] = limit
        _ring(store, name)


def acquire(
    store: Store, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
) -> Acquired:
    """Take a place under a limit outside of jobs, or keep the one there is."""
    limits, now = store.limits, store.clock.boot_ms()
    if declared and use.limit not in limits.declared:
        limits.declared[use.limit] = declared
    part = limits.part(use)
    part.acquired = {it: end_ms for it, end_ms in part.acquired.items() if end_ms > now}
    if holder not in part.acquired:
        if limits.room(use, running=_running(store, use)) == 0:
            wait_ms = limits.token_in_ms(use)
            limits.tidy(use)
            return Acquired(is_given=False, wait_ms=wait_ms or None)
        limits.spend_one(use)
    part.acquired[holder] = now + lease_ms
    return Acquired(is_given=True)


def release(store: Store, use: Use, holder: bytes) -> bool:
    """Give a place back; return whether the holder had it still."""
    part = store.limits.part(use)
    end_ms = part.acquired.pop(holder, None)
    store.rung_queues |= store.limits.waiting_queues([use])
    if store.limits.of_queue(_queue(use.limit)) == use:
        store.rung_queues.add(_queue(use.limit))
    store.limits.tidy(use)
    return end_ms is not None and end_ms > store.clock.boot_ms()


def restore_limit(store: Store, record: LimitRecord) -> None:
    """Take the settings of a limit from another store."""
    store.limits.declared[record.name] = record.declared
    if record.tuned is None:
        store.limits.tuned.pop(record.name, None)
    else:
        store.limits.tuned[record.name] = record.tuned
    _ring(store, record.name)


def _record(store: Store, name: str) -> LimitRecord:
    limits, now = store.limits, store.clock.boot_ms()
    parts = [(use, part) for use, part in limits.of(name)]
    declared = limits.declared[name]
    acquired = [end_ms for _, part in parts for end_ms in part.acquired.values()]
    return LimitRecord(
        name=name,
        limit=limits.in_force(name) or declared,
        declared=declared,
        tuned=limits.tuned.get(name),
        running=_running(store, Use(name))
        + sum(len(part.held) for _, part in parts)
        + sum(end_ms > now for end_ms in acquired),
        blocked=sum(len(jobs) for _, part in parts for jobs in part.blocked.values()),
    )


def _running(store: Store, use: Use) -> int:
    """The jobs of a queue that run under its own limit."""
    queue = _queue(use.limit)
    is_own = store.limits.of_queue(queue) == use
    return store.lines[queue].held[State.RUNNING] if is_own and queue in store.lines else 0


def _queue(limit: str) -> str:
    """The queue whose own limit this is; "": it is another one's."""
    kind, _, queue = limit.partition(":")
    return queue if kind == "queue" else ""


def _ring(store: Store, name: str) -> None:
    """There may be room: tell those that wait."""
    store.rung_queues |= store.limits.waiting_queues(use for use, _ in store.limits.of(name))
    if _queue(name):
        store.rung_queues.add(_queue(name))
