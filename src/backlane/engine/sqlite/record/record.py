"""Records: all that is known of a job, read from wherever its rows are.

A job's state is the table it is in. `backlane_job` says where it waits, if it waits;
only its rank in `backlane_ready` is unknown, because ageing moves it there alone, and
is found by ten probes of the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits.resource import kind_of, resource_of
from backlane.engine.sqlite.record.moves import FINAL_STATES
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.policy import decode_policy
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.job import DEFAULT_POLICY, AttemptError, JobRecord, Key, Progress, State
from backlane.model.outcome import ErrorRecord, Reason

RUNNING, SCHEDULED, READY, BLOCKED = 5, 6, 7, 8
STATES = {
    **FINAL_STATES,
    RUNNING: State.RUNNING,
    SCHEDULED: State.SCHEDULED,
    READY: State.READY,
    BLOCKED: State.BLOCKED,
}
CODES = {state: code for code, state in STATES.items()}

# Served by backlane_job_id.
SEQS: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_job
    where id in (select value from carray(?))
    order by seq desc
    """
)
# Every join is one lookup in a primary key; that of ready is ten. A job that has ended is
# looked up nowhere else (nothing equals a null), and most of what is read has.
STANDING: Sql[tuple[Any, ...]] = Sql(
    """
    select job.seq, job.id, job.queue, queue.name, queue.kind,
        case
            when finished.seq is not null then finished.state
            when lease.seq is not null then 5
            when scheduled.seq is not null then 6
            when ready.seq is not null then 7
            when blocked.seq is not null then 8
        end,
        ready.rank, job.priority, job.lane, job.place,
        coalesce(finished.attempt, lease.attempt, scheduled.attempt, ready.attempt,
            blocked.attempt),
        coalesce(finished.token, lease.token, scheduled.token, ready.token,
            blocked.token),
        coalesce(finished.revision, lease.revision, scheduled.revision, ready.revision,
            blocked.revision),
        coalesce(lease.crashes, scheduled.crashes, ready.crashes, blocked.crashes, 0),
        coalesce(lease.parked_ms, scheduled.parked_ms, ready.parked_ms,
            blocked.parked_ms),
        job.size,
        coalesce(finished.started_ms, lease.started_ms, job.started_ms),
        coalesce(finished.owner, lease.owner, job.owner),
        finished.reason, finished.ended_ms, coalesce(lease.cancelling, 0), enqueued_ms,
        deadline_ms, task, key_scope, key_name, group_name, parent, policy,
        progress.token, progress.fraction, progress.message, resource.name,
        finished.ran_ms, extra, workflow, job.due_ms, waits_for, gate.id,
        gate.name, coalesce(gate.turn, 0), blocked.rank
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    left join backlane_queue as queue on queue.id = job.queue
    left join backlane_finished as finished on finished.seq = job.seq
    left join backlane_lease as lease on lease.id = iif(finished.seq is null, job.id, null)
    left join backlane_scheduled as scheduled
    on scheduled.due_ms = iif(finished.seq is null, job.place, null)
    and scheduled.seq = job.seq
    left join backlane_ready as ready
    on ready.queue = iif(finished.seq is null, job.queue, null)
    and ready.lane = job.lane
    and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    and ready.place = job.place
    and ready.seq = job.seq
    left join backlane_blocked as blocked on blocked.seq = iif(finished.seq is null, job.seq, null)
    left join backlane_gate as gate on gate.id = blocked.gate
    left join backlane_progress as progress on progress.seq = job.seq
    left join backlane_resource as resource on resource.id = job.lane / 2
    """
)
CONTENT: Sql[tuple[int, bytes, bytes | None, bytes | None]] = Sql(
    """
    select job.seq, body, headers, result
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    left join backlane_finished as finished on finished.seq = job.seq
    """
)
# Served by backlane_attempt_error_of.
ERRORS: Sql[tuple[int, int, int, str, str, str, str]] = Sql(
    """
    select error.seq, attempt, at_ms, kind, message, traceback, fingerprint
    from carray(?) as given
    cross join backlane_attempt_error as error on error.seq = given.value
    order by error.seq, error.rowid
    """
)


