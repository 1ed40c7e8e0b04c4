"""Append: all jobs of a batch or none, and many batches as if one after the other.

Callers that wait for the same commit are merged: the statements are those of one
append, whatever the number of batches, because beside a busy thread each call into
SQLite can cost a switch of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backlane.engine.admission import Answer, Batch, Store, judge
from backlane.engine.plan import Sql
from backlane.engine.portion import Line
from backlane.engine.sqlite.append import enter, keys
from backlane.engine.sqlite.append.idempotency import keep_repeats, read_repeats
from backlane.engine.sqlite.limits import resource
from backlane.engine.sqlite.record import keeping
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.rows import group, tags
from backlane.engine.sqlite.rows.extra import encode_extra
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.policy import encode_policy
from backlane.engine.sqlite.store import seal
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.engine.sqlite.workflow import edges, ends
from backlane.model.clock import Clock
from backlane.model.job import DEFAULT_POLICY, DEFAULT_RULE, Edge, Job, Key
from backlane.model.queue import Bounds

# Served by backlane_job_id.
TAKEN: Sql[tuple[bytes]] = Sql(
    """
    select id
    from backlane_job
    where id in (select value from carray(?))
    """
)
# One row for each priority of a queue: as a rule it has one, and summing up here cost more.
LINES: Sql[tuple[Any, ...]] = Sql(
    """
    select queue.id, name, kind, declared_jobs, declared_bytes, declared_wait_ms, declared_share,
        tuned_jobs, tuned_bytes, tuned_wait_ms, tuned_share, is_fair, priority, scheduled, ready,
        running, blocked, bytes,
        (select max(seq) from backlane_job),
        (select value from backlane_meta where name = 'forgotten_ms'),
        (select value from backlane_meta where name = 'seal')
    from backlane_queue as queue
    left join backlane_counter as counter on counter.queue = queue.id
    where name in (select value from carray(?))
    """
)
NEWEST: Sql[tuple[int, int, bytes | None]] = Sql(
    """
    select coalesce((select max(seq) from backlane_job), 0),
        (select value from backlane_meta where name = 'forgotten_ms'),
        (select value from backlane_meta where name = 'seal')
    """
)
NEW_LINE: Sql[tuple[int]] = Sql(
    """
    insert into backlane_queue (name, kind, declared_jobs, declared_bytes, declared_wait_ms,
        declared_share)
    values (?, ?, ?, ?, ?, ?)
    returning id
    """
)
INSERT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_job (seq, id, queue, lane, priority, place, enqueued_ms, deadline_ms,
        size, task, key_scope, key_name, group_name, parent, policy, headers, body,
        extra, workflow, predicted_ms)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
ENTER_READY: Sql[tuple[()]] = Sql(
    """
    insert into backlane_ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size)
    select queue, lane, 9 - priority, place, seq, priority, 0, 0, 1, 0, null, size
    from backlane_job
    where seq > ?
    and place <= ?
    """
)
ENTER_SCHEDULED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_scheduled (due_ms, seq, queue, lane, priority, attempt, token,
        revision, crashes, parked_ms, size)
    select place, seq, queue, lane, priority, 0, 0, 1, 0, null, size
    from backlane_job
    where seq > ?
    and place > ?
    """
)
SET_DEADLINE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_deadline (deadline_ms, seq)
    values (?, ?)
    """
)


async def append_all(
    tx: SqliteTx, clock: Clock, batches: Sequence[Batch], *, are_ticks: bool = False
) -> list[Answer]:
    """Answer each batch as if the others had come one by one before it."""
    store = await _read(tx, clock.wall_ms(), batches)
    store.are_ticks = are_ticks
    were_fair = {name for name, line in store.lines.items() if line.is_fair}
    answers = [judge(store, jobs, admission) for jobs, admission in batches]
    if were_fair or any(admission.fair or admission.limits for _, admission in batches):
        await enter.declare(tx, store, batches, answers)
    if store.accepted or store.newcomers:
        await _insert(tx, clock, store, were_fair)
    if store.asked:
        await keep_repeats(tx, store.asked)
    return answers


async def _read(tx: SqliteTx, now_ms: int, batches: Sequence[Batch]) -> Store:
    ids, names, groups, asked = [], set(), set(), []
    keyed: list[Job] = []
    is_paced = has_resources = is_special = False
    for jobs, admission in batches:
        is_paced = is_paced or bool(admission.paces)
        for job in jobs:
            ids.append(job.id)
            names.add(job.queue)
            if job.key:
                keyed.append(job)
            if job.group is not None:
                groups.add((job.queue, job.group))
            if job.idempotency:
                asked.append(job.idempotency)
            if job.resource:
                has_resources = True
            if job.uses or job.tags:
                is_special = True
            if job.after:
                is_special = True
                ids += [edge.job for edge in job.after]
    if not ids:
        return Store(set(), {}, {}, {}, 0, -1, now_ms)
    taken = {row[0] for row in await tx.rows(TAKEN, array(ids))}
    holders: dict[Key, bytes] = {}
    unstarted: dict[bytes, tuple[str, int]] = {}
    if keyed:
        holders, unstarted = await keys.read_holders(tx, keyed, now_ms)
        names |= {queue for queue, _ in unstarted.values()}
    repeats = await read_repeats(tx, asked, now_ms) if asked else {}
    found = await tx.rows(LINES, array(list(names)))
    lines = _lines(found)
    newest, forgotten_ms, stored = found[0][-3:] if found else (await tx.rows(NEWEST))[0]
    store = Store(taken, holders, repeats, lines, newest or 0, forgotten_ms, now_ms)
    store.has_resources = has_resources
    store.has_special = is_special
    store.seal = seal.decoded(stored) if stored else None
    store.unstarted = unstarted
    has_shares = await _read_groups(tx, lines, groups, batches) if groups else False
    store.has_followers = len(batches) > 1 and (is_paced or has_shares or bool(keyed))
    return store


async def _read_groups(
    tx: SqliteTx, lines: dict[str, Line], groups: set[tuple[str, str]], batches: Sequence[Batch]
) -> bool:
    """Read how many jobs each group has, where it may have a share only."""
    said = [line.tuned[3] or line.declared.group_share for line in lines.values()]
    for _, admission in batches:
        said += [bounds.group_share for bounds in admission.declared.values()]
    if not any(said):
        return False
    by_id = {line.id: line for line in lines.values()}
    known = [(lines[queue].id, name) for queue, name in groups if queue in lines]
    for queue, name, jobs in await tx.each(group.HELD, known):
        line = by_id[queue]
        line.groups = (line.groups or {}) | {name: jobs}
    return True


async def read_lines(tx: SqliteTx, names: set[str]) -> dict[str, Line]:
    """Return those of the queues that exist, with their depth."""
    return _lines(await tx.rows(LINES, array(list(names))))


def _lines(rows: Sequence[tuple[Any, ...]]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for row in rows:
        line = lines.get(row[1])
        if line is None:
            line = lines[row[1]] = Line(row[0], row[1], row[2], Bounds(*row[3:7]), row[7:11])
            line.is_fair = bool(row[11])
        priority, scheduled, ready, running, blocked, size = row[12:18]
        if priority is not None:
            line.jobs += scheduled + ready + running + blocked
            line.bytes += size
            line.running += running
            line.ready[priority] = ready
    return lines


async def make_line(tx: SqliteTx, name: str, kind: str, declared: Bounds) -> int:
    """Insert a queue and return its number."""
    said = (declared.max_jobs, declared.max_bytes, declared.max_wait_ms, declared.group_share)
    return (await tx.rows(NEW_LINE, name, kind, *said))[0][0]


# -- writing --


async def _insert(tx: SqliteTx, clock: Clock, store: Store, were_fair: set[str]) -> None:
    for line in store.entered.values():
        if not line.id:
            line.id = await make_line(tx, line.name, line.kind, line.declared)
        if line.is_fair is not (line.name in were_fair):
            await enter.set_fair(tx, {line.name: line.is_fair})
        tx.rings.queues.add(line.name)
    resources: Mapping[str, int] = {}
    if store.has_resources:
        named = {job.resource for job, _ in store.accepted if job.resource}
        resources = await resource.number(tx, named)
    moves = Moves(clock)
    new = New(
        are_plain=not store.has_special and not any(it.is_fair for it in store.entered.values())
    )
    _gather(store, resources, moves, new)
    for index, expected_ms in store.predicted:
        new.rows[index] = (*new.rows[index][:-1], expected_ms)
    await tx.each(INSERT, new.rows)
    await _write(tx, store, moves, new)
    await moves.store(tx)


@dataclass(slots=True)
class New:
    """What is to be written of new jobs."""

    are_plain: bool  # all of them, in queues that are not fair: they need no look at each
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    entering: list[tuple[Held, int]] = field(default_factory=list)  # and their delay
    waiting: dict[int, Sequence[Edge]] = field(default_factory=dict)
    tags: list[tuple[str, int]] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)
    keys: list[tuple[Any, ...]] = field(default_factory=list)
    deadlines: list[tuple[int, int]] = field(default_factory=list)
    groups: dict[tuple[int, str], int] = field(default_factory=dict)
    are_delayed: bool = False  # some of them


def _gather(store: Store, resources: Mapping[str, int], moves: Moves, new: New) -> None:
    """Make the rows of new jobs; flat, because this is the path of each of them."""
    now, are_plain, rows, groups = store.now_ms, new.are_plain, new.rows, new.groups
    for seq, (job, line) in enumerate(store.accepted, store.newest + 1):
        lane = 2 * resources[job.resource] + job.lane if job.resource else int(job.lane)
        row = _row(seq, job, line.id, lane, now)
        rows.append(row)
        counts = moves.at(line.id, job.priority)
        counts.appended += 1
        counts.bytes += row[8]
        if not are_plain:
            is_plain = row[EXTRA] is None and not line.is_fair
            it = enter.held(seq, job, line.id, lane, now, is_plain=is_plain)
            new.entering.append((it, job.delay_ms))
            if job.after:
                new.waiting[seq] = job.after
            new.tags += [(tag, seq) for tag in set(job.tags)]
        elif job.delay_ms > 0:
            new.are_delayed = True
            counts.scheduled += 1
        else:
            counts.ready += 1
        if row[EXTRA] is not None and job.policy.keep_ms is not None:
            new.kept.append((seq, job.policy.keep_ms))
        if job.key:
            new.keys.append(keys.taking(job.key, job.rule, seq, job.id, now))
        if job.expires_ms is not None:
            new.deadlines.append((now + job.expires_ms, seq))
        if job.group is not None:
            groups[line.id, job.group] = groups.get((line.id, job.group), 0) + 1


async def _write(tx: SqliteTx, store: Store, moves: Moves, new: New) -> None:
    """Put new jobs where they wait, and what belongs to them where it is looked for."""
    now = store.now_ms
    if new.are_plain:
        await tx.rows(ENTER_READY, store.newest, now)
    if new.are_delayed:
        await tx.rows(ENTER_SCHEDULED, store.newest, now)
    tied = edges.NOTHING
    if new.waiting:
        ids = {job.id: seq for seq, (job, _) in enumerate(store.accepted, store.newest + 1)}
        tied = await edges.tie(tx, new.waiting, ids)
    enter.enter(moves, new.entering, tied)
    for statement, rows in (
        (keeping.KEEP, new.kept),
        (tags.TAG, new.tags),
        (keys.TAKE, new.keys),
        (SET_DEADLINE, new.deadlines),
    ):
        if rows:
            await tx.each(statement, rows)
    if new.groups:
        await group.join(tx, new.groups)
    if tied.vain:
        await moves.store_rows(tx)
        await edges.carry_on(tx, now, moves, {}, tied.vain)
        await ends.follow(tx, now, moves)
    if store.newcomers:
        await moves.store_rows(tx)
        await keys.replace_all(tx, store.newcomers, now, moves)


EXTRA = 17  # where it is in a row


def _row(seq: int, job: Job, queue: int, lane: int, now: int) -> tuple[Any, ...]:
    key = job.key
    return (
        seq,
        job.id,
        queue,
        lane,
        job.priority,
        now + max(0, job.delay_ms),
        now,
        None if job.expires_ms is None else now + job.expires_ms,
        len(job.body) + len(job.headers or b""),
        job.task,
        key.scope if key else None,
        key.name if key else None,
        job.group,
        job.parent,
        None if job.policy is DEFAULT_POLICY else encode_policy(job.policy),
        job.headers,
        job.body,
        None if _is_plain(job) else encode_extra(job),
        job.workflow,
        None,
    )


def _is_plain(job: Job) -> bool:
    """Whether a job has nothing that only few have, as most are: told at a glance."""
    has_none = not (job.uses or job.after or job.tags)
    return has_none and job.rule is DEFAULT_RULE and job.policy is DEFAULT_POLICY
