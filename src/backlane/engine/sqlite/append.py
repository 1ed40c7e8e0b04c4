"""Append: all jobs of a batch or none, and many batches as if one after the other.

Callers that wait for the same commit are merged: the statements are those of one
append, whatever the number of batches, because beside a busy thread each call into
SQLite can cost a switch of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.protocol import Admission
from backlane.engine.sqlite.moves import Moves
from backlane.engine.sqlite.transaction import SqliteTx, array
from backlane.model.clock import Clock
from backlane.model.ids import id_ms
from backlane.model.job import DEFAULT_POLICY, Job, Key, Policy, Receipt, Refusal
from backlane.model.queue import DEFAULT_BOUNDS, Bounds, headroom

Batch = tuple[Sequence[Job], Admission]
Answer = list[Receipt] | Refusal

# Served by backlane_job_id.
TAKEN: Sql[tuple[bytes]] = Sql(
    """
    select id
    from backlane_job
    where id in (select value from carray(?))
    """
)
HOLDER: Sql[tuple[str, str, bytes]] = Sql(
    """
    select scope, name, id
    from backlane_unique_key
    where scope = ?
    and name = ?
    """
)
LINES: Sql[tuple[int, str, str, int, int, int | None, int | None, int, int]] = Sql(
    """
    select queue.id, name, kind, declared_jobs, declared_bytes, tuned_jobs, tuned_bytes,
        coalesce(sum(scheduled + ready + running), 0), coalesce(sum(bytes), 0)
    from backlane_queue as queue
    left join backlane_counter as counter on counter.queue = queue.id
    where name in (select value from carray(?))
    group by queue.id
    """
)
NEWEST: Sql[tuple[int, int]] = Sql(
    """
    select coalesce((select max(seq) from backlane_job), 0),
        (select value from backlane_meta where name = 'forgotten_ms')
    """
)
NEW_LINE: Sql[tuple[int]] = Sql(
    """
    insert into backlane_queue (name, kind, declared_jobs, declared_bytes)
    values (?, ?, ?, ?)
    returning id
    """
)
INSERT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_job (seq, id, queue, lane, priority, place, enqueued_ms, deadline_ms,
        size, task, key_scope, key_name, group_name, parent, policy, headers, body)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
TAKE_KEY: Sql[tuple[()]] = Sql(
    """
    insert into backlane_unique_key (scope, name, seq, id)
    values (?, ?, ?, ?)
    """
)
SET_DEADLINE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_deadline (deadline_ms, seq)
    values (?, ?)
    """
)


@dataclass(slots=True)
class Line:
    """A queue as an append sees it."""

    id: int  # 0: not made yet
    name: str
    kind: str
    declared: Bounds
    tuned_jobs: int | None = None
    tuned_bytes: int | None = None
    jobs: int = 0
    bytes: int = 0

    def bounds(self, declared: Bounds | None) -> Bounds:
        """What is in force: tuned, else declared by the caller, else by a worker."""
        declared = declared or self.declared
        return Bounds(self.tuned_jobs or declared.max_jobs, self.tuned_bytes or declared.max_bytes)


@dataclass(slots=True)
class Store:
    """What the store holds that an append is judged by; grows with each batch accepted."""

    ids: set[bytes]
    keys: dict[Key, bytes]
    lines: dict[str, Line]
    newest: int
    forgotten_ms: int
    accepted: list[tuple[Job, Line]] = field(default_factory=list)


async def append_all(tx: SqliteTx, clock: Clock, batches: Sequence[Batch]) -> list[Answer]:
    """Answer each batch as if the others had come one by one before it."""
    store = await _read(tx, [job for jobs, _ in batches for job in jobs])
    answers = [_judge(store, jobs, admission) for jobs, admission in batches]
    if store.accepted:
        await _insert(tx, clock, store)
    return answers


async def _read(tx: SqliteTx, jobs: Sequence[Job]) -> Store:
    if not jobs:
        return Store(set(), {}, {}, 0, -1)
    ids = {row[0] for row in await tx.rows(TAKEN, array([job.id for job in jobs]))}
    keys = {}
    if named := [(job.key.scope, job.key.name) for job in jobs if job.key]:
        keys = {Key(scope, name): job for scope, name, job in await tx.each(HOLDER, named)}
    lines = await read_lines(tx, {job.queue for job in jobs})
    newest, forgotten_ms = (await tx.rows(NEWEST))[0]
    return Store(ids, keys, lines, newest, forgotten_ms)


async def read_lines(tx: SqliteTx, names: set[str]) -> dict[str, Line]:
    """Return those of the queues that exist, with their depth."""
    rows = await tx.rows(LINES, array(list(names)))
    return {
        name: Line(number, name, kind, Bounds(jobs, size), tuned_jobs, tuned_bytes, depth, held)
        for number, name, kind, jobs, size, tuned_jobs, tuned_bytes, depth, held in rows
    }


async def make_line(tx: SqliteTx, name: str, kind: str, declared: Bounds) -> int:
    """Insert a queue and return its number."""
    row = (name, kind, declared.max_jobs, declared.max_bytes)
    return (await tx.rows(NEW_LINE, *row))[0][0]


