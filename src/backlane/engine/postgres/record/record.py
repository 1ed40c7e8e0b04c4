"""Records: all that is known of a job, read from wherever its rows are.

A job's state is the table it is in. `job` says where it waits, if it waits; only its rank
in `ready` is unknown, because ageing moves it there alone, and is found by ten probes of
the key. Every `offset 0` is a fence: each look-up is one step into a key for each job
asked for, whatever the planner thinks of the length of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, LiteralString, NamedTuple

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.postgres.record.extra import unpacked
from backlane.engine.postgres.store.text import loaded, loaded_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import (
    DEFAULT_POLICY,
    AttemptError,
    JobRecord,
    Key,
    Lane,
    Policy,
    Progress,
    State,
)
from backlane.model.outcome import ErrorRecord, Reason

SUCCEEDED, FAILED, CANCELLED, EXPIRED, RUNNING, SCHEDULED, READY, BLOCKED = range(1, 9)
STATES = {
    SUCCEEDED: State.SUCCEEDED,
    FAILED: State.FAILED,
    CANCELLED: State.CANCELLED,
    EXPIRED: State.EXPIRED,
    RUNNING: State.RUNNING,
    SCHEDULED: State.SCHEDULED,
    READY: State.READY,
    BLOCKED: State.BLOCKED,
}
WAITING = (SCHEDULED, READY, BLOCKED)  # and not running
CODES = {state: code for code, state in STATES.items()}

_COLUMNS: LiteralString = """
    select job.seq, job.id, job.queue, queue.name, queue.kind,
        case
            when ended.seq is not null then ended.state::int
            when lease.seq is not null then 5
            when scheduled.seq is not null then 6
            when ready.seq is not null then 7
            when blocked.seq is not null then 8
        end,
        ready.rank, job.priority, job.lane, job.place,
        coalesce(ended.attempt, lease.attempt, scheduled.attempt, ready.attempt,
            blocked.attempt),
        coalesce(ended.token, lease.token, scheduled.token, ready.token,
            blocked.token),
        coalesce(ended.revision, lease.revision, scheduled.revision, ready.revision,
            blocked.revision),
        coalesce(lease.crashes, scheduled.crashes, ready.crashes, blocked.crashes, 0),
        coalesce(lease.parked_ms, scheduled.parked_ms, ready.parked_ms,
            blocked.parked_ms),
        job.size,
        coalesce(ended.started_ms, lease.started_ms, job.started_ms),
        coalesce(ended.owner, lease.owner, job.owner),
        ended.reason, ended.ended_ms, coalesce(lease.cancelling, false), job.enqueued_ms,
        job.deadline_ms, job.task, job.key_scope, job.key_name, job.group_name, job.parent,
        job.policy, progress.token, progress.fraction, progress.message, resource.name,
        ended.ran_ms, job.keep_ms, job.due_ms, job.workflow, job.extra, blocked.waits_for,
        blocked.gate,
        blocked.limit_no,
        (select name from backlane.limits where id = abs(blocked.limit_no))
    """
_CONTENT: LiteralString = """,
        job.body, job.headers, ended.result,
        (
            select jsonb_agg(
                jsonb_build_array(attempt, at_ms, error.kind, message, traceback, fingerprint)
                order by error.token
            )
            from backlane.attempt_error as error
            where error.seq = job.seq
        )
    """
_BY_SEQ: LiteralString = """
    from unnest($1::bigint[]) as given (seq)
    cross join lateral (
        select *
        from backlane.job
        where job.seq = given.seq
        offset 0
    ) as job
    """
# Served by job_id.
_BY_ID: LiteralString = """
    from (select distinct unnest($1::bytea[]) as id) as given
    cross join lateral (
        select *
        from backlane.job
        where job.id = given.id
        offset 0
    ) as job
    """
_JOINS: LiteralString = """
    join backlane.queue on queue.id = job.queue
    left join lateral (
        select *
        from backlane.ended
        where ended.seq = job.seq
        limit 1
    ) as ended on true
    left join lateral (
        select *
        from backlane.lease
        where lease.id = job.id
        limit 1
    ) as lease on true
    left join lateral (
        select *
        from backlane.scheduled
        where scheduled.due_ms = job.place
        and scheduled.seq = job.seq
        limit 1
    ) as scheduled on true
    left join lateral (
        select *
        from backlane.ready
        where ready.queue = job.queue
        and ready.lane = job.lane
        and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        and ready.place = job.place
        and ready.seq = job.seq
        limit 1
    ) as ready on ended.seq is null and lease.seq is null and scheduled.seq is null
    left join lateral (
        select *
        from backlane.blocked
        where blocked.seq = job.seq
        limit 1
    ) as blocked on ended.seq is null and lease.seq is null and scheduled.seq is null
    and ready.seq is null
    left join lateral (
        select token, fraction, message
        from backlane.progress
        where progress.seq = job.seq
        limit 1
    ) as progress on true
    left join backlane.resource on resource.id = job.lane / 2
    order by job.seq desc
    """
_SEQ: LiteralString = "select job.seq"
_NEWEST_FIRST: LiteralString = "order by job.seq desc"

STANDING: Sql[tuple[Any, ...]] = Sql(_COLUMNS + _BY_SEQ + _JOINS)
STANDING_OF_IDS: Sql[tuple[Any, ...]] = Sql(_COLUMNS + _BY_ID + _JOINS)
WHOLE: Sql[tuple[Any, ...]] = Sql(_COLUMNS + _CONTENT + _BY_SEQ + _JOINS)
WHOLE_OF_IDS: Sql[tuple[Any, ...]] = Sql(_COLUMNS + _CONTENT + _BY_ID + _JOINS)
SEQS: Sql[tuple[int]] = Sql(_SEQ + _BY_ID + _NEWEST_FIRST)


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
    cancelling: bool
    enqueued_ms: int
    deadline_ms: int | None
    task: str | None
    key_scope: str | None
    key_name: str | None  # as it is stored
    group: str | None  # as it is stored
    parent: bytes | None
    policy: bytes | None
    progress_token: int | None
    fraction: float | None
    message: str | None
    resource: str | None
    ran_ms: int | None
    keep_ms: int | None  # its policy's
    due_ms: int | None  # where its place is not when it is due
    workflow: bytes | None
    extra: bytes | None
    waits_for: int | None
    gate: int | None  # that it waits for; blocked jobs only
    limit_no: int | None
    blocked_on: str | None

    @property
    def state(self) -> State:
        return STATES[self.code or 0]


async def standings(tx: PostgresTx, seqs: Sequence[int]) -> list[Standing]:
    """Return where these jobs stand, newest first; damaged ones are left out."""
    rows = await tx.rows(STANDING, seqs) if seqs else []
    return [one for one in map(Standing._make, rows) if one.code]


async def seqs_of(tx: PostgresTx, ids: Sequence[bytes]) -> list[int]:
    """Return the places in the order of append of those of these jobs that exist."""
    return [seq for (seq,) in await tx.rows(SEQS, ids)] if ids else []


async def records_of(tx: PostgresTx, ids: Sequence[bytes]) -> list[JobRecord]:
    """Return the records of these jobs, newest first, without what is large."""
    rows = await tx.rows(STANDING_OF_IDS, ids) if ids else []
    return [job_record(one) for one in map(Standing._make, rows) if one.code]


async def whole_records_of(tx: PostgresTx, ids: Sequence[bytes]) -> list[JobRecord]:
    """Return the records of these jobs, newest first, with all that is kept of them."""
    return [record for _, record in _whole(await tx.rows(WHOLE_OF_IDS, ids) if ids else [])]


async def wholes(tx: PostgresTx, seqs: Sequence[int]) -> list[tuple[Standing, JobRecord]]:
    """Return where these jobs stand, newest first, with all that is kept of them."""
    return _whole(await tx.rows(WHOLE, seqs) if seqs else [])


def _whole(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Standing, JobRecord]]:
    found = []
    for *row, body, headers, result, errors in rows:
        one = Standing._make(row)
        if not one.code:
            continue
        kept = tuple(
            AttemptError(attempt, at_ms, ErrorRecord(*map(loaded, text)))
            for attempt, at_ms, *text in errors or ()
        )
        record = msgspec.structs.replace(
            job_record(one), body=body, headers=headers, result=result, errors=kept
        )
        found.append((one, record))
    return found


def job_record(one: Standing) -> JobRecord:
    """Return what people and programs are told of a job."""
    has_progress = one.progress_token is not None and one.progress_token == one.token
    key_name = loaded_or_none(one.key_name)
    extra = unpacked(one.extra)
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
        lane=Lane(one.lane & 1),
        due_ms=_due_ms(one) if one.code in WAITING else None,
        started_ms=one.started_ms,
        ended_ms=one.ended_ms,
        deadline_ms=one.deadline_ms,
        owner=one.owner,
        cancelling=one.cancelling,
        progress=Progress(one.fraction, loaded_or_none(one.message)) if has_progress else None,
        key=Key(one.key_scope or "", key_name) if key_name is not None else None,
        group=loaded_or_none(one.group),
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
        blocked_on=loaded_or_none(one.blocked_on),
    )


def _due_ms(one: Standing) -> int:
    return one.place if one.due_ms is None or one.code == SCHEDULED else one.due_ms


@lru_cache(maxsize=1024)
def _policy(stored: bytes | None) -> Policy:
    """A damaged policy reads as the default: a person must be able to see the job."""
    try:
        return DEFAULT_POLICY if stored is None else msgspec.json.decode(stored, type=Policy)
    except msgspec.MsgspecError:
        return DEFAULT_POLICY
