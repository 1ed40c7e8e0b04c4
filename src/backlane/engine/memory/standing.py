"""Standing: which jobs of an append are known already, and what becomes of those they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backlane.engine.memory.keys import most_delayed, supplanted
from backlane.engine.memory.row import Repeat, Row
from backlane.engine.memory.store import Store
from backlane.model.job import WAITING, Idempotency, Job, Key


@dataclass(slots=True)
class Standing:
    """What an append comes to, once each job was held against those before it."""

    firsts: list[bytes | None] = field(default_factory=list)  # who stands for each job; None: new
    replaced: list[bool] = field(default_factory=list)  # whether that one takes its arguments
    new: dict[bytes, Job] = field(default_factory=dict)  # as they are to be inserted
    repeats: dict[tuple[str, str], Repeat] = field(default_factory=dict)  # new idempotency keys
    newcomers: dict[bytes, Job] = field(default_factory=dict)  # the newest, by holder in the store
    clash: tuple[Job, bytes] | None = None  # a job that must not meet its key held, and by whom


def standing(store: Store, jobs: Sequence[Job]) -> Standing:
    """Find for each job the one that stands for it, in the store or before it in the append."""
    found = Standing()
    keys: dict[Key, bytes] = {}
    for job in jobs:
        known = _repeat(store, job.idempotency) or _asked(found, job.idempotency)
        first, replaces = None, False
        if known:
            first = known.job
        elif job.id in store.rows or job.id in found.new:
            first = job.id
        elif job.key:
            first = store.keys.holder(job.key) or keys.get(job.key)
            replaces = first is not None and _meet(store, found, job, first)
        if first is None:
            found.new[job.id] = job
            if job.key:
                keys[job.key] = job.id
        one = job.idempotency
        if one and not known:
            until_ms = store.clock.wall_ms() + one.window_ms
            found.repeats[one.scope, one.name] = Repeat(first or job.id, one, until_ms)
        found.firsts.append(first)
        found.replaced.append(replaces)
    return found


def _meet(store: Store, found: Standing, job: Job, holder: bytes) -> bool:
    """A job finds its key held: say whether the holder takes its arguments."""
    conflict = job.rule.conflict
    if conflict == "raise":
        found.clash = found.clash or (job, holder)
    if conflict not in ("replace", "debounce"):
        return False
    if holder in found.new:
        found.new[holder] = supplanted(found.new[holder], job)
        return True
    row = store.rows.get(holder)
    if row is None or row.token or row.state not in WAITING:
        return False
    found.newcomers[holder] = job
    return True


def supplant(store: Store, row: Row, newcomer: Job) -> None:
    """Let a job that never started take the arguments of a newer one, and when it is due."""
    now, most_ms = store.clock.wall_ms(), newcomer.rule.most_ms
    left_ms = None if most_ms is None else row.enqueued_ms + most_ms - now
    store.rewrite(row, newcomer.body, newcomer.headers)
    delay_ms = most_delayed(newcomer, left_ms)
    if delay_ms <= 0 and row.place_ms <= now:
        store.change(row)
    else:
        store.put_off(row, delay_ms)  # one that waits for other jobs waits on


def reused(store: Store, jobs: Sequence[Job]) -> Job | None:
    """The first job whose idempotency key was used for something else, here or in the store."""
    used: dict[tuple[str, str], Idempotency] = {}
    for job in jobs:
        one = job.idempotency
        if one is not None:
            known = _repeat(store, one)
            before = known.asked if known else used.setdefault((one.scope, one.name), one)
            if before.print != one.print:
                return job
    return None


def _repeat(store: Store, one: Idempotency | None) -> Repeat | None:
    """What is known of an idempotency key, unless its time is over."""
    known = store.repeats.get((one.scope, one.name)) if one else None
    return known if known and known.until_ms > store.clock.wall_ms() else None


def _asked(found: Standing, one: Idempotency | None) -> Repeat | None:
    return found.repeats.get((one.scope, one.name)) if one else None
