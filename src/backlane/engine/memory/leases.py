"""Claim, extend and settle: what a worker does with jobs, and what a lapse does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from backlane.engine.memory import resource
from backlane.engine.memory.ending import finish, follow, wait_for
from backlane.engine.memory.record import job_record
from backlane.engine.memory.resource import Rooms
from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.memory.waking import Waking, has_room, waking
from backlane.engine.protocol import Claimed, Extended, Settled, Wanted
from backlane.engine.recalling import Latest
from backlane.model.job import JobRecord, Lane, Lease, State
from backlane.model.outcome import (
    POISON_CAP,
    Awaiting,
    Cancelled,
    Crashed,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

MOVES = 1_000  # rows a claim brings into ready at most, so that a claim stays short


def claim(store: Store, wanted: Wanted) -> Claimed:
    buried = bring_in(store, wanted.departed)
    leases: list[Lease] = []
    expired: list[bytes] = []
    rooms, awake = Rooms(store), waking(store, wanted)
    number = 0 if store.seal else wanted.number
    if not store.seal:
        awake.wake()
    for row in _in_line(store, wanted, rooms, awake) if number else ():
        if store.has_expired(row):
            store.end(row, State.EXPIRED)
            expired.append(row.job.id)
        elif not awake.stop(row):
            rooms.give(row.job.resource, row.job.id)
            leases.append(store.lease(row, wanted.owner, wanted.lease_ms))
        if len(leases) == number:
            break
    for job in expired:  # who waited for these is for the next claim
        follow(store, job, State.EXPIRED)
    turned = rooms.tell()
    mine = [row for row in store.in_state(State.RUNNING) if row.owner == wanted.owner]
    return Claimed(
        leases=leases,
        cancelled=[row.job.id for row in mine if row.cancelling],
        next_due_ms=next_due_ms(store, awake),
        buried=buried,
        turned=turned,
    )


def extend(store: Store, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
    held = [row for row in (store.held(job, token) for job, token in leases) if row]
    living = {(row.job.id, row.token): row for row in held if not store.has_lapsed(row)}
    for row in living.values():
        row.lease_end_ms = store.clock.boot_ms() + by_ms
    return Extended(
        lost=[job for job, token in leases if (job, token) not in living],
        cancelled=[row.job.id for row in living.values() if row.cancelling],
    )


def settle(store: Store, settlements: Sequence[Settlement]) -> Settled:
    buried = []
    of_resources: dict[str, list[tuple[bytes, Outcome]]] = {}
    current, lost = _current(store, settlements)
    for row, one in sorted(current, key=_awaits):
        if row.job.resource:
            of_resources.setdefault(row.job.resource, []).append((one.job, one.outcome))
        if not isinstance(one.outcome, Released):  # of that the attempt may not have started
            line = store.lines[row.queue]
            line.tally(row.priority).end(one.ran_ms)
            if line.is_fair:
                line.fairness.end(row.job.group, one.ran_ms)
        _carry_out(store, row, one.outcome)
        row.ran_ms = one.ran_ms if row.state.is_final else 0
        if row.state is State.FAILED:
            buried.append(one.job)
    return Settled(
        lost=lost,
        buried=buried,
        turned=resource.feed(store, of_resources),
    )


def _current(
    store: Store, settlements: Sequence[Settlement]
) -> tuple[list[tuple[Row, Settlement]], list[bytes]]:
    """The settlements of current leases, the first of each; and the jobs of the others."""
    current: dict[bytes, tuple[Row, Settlement]] = {}
    lost = []
    for one in settlements:
        row = store.held(one.job, one.token)
        if row is None or one.job in current:
            lost.append(one.job)
        else:
            current[one.job] = row, one
    return list(current.values()), lost


def _awaits(one: tuple[Row, Settlement]) -> bool:
    """What is awaited is looked at last: it may end in the same call."""
    return isinstance(one[1].outcome, Awaiting)


def lapse(store: Store, row: Row) -> None:
    """Nobody holds the lease any more: the execution counts, the place is kept."""
    row.attempt += 1
    _go_on(store, row)


def bring_in(store: Store, departed: tuple[str, ...]) -> list[JobRecord]:
    """Move what lapsed and what is due into ready; return what had to be buried."""
    lapsed = [
        row
        for row in store.in_state(State.RUNNING)
        if row.owner in departed or store.has_lapsed(row)
    ]
    lapsed = sorted(lapsed, key=lambda row: (row.lease_end_ms, row.seq))[:MOVES]
    for row in lapsed:
        lapse(store, row)
    now = store.clock.wall_ms()
    due = [row for row in store.in_state(State.SCHEDULED) if row.place_ms <= now]
    for row in sorted(due, key=lambda row: (row.place_ms, row.seq))[: MOVES - len(lapsed)]:
        store.put_back(row)
    return [job_record(row) for row in lapsed if row.state is State.FAILED]


def _in_line(store: Store, wanted: Wanted, rooms: Rooms, awake: Waking) -> Iterator[Row]:
    """What is claimed next, as long as anything may be; each is gone when the next is sought."""
    if not wanted.ids:
        while heads := _that_may(store, store.heads(awake.queues, wanted.lane), rooms, awake):
            yield min(heads, key=lambda row: row.order)
        return
    known = [store.rows[job] for job in dict.fromkeys(wanted.ids) if job in store.rows]
    ready = [row for row in known if row.state is State.READY and wanted.lane in (None, row.lane)]
    for row in sorted(ready, key=lambda row: row.order):
        yield from _that_may(store, [row], rooms, awake)


def _that_may(store: Store, rows: Sequence[Row], rooms: Rooms, awake: Waking) -> list[Row]:
    """Those of ready rows whose queue and resource give one more now."""
    giving = {queue for queue in awake.queues if has_room(store, queue)}
    return [
        row
        for row in rows
        if row.queue in giving and rooms.has_room(row.job.resource) and not awake.is_at_its_end
    ]


def next_due_ms(store: Store, awake: Waking) -> int | None:
    wall, boot = store.clock.wall_ms(), store.clock.boot_ms()
    waits = [row.place_ms - wall for row in store.in_state(State.SCHEDULED)]
    waits += [row.lease_end_ms - boot for row in store.in_state(State.RUNNING)]
    next_trial_ms = resource.next_trial_ms(store)
    waits += [] if next_trial_ms is None else [next_trial_ms]
    next_token_ms = awake.next_token_ms()
    waits += [] if next_token_ms is None else [next_token_ms]
    return max(0, min(waits)) if waits else None


def _carry_out(store: Store, row: Row, outcome: Outcome) -> None:
    now = store.clock.wall_ms()
    if not isinstance(outcome, Snoozed | Released):
        row.parked_since_ms = None  # a worker knew its task
    match outcome:
        case Succeeded(result=result):
            row.attempt += 1
            finish(store, row, State.SUCCEEDED, result=result)
            _keep_latest(store, row)
        case Failed(reason=reason, error=error):
            row.keep_error(error, now)
            row.attempt += 1
            finish(store, row, State.FAILED, reason=reason)
        case Cancelled(error=error):
            row.keep_error(error, now)
            finish(store, row, State.CANCELLED)
        case RetryAfter():
            _retry(store, row, outcome)
        case Crashed(alone=alone, error=error):
            row.keep_error(error, now)
            row.attempt += 1
            row.crashes += alone
            row.lane = Lane.EXCLUSIVE
            _go_on(store, row)
        case Snoozed():
            _snooze(store, row, outcome)
        case Released():
            if row.cancelling:
                finish(store, row, State.CANCELLED)
            else:
                store.put_back(row)
        case Awaiting():
            if row.cancelling:
                finish(store, row, State.CANCELLED)
            else:
                wait_for(store, row, outcome)
        case _:
            assert_never(outcome)


def _keep_latest(store: Store, row: Row) -> None:
    """Keep a copy of the newest result of a task that asks for it."""
    job, before = row.job, store.latest.get(row.job.task or "")
    if job.task is None or row.result is None or not job.policy.keeps_latest:
        return
    if before is None or before.job < job.id:
        store.latest[job.task] = Latest(job.id, row.ended_ms or 0, row.result)


def _retry(store: Store, row: Row, outcome: RetryAfter) -> None:
    row.keep_error(outcome.error, store.clock.wall_ms())
    row.attempt += 1
    if row.cancelling:
        finish(store, row, State.CANCELLED)
    elif row.attempt >= row.job.policy.attempts:
        finish(store, row, State.FAILED, reason=Reason.ATTEMPTS)
    else:
        store.lines[row.queue].tally(row.priority).retried += 1
        store.put_off(row, outcome.delay_ms)


def _snooze(store: Store, row: Row, outcome: Snoozed) -> None:
    if not outcome.parked:
        row.parked_since_ms = None
    elif row.parked_since_ms is None:
        row.parked_since_ms = store.clock.wall_ms()
    if row.cancelling:
        finish(store, row, State.CANCELLED)
    else:
        store.put_off(row, outcome.delay_ms)


def _go_on(store: Store, row: Row) -> None:
    """After an execution that nobody saw the end of: again from its place, if it may."""
    if row.cancelling:
        finish(store, row, State.CANCELLED)
    elif row.attempt >= row.job.policy.attempts or row.crashes >= POISON_CAP:
        finish(store, row, State.FAILED, reason=Reason.CRASHED)
    else:
        store.put_back(row)
