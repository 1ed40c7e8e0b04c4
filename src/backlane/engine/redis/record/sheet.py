"""Rows and sheets: what is kept of a job, as Python reads it. The layout is in `lua/model.lua`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from backlane.model.job import (
    DEFAULT_POLICY,
    DEFAULT_RULE,
    AttemptError,
    Edge,
    Job,
    JobRecord,
    Key,
    KeyRule,
    Lane,
    Policy,
    Progress,
    State,
    When,
)
from backlane.model.limit import Use
from backlane.model.outcome import ErrorRecord, Reason

encode = msgspec.msgpack.Encoder().encode

# By the number that a row has for it.
STATES = (
    None,
    State.SCHEDULED,
    State.READY,
    State.BLOCKED,
    State.RUNNING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
    State.EXPIRED,
)
NUMBERS = {state: number for number, state in enumerate(STATES) if state is not None}


class Sheet(msgspec.Struct, frozen=True, array_like=True):
    """What never changes of a job, opaque to scripts but for its edges."""

    task: str | None
    body: bytes
    headers: bytes | None = None
    policy: Policy | None = None  # None: as usual
    key: Key | None = None
    group: str | None = None
    parent: bytes | None = None
    resource: str | None = None
    rule: KeyRule | None = None  # None: as usual
    uses: tuple[Use, ...] = ()
    workflow: bytes | None = None
    tags: tuple[str, ...] = ()
    after: bytes = b""  # `packed_edges`, at the very end: scripts know how many there are


UNTIL = {"started": "s", "succeeded": "k"}  # of a key's rule; a window has when it ends instead


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What the rows of few jobs have."""

    uses: tuple[str, ...] | bool = False
    on: int = 0  # which of them it is blocked on, from 1
    turns: tuple[int, ...] | bool = False  # which of them it holds
    after: int = 0
    open: int = 0
    generation: int = 0
    virtual: int | bool = False
    rule: str | int | bool = False
    retained: int | bool = False

    @property
    def blocked_on(self) -> str | None:
        """The limit that it waits for."""
        if isinstance(self.uses, bool) or not self.on:
            return None
        return read_use(self.uses[self.on - 1]).limit

    @property
    def turns_held(self) -> tuple[Use, ...]:
        """The turns that it holds until it ends."""
        if isinstance(self.uses, bool) or isinstance(self.turns, bool):
            return ()
        return tuple(read_use(self.uses[at - 1]) for at in self.turns)


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What changes of a job, and what scripts decide by. False stands for None."""

    state: int
    seq: int
    queue: int
    lane: int
    priority: int
    rank: int
    place: int
    enqueued: int
    size: int
    attempts: int
    revision: int
    attempt: int
    token: int
    crashes: int
    deadline: int | bool
    parked: int | bool
    group: str | bool
    key: str | bool
    resource: int | bool
    predicted: int | bool
    owner: str | bool = False
    lease_end: int = 0
    started: int | bool = False
    cancelling: bool = False
    ended: int | bool = False
    ran: int = 0
    reason: str | bool = False
    extra: Extra | None = None


class KeptError(msgspec.Struct, frozen=True, array_like=True):
    """The error of one attempt, as scripts keep it."""

    attempt: int
    at_ms: int
    error: ErrorRecord


read_sheet = msgspec.msgpack.Decoder(Sheet).decode
read_row = msgspec.msgpack.Decoder(Row).decode
read_errors = msgspec.msgpack.Decoder(tuple[KeptError, ...]).decode
read_progress = msgspec.msgpack.Decoder(Progress).decode


def raw(data: bytes) -> Raw:
    """Return bytes as the scripts' cmsgpack can read them: as a `str`, for it knows no `bin`."""
    size = len(data)
    if size < 32:
        return Raw(bytes((0xA0 | size,)) + data)
    if size < 256:
        return Raw(b"\xd9" + size.to_bytes(1) + data)
    if size < 65_536:
        return Raw(b"\xda" + size.to_bytes(2) + data)
    return Raw(b"\xdb" + size.to_bytes(4) + data)


def sheet_of(job: Job) -> bytes:
    """Return what never changes of a job; what is as usual at its end is left out."""
    policy = None if job.policy == DEFAULT_POLICY else job.policy
    rule = None if job.rule == DEFAULT_RULE else job.rule
    if rule or job.uses or job.after or job.workflow or job.tags:
        names = job.key, job.group, job.parent, job.resource
        found = job.uses, job.workflow, job.tags, packed_edges(job.after)
        return encode((job.task, job.body, job.headers, policy, *names, rule, *found))
    if job.key is None and job.group is None and job.parent is None and job.resource is None:
        if policy is None and job.headers is None:
            return encode((job.task, job.body))
        return encode((job.task, job.body, job.headers, policy))
    sheet = (job.task, job.body, job.headers, policy, job.key, job.group, job.parent, job.resource)
    return encode(sheet)