class Standing(NamedTuple):
    """Where a job stands, in the order of `STANDING`."""

    seq: int
    id: bytes
    queue: int
    queue_name: str
    kind: str
    code: int | None  # of its state; None: its rows are damaged
    rank: int | None
    priority: int
    lane: int
    place: int
    attempt: int
    token: int
    revision: int
    crashes: int
    parked_ms: int | None
    size: int
    started_ms: int | None
    owner: str | None
    reason: str | None
    ended_ms: int | None
    cancelling: int
    enqueued_ms: int
    deadline_ms: int | None
    task: str | None
    key_scope: str | None
    key_name: str | None
    group: str | None
    parent: bytes | None
    policy: bytes | None
    progress_token: int | None
    fraction: float | None
    message: str | None
    resource: str | None
    ran_ms: int | None
    extra: bytes | None
    workflow: bytes | None
    due_ms: int | None  # where its place is a virtual time
    waits_for: int | None
    gate: int | None
    blocked_on: str | None
    is_turn: int  # what it is blocked on
    blocked_rank: int | None

    @property
    def state(self) -> State:
        return STATES[self.code or 0]

    def held(self) -> Held:
        """The same as a row that is taken from where it is, one revision later."""
        return Held(
            id=self.id,
            token=self.token,
            seq=self.seq,
            queue=self.queue,
            priority=self.priority,
            attempt=self.attempt,
            revision=self.revision + 1,
            size=self.size,
            started_ms=self.started_ms,
            owner=self.owner,
            is_plain=0,
            cancelling=self.cancelling,
            lane=self.lane,
            place=self.place,
            crashes=self.crashes,
            parked_ms=self.parked_ms,
        )


async def standings(tx: SqliteTx, seqs: Sequence[int]) -> list[Standing]:
    """Return where these jobs stand, newest first; damaged ones are left out."""
    if not seqs:
        return []
    try:
        rows = await tx.rows(STANDING, integers(seqs))
    except UnicodeDecodeError:
        rows = await _readable(tx, seqs)
    found = [Standing._make(row) for row in rows]
    return sorted((one for one in found if one.code), key=lambda one: one.seq, reverse=True)


async def _readable(tx: SqliteTx, seqs: Sequence[int]) -> list[tuple[Any, ...]]:
    """Read jobs one by one, without those whose text is damaged."""
    rows = []
    for seq in seqs:
        try:
            rows += await tx.rows(STANDING, integers([seq]))
        except UnicodeDecodeError:
            continue  # its claim buries it, as undecodable
    return rows


async def records_of(tx: SqliteTx, ids: Sequence[bytes]) -> list[JobRecord]:
    """Return the records of these jobs, without what is large."""
    if not ids:
        return []
    seqs = [seq for (seq,) in await tx.rows(SEQS, array(ids))]
    return [job_record(one) for one in await standings(tx, seqs)]


async def whole_records(tx: SqliteTx, seqs: Sequence[int]) -> list[JobRecord]:
    """Return the records of these jobs with body, headers, result and errors."""
    if not seqs:
        return []
    content = {row[0]: row[1:] for row in await tx.rows(CONTENT, integers(seqs))}
    errors: dict[int, list[AttemptError]] = {}
    for seq, attempt, at_ms, *text in await tx.rows(ERRORS, integers(seqs)):
        errors.setdefault(seq, []).append(AttemptError(attempt, at_ms, ErrorRecord(*text)))
    return [
        msgspec.structs.replace(
            job_record(one),
            body=content[one.seq][0],
            headers=content[one.seq][1],
            result=content[one.seq][2],
            errors=tuple(errors.get(one.seq, ())),
        )
        for one in await standings(tx, seqs)
    ]


def job_record(one: Standing) -> JobRecord:
    """Return what people and programs are told of a job."""
    has_progress = one.progress_token is not None and one.progress_token == one.token
    if one.resource is None and resource_of(one.lane):
        raise ValueError(f"lane {one.lane} is that of a resource which does not exist")
    extra = decode_extra(one.extra)
    return JobRecord(
        id=one.id,
        queue=one.queue_name,
        task=one.task,
        state=one.state,
        revision=one.revision,
        priority=one.priority,
        attempt=one.attempt,
        token=one.token,
        enqueued_ms=one.enqueued_ms,
        reason=Reason(one.reason) if one.reason else None,
        lane=kind_of(one.lane),
        due_ms=_due(one),
        started_ms=one.started_ms,
        ended_ms=one.ended_ms,
        deadline_ms=one.deadline_ms,
        owner=one.owner,
        cancelling=bool(one.cancelling),
        progress=Progress(one.fraction, one.message) if has_progress else None,
        key=Key(one.key_scope or "", one.key_name) if one.key_name is not None else None,
        group=one.group,
        parent=one.parent,
        policy=_policy(one.policy),
        size=one.size,
        resource=one.resource,
        ran_ms=one.ran_ms,
        rule=extra.rule,
        uses=extra.uses,
        after=extra.after,
        workflow=one.workflow,
        tags=extra.tags,
        waits_for=one.waits_for or 0,
        blocked_on=one.blocked_on,
    )


def _due(one: Standing) -> int | None:
    if one.code not in (SCHEDULED, READY, BLOCKED):
        return None
    return one.place if one.due_ms is None else one.due_ms


def _policy(stored: bytes | None) -> Any:
    """A damaged policy reads as the default: a person must be able to see the job."""
    try:
        return decode_policy(stored)
    except msgspec.MsgspecError:
        return DEFAULT_POLICY