# -- judging: nothing is written yet --


def _judge(store: Store, jobs: Sequence[Job], admission: Admission) -> Answer:
    receipts, new = [], []
    ids: set[bytes] = set()
    keys: dict[Key, bytes] = {}
    for job in jobs:
        first = None
        if job.id in store.ids or job.id in ids:
            first = job.id
        elif job.key:
            first = store.keys.get(job.key) or keys.get(job.key)
        receipts.append(Receipt(job.id, first))
        if first is None:
            new.append(job)
            ids.add(job.id)
            if job.key:
                keys[job.key] = job.id
    lines = _lines(store, new, admission)
    refusal = _at_fault(store, new, lines, admission) or _over_bound(new, lines, admission)
    if refusal:
        return refusal
    store.ids |= ids
    store.keys |= keys
    store.lines |= lines
    for job in new:
        line = lines[job.queue]
        line.jobs += 1
        line.bytes += job.size
        store.accepted.append((job, line))
    return receipts


def _lines(store: Store, new: Sequence[Job], admission: Admission) -> dict[str, Line]:
    """The queues of these jobs, those that do not exist yet as they would be made."""
    lines = {}
    for name in {job.queue for job in new}:
        declared = admission.declared.get(name) or DEFAULT_BOUNDS
        lines[name] = store.lines.get(name) or Line(0, name, admission.kind.value, declared)
    return lines


def _at_fault(
    store: Store, new: Sequence[Job], lines: dict[str, Line], admission: Admission
) -> Refusal | None:
    """Refuse what no waiting would mend: the wrong kind of queue, an id from before history."""
    # The oldest id speaks for all: looking at each took a tenth of a whole bulk.
    is_ours = all(line.kind == admission.kind for line in lines.values())
    if is_ours and (not new or id_ms(min(job.id for job in new)) > store.forgotten_ms):
        return None
    for job in new:
        line = lines[job.queue]
        limit = None
        if line.kind != admission.kind:
            limit = "kind"
        elif id_ms(job.id) <= store.forgotten_ms:
            limit = "stale"
        if limit:
            return Refusal(job.queue, limit, line.jobs, bound=0, can_fit=False, job=job.id)
    return None


def _over_bound(new: Sequence[Job], lines: dict[str, Line], admission: Admission) -> Refusal | None:
    for name in dict.fromkeys(job.queue for job in new):
        mine = [job for job in new if job.queue == name]
        line = lines[name]
        bounds = line.bounds(admission.declared.get(name))
        most = bounds.max_jobs
        if all(job.parent for job in mine):  # work born inside a job
            most += headroom(bounds.max_jobs)
        size = sum(job.size for job in mine)
        if line.jobs + len(mine) > most:
            return Refusal(name, "jobs", line.jobs, most, len(mine), len(mine) <= most)
        if line.bytes + size > bounds.max_bytes:
            return Refusal(
                name, "bytes", line.bytes, bounds.max_bytes, size, size <= bounds.max_bytes
            )
    return None


# -- writing --


async def _insert(tx: SqliteTx, clock: Clock, store: Store) -> None:
    now = clock.wall_ms()
    for line in {id(line): line for _, line in store.accepted}.values():
        if not line.id:
            line.id = await make_line(tx, line.name, line.kind, line.declared)
        tx.rings.queues.add(line.name)
    moves = Moves()
    rows, keys, deadlines = [], [], []
    is_delayed = False
    for seq, (job, line) in enumerate(store.accepted, store.newest + 1):
        rows.append(_row(seq, job, line.id, now))
        counts = moves.at(line.id, job.priority)
        counts.appended += 1
        counts.bytes += job.size
        if job.delay_ms > 0:
            is_delayed = True
            counts.scheduled += 1
        else:
            counts.ready += 1
        if job.key:
            keys.append((job.key.scope, job.key.name, seq, job.id))
        if job.expires_ms is not None:
            deadlines.append((now + job.expires_ms, seq))
    await tx.each(INSERT, rows)
    await tx.rows(ENTER_READY, store.newest, now)
    if is_delayed:
        await tx.rows(ENTER_SCHEDULED, store.newest, now)
    if keys:
        await tx.each(TAKE_KEY, keys)
    if deadlines:
        await tx.each(SET_DEADLINE, deadlines)
    await moves.store(tx)


def _row(seq: int, job: Job, queue: int, now: int) -> tuple[Any, ...]:
    key = job.key
    return (
        seq,
        job.id,
        queue,
        int(job.lane),
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
        encode_policy(job.policy),
        job.headers,
        job.body,
    )


@lru_cache(maxsize=1024)
def encode_policy(policy: Policy) -> bytes | None:
    """Return a policy as it is stored: nothing for the default, which most jobs have."""
    return None if policy == DEFAULT_POLICY else msgspec.json.encode(policy)


@lru_cache(maxsize=1024)
def decode_policy(stored: bytes | None) -> Policy:
    """Return a policy from its stored form.

    Raises:
        msgspec.DecodeError: the bytes are damaged.
    """
    return DEFAULT_POLICY if stored is None else msgspec.json.decode(stored, type=Policy)
