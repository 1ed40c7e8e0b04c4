"""Amend: what people do to jobs. Find: how they look for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from backlane.engine.memory.edges import as_text, by_job, is_met
from backlane.engine.memory.ending import follow
from backlane.engine.memory.line import Line
from backlane.engine.memory.record import job_record
from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.selection import (
    Amended,
    Cancel,
    Change,
    Delete,
    Move,
    Page,
    Redrive,
    Reprioritise,
    Selection,
    Skipped,
)
from backlane.model.job import WAITING, State
from backlane.model.queue import DEFAULT_BOUNDS, group_places

AMENDED = 1_000  # jobs an amend changes at most
READ = 10_000  # rows a call looks at, at most


def find(
    store: Store, selection: Selection, limit: int, cursor: bytes | None, *, brief: bool
) -> Page:
    rows, cursor = _select(store, selection, limit, cursor)
    whole = bool(selection.ids) and not brief
    return Page([job_record(row, whole=whole) for row in rows], cursor)


def amend(store: Store, selection: Selection, change: Change, cursor: bytes | None) -> Amended:
    rows, cursor = _select(store, selection, AMENDED, cursor)
    changed, flagged, skipped = [], [], []
    stuck = {row.job.id: _why_stuck(store, row) for row in rows if isinstance(change, Redrive)}
    ended = []
    for row in rows:
        job = row.job.id
        why_not = _why_not(store, row, change) or stuck.get(job)
        if why_not:
            skipped.append(Skipped(job, why_not))
        elif isinstance(change, Cancel) and row.state is State.RUNNING:
            store.flag(row)
            flagged.append(job)
        else:
            if isinstance(change, Cancel | Delete) and row.state in WAITING:
                ended.append(job)
            _carry_out(store, row, change)
            changed.append(job)
    for job in ended:  # of those that were selected too nobody is told that he waited in vain
        follow(store, job, State.CANCELLED)
    return Amended(changed, flagged, skipped, cursor)


def _select(
    store: Store, selection: Selection, limit: int, cursor: bytes | None
) -> tuple[list[Row], bytes | None]:
    """Some matching rows, newest first, and where to go on."""
    before = int.from_bytes(cursor) if cursor else None
    rows = (row for row in _newest_first(store, selection) if before is None or row.seq < before)
    found: list[Row] = []
    for read, row in enumerate(rows):
        if len(found) >= limit or read >= READ:
            return found, (row.seq + 1).to_bytes(8)
        if _matches(row, selection):
            found.append(row)
    return found, None


def _newest_first(store: Store, selection: Selection) -> Iterable[Row]:
    if not selection.ids:
        return reversed(store.rows.values())
    rows = [store.rows[job] for job in set(selection.ids) if job in store.rows]
    return sorted(rows, key=lambda row: row.seq, reverse=True)


def _matches(row: Row, selection: Selection) -> bool:
    job = row.job
    return (
        (not selection.ids or job.id in selection.ids)
        and (not selection.states or row.state in selection.states)
        and (not selection.reasons or row.reason in selection.reasons)
        and selection.queue in (None, row.queue)
        and selection.task in (None, job.task)
        and (selection.key is None or (job.key is not None and job.key.name == selection.key))
        and selection.group in (None, job.group)
        and (selection.tag is None or selection.tag in job.tags)
        and selection.workflow in (None, job.workflow)
        and (selection.since_ms is None or row.enqueued_ms >= selection.since_ms)
        and (selection.before_ms is None or row.enqueued_ms < selection.before_ms)
        and (selection.text is None or _says(row, selection.text))
    )


def _says(row: Row, text: str) -> bool:
    return any(_folded(text) in _folded(kept.error.message) for kept in row.errors)


def _folded(text: str) -> str:
    """Lower case in ASCII alone, which every store can do alike."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _why_not(store: Store, row: Row, change: Change) -> str | None:
    """Why this change leaves this job as it is; None if it does not."""
    if store.seal and not (isinstance(change, Cancel) and row.state is State.RUNNING):
        return store.seal.why_not
    match change:
        case Cancel():
            return None if row.state in WAITING else f"it is {row.state} already"
        case Redrive():
            return _why_not_again(store, row)
        case Reprioritise():
            return None if row.state in WAITING else f"it is {row.state} already"
        case Delete():
            return "it is running; cancel it first" if row.state is State.RUNNING else None
        case Move(queue=queue):
            return _why_not_to(store, row, queue)
        case _:
            assert_never(change)


def _why_not_again(store: Store, row: Row) -> str | None:
    if row.state is State.SCHEDULED:
        return None
    if row.state in WAITING or row.state is State.SUCCEEDED:
        return f"it is {row.state}"
    holder = store.keys.holder(row.job.key)
    holds = store.keys.would_hold(row.job, State.READY, row.token, row.enqueued_ms)
    if holder and holder != row.job.id and holds:
        return f"its key is held by job {holder.hex()}"
    line = store.lines[row.queue]
    depth, bounds = line.depth, line.bounds()
    if depth.jobs + 1 > bounds.max_jobs or depth.bytes + row.job.size > bounds.max_bytes:
        return f"queue {row.queue!r} is full"
    group = row.job.group
    most = group_places(bounds)
    if bounds.group_share is not None and group is not None and line.groups[group] >= most:
        return f"group {group!r} fills its share of queue {row.queue!r}"
    return None


def _why_stuck(store: Store, row: Row) -> str | None:
    """Why a job would wait in vain for what it waits for, as that is before the call."""
    if row.state in WAITING:
        return None
    for job, when in by_job(row.job.after).items():
        other = store.rows.get(job)
        if other is not None and other.state.is_final and not is_met(when, other.state):
            return f"job {as_text(job)}, which it waits for, ended as {other.state}"
    return None


def _why_not_to(store: Store, row: Row, queue: str) -> str | None:
    if row.state is State.RUNNING or row.state not in WAITING:
        return f"it is {row.state}"
    if row.queue == queue:
        return "it is there already"
    target = store.lines.get(queue)
    if target and target.kind is not store.lines[row.queue].kind:
        return f"queue {queue!r} holds {target.kind}"
    return None


def _carry_out(store: Store, row: Row, change: Change) -> None:
    match change:
        case Cancel():
            store.end(row, State.CANCELLED)
        case Redrive():
            if row.state is State.SCHEDULED:
                store.put_off(row, 0)
            else:
                store.renew(row)
        case Reprioritise(priority=priority):
            store.reprioritise(row, priority)
        case Delete():
            store.forget(row)
        case Move(queue=queue):
            kind = store.lines[row.queue].kind
            store.lines.setdefault(queue, Line(queue, kind, DEFAULT_BOUNDS))
            store.move(row, queue)
        case _:
            assert_never(change)