_WHENS = {When.ENDED: b"\0", When.SUCCEEDED: b"\1", When.FAILED: b"\2"}
_OF_BYTE = {byte[0]: when for when, byte in _WHENS.items()}
EDGE_BYTES = 17  # an id, and how its job must end


def packed_edges(edges: Iterable[Edge]) -> bytes:
    """Return edges one behind the other, as scripts read them too."""
    return b"".join(edge.job + _WHENS[edge.when] for edge in edges)


def read_edges(packed: bytes) -> tuple[Edge, ...]:
    """Return the edges that `packed_edges` packed."""
    return tuple(
        Edge(packed[at : at + 16], _OF_BYTE[packed[at + 16]])
        for at in range(0, len(packed), EDGE_BYTES)
    )


def tag_name(tag: str) -> bytes:
    """Return what a job with a tag is found by."""
    return b"t" + tag.encode()


def workflow_name(workflow: bytes) -> bytes:
    """Return what a part of a workflow is found by."""
    return b"w" + workflow


def marks_of(job: Job) -> list[Any] | None:
    """Return what a job is found by, how long it is kept, and whose newest it may be.

    None: by nothing, as others, and nobody's.
    """
    policy = job.policy
    names = [raw(tag_name(tag)) for tag in job.tags]
    names += [] if job.workflow is None else [raw(workflow_name(job.workflow))]
    task = job.task if policy.keeps_latest else None
    if not names and policy.keep_ms is None and task is None:
        return None
    keep_ms = False if policy.keep_ms is None else policy.keep_ms
    return [names or False, keep_ms, task or False]


def packed_use(use: Use) -> str:
    """Return a use as `lua/gates.lua` names its gate."""
    return f"{'t' if use.turn else 'l'}{use.limit}\0{use.part}"


def packed_uses(uses: Iterable[Use]) -> list[str]:
    """Return each use once, turns before limits: the order in which they are looked at."""
    return [packed_use(use) for use in sorted(dict.fromkeys(uses), key=lambda use: not use.turn)]


def read_use(packed: str) -> Use:
    """Return the use that `packed_use` packed."""
    limit, _, part = packed[1:].partition("\0")
    return Use(limit, part, packed[0] == "t")


def field(scope: str, name: str) -> str:
    """Return what stands for a scope and a name as the field of a hash."""
    return f"{len(scope.encode())}:{scope}{name}"


def known(value: int | bool) -> int | None:
    """Return a number of a row, None where it has none."""
    return None if value is False else int(value)


def text(value: str | bool) -> str | None:
    """Return a text of a row, None where it has none."""
    return value if isinstance(value, str) else None


def job_record(  # long: a table, read down
    id_: bytes,
    row: Row,
    queue: str,
    sheet: Sheet,
    progress: bytes | None = None,
    whole: tuple[bytes | None, bytes | None] | None = None,
) -> JobRecord:
    """Return the record of a job; `whole` is its result and its packed errors.

    Without it body, headers, result and errors are left out.
    """
    state = STATES[row.state]
    assert state is not None  # noqa: S101 # a row without a state would be nowhere
    is_due_known = state in (State.SCHEDULED, State.READY, State.BLOCKED)
    parts: dict[str, Any] = {}
    if whole is not None:
        result, errors = whole
        kept = read_errors(errors) if errors else ()
        parts = {
            "body": sheet.body,
            "headers": sheet.headers,
            "result": result,
            "errors": tuple(AttemptError(it.attempt, it.at_ms, it.error) for it in kept),
        }
    return JobRecord(
        id=id_,
        queue=queue,
        task=sheet.task,
        state=state,
        revision=row.revision,
        priority=row.priority,
        attempt=row.attempt,
        token=row.token,
        enqueued_ms=row.enqueued,
        reason=Reason(row.reason) if isinstance(row.reason, str) else None,
        lane=Lane(row.lane),
        due_ms=row.place if is_due_known else None,
        started_ms=known(row.started),
        ended_ms=known(row.ended),
        ran_ms=row.ran if state.is_final else None,
        deadline_ms=known(row.deadline),
        owner=text(row.owner),
        cancelling=row.cancelling,
        progress=read_progress(progress) if progress else None,
        key=sheet.key,
        group=sheet.group,
        parent=sheet.parent,
        policy=sheet.policy or DEFAULT_POLICY,
        size=row.size,
        resource=sheet.resource,
        rule=sheet.rule or DEFAULT_RULE,
        uses=sheet.uses,
        after=read_edges(sheet.after),
        workflow=sheet.workflow,
        tags=sheet.tags,
        waits_for=row.extra.open if row.extra else 0,
        blocked_on=row.extra.blocked_on if row.extra else None,
        **parts,
    )
