"""Jobs: what is enqueued, what a lease carries, and what is known of a job later."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from backlane.model.limit import Use
from backlane.model.outcome import ErrorRecord, Reason


class State(StrEnum):
    """Where a job is. The last four are final."""

    SCHEDULED = "scheduled"  # due later: delayed, snoozed or waiting for its retry
    READY = "ready"
    BLOCKED = "blocked"  # waits for a dependency, a limit or its group's turn
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # a dead letter: kept with its reason, can be redriven
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
WAITING = (State.SCHEDULED, State.READY, State.BLOCKED, State.RUNNING)  # what counts as depth


class Lane(IntEnum):
    """Which kind of executor a job needs; part of where it waits, so that a claim
    for free slots of one kind never meets jobs of the other."""

    SHARED = 0  # a loop and threads, many jobs at a time
    EXCLUSIVE = 1  # a process that runs this job alone, and can be killed


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """The task's numbers, copied into the job at enqueue.

    They are for what an executor cannot judge any more: crashes, kills and lapses.
    """

    attempts: int = 10  # executions in all
    base_ms: int = 1_000
    cap_ms: int = 3_600_000
    soft_ms: int | None = None  # the function is asked to stop
    hard_ms: int | None = None  # the attempt is ended
    retries_timeout: bool = True
    keep_ms: int | None = None  # of the record once it ended; None: as the store's retention
    # says, -1: for ever
    keeps_latest: bool = False  # its newest result is kept for `latest`


DEFAULT_POLICY = Policy()


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What makes two jobs the same, for as long as its `KeyRule` says."""

    scope: str  # the task; for a raw message the queue
    name: str


class KeyRule(msgspec.Struct, frozen=True, array_like=True):
    """How long a job holds its key, and what becomes of a job that finds its key held.

    `until` "started": until the first lease; "finished": until any final state;
    "succeeded": kept through failure (a dead letter holds it until it is redriven and
    succeeds, or is deleted or pruned; cancelled and expired jobs free it). With `window_ms`
    it is held for so long from the append on (by the wall clock), whatever becomes of the
    job, also when it is pruned; only deleting the job frees it. A job that is redriven holds
    its key again if its rule says so of one in its state; one that has been leased before
    does not by "started".

    `conflict` is the newcomer's: "existing": its receipt names the holder; "raise": the
    append is refused (limit "key"), nothing of it is stored; "replace": a holder that
    never started (it waits, and has never been leased) takes the newcomer's body, headers
    and due time, one that did is as with "existing"; "debounce": as replace, but due no
    later than `most_ms` after the holder was appended. Where the due time is now or
    past, a holder that is due already keeps its place. One that waits for other jobs goes on
    waiting. Within one append the holder may be a job before it. A replacement needs no place,
    but its growth in bytes is judged, in its holder's queue and net over the whole append; in
    a store that is being moved it counts as something new.
    """

    until: str = "finished"  # "started" | "finished" | "succeeded"
    window_ms: int | None = None
    conflict: str = "existing"  # "existing" | "raise" | "replace" | "debounce"
    most_ms: int | None = None


DEFAULT_RULE = KeyRule()


class When(StrEnum):
    """How the other job must end for this one to run; else this one is cancelled."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # in any other final state
    ENDED = "ended"


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """A job that this one waits for, blocked, until it has ended."""

    job: bytes
    when: When = When.SUCCEEDED


class Idempotency(msgspec.Struct, frozen=True, array_like=True):
    """What makes two requests the same for a while, whatever became of the first one's job.

    Unlike a key it outlives the job. The same `name` with another `print` (a digest of
    what was asked for) is a mistake of the caller, and is refused.
    """

    scope: str  # who asks, and for what
    name: str  # the caller's Idempotency-Key
    print: bytes
    window_ms: int = 24 * 3_600_000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a task, as it is appended. A raw job has no task: it is a message."""

    id: bytes  # UUIDv7, 16 bytes
    queue: str
    task: str | None
    body: bytes  # encoded arguments, or the message itself
    headers: bytes | None = None  # encoded mapping of text to text
    priority: int = 5  # 0..9, higher first
    lane: Lane = Lane.SHARED
    delay_ms: int = 0
    expires_ms: int | None = None  # after the append; past it the job ends unrun
    policy: Policy = DEFAULT_POLICY
    key: Key | None = None
    group: str | None = None
    parent: bytes | None = None  # the job inside which it was enqueued: may use headroom
    resource: str | None = None  # what it depends on; its lane pauses while that is down
    idempotency: Idempotency | None = None
    rule: KeyRule = DEFAULT_RULE  # of its key
    uses: tuple[Use, ...] = ()  # limits it is under, beside its queue's own
    after: tuple[Edge, ...] = ()  # in the store, or in the same append
    workflow: bytes | None = None  # what it is a part of, to be found by
    tags: tuple[str, ...] = ()  # to be found by

    @property
    def size(self) -> int:
        """Bytes that count against the queue's bound."""
        return len(self.body) + len(self.headers or b"")


class Receipt(msgspec.Struct, frozen=True):
    """The engine took the job, or knew it: `first` is then the id that holds its place."""

    job: bytes
    first: bytes | None = None
    pressure: float = 0.0  # of its queue after the append, 0..1: the fullest of its bounds
    # (jobs of the append that ended at once are counted too)
    expected_ms: int | None = None  # until a worker takes it; None: not known
    enqueued_ms: int = 0  # by the store's clock, as its record has it; 0 where `first` is set
    due_ms: int = 0
    replaced: bool = False  # `first` has this one's arguments now

    @property
    def is_new(self) -> bool:
        return self.first is None


class Refusal(msgspec.Struct, frozen=True):
    """A bound would be passed, so none of the jobs was stored."""

    queue: str
    limit: str  # "jobs" | "bytes" | "wait" | "deadline" | "group" | "broker" (which takes nothing
    # now: it is at a bound of its own, or short of memory), where waiting helps;
    # "stale" (an id older than the history) | "kind" | "reused" (an idempotency key) |
    # "moving" (the store is being moved: `can_fit` is False once it has been) |
    # "key" (held by `first`) | "after" (waits for a job that the store does not know, or for
    # itself by way of others)
    depth: int  # jobs or bytes held now; "wait", "deadline": milliseconds to be waited
    bound: int  # in the same unit
    added: int = 0  # jobs or bytes that were to be added
    jobs: int = 0  # the queue's depth in jobs, whatever the limit
    expected_ms: int | None = None  # of the job that was refused
    group: str | None = None  # whose share is used up
    can_fit: bool = True  # False: not even an empty queue would take them
    job: bytes | None = None  # which job, where it is one's own fault
    to: str | None = None  # "moving": where to; no password
    first: bytes | None = None  # "key": who holds it
    retry_ms: int | None = None  # when to come back, where nothing is known of the queue's speed


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A right to a job until a time, fenced by `token`. Crosses the pipe as it is."""

    job: bytes
    token: int
    attempt: int  # executions counted before this one
    queue: str
    task: str | None
    body: bytes
    headers: bytes | None = None
    priority: int = 5
    lane: Lane = Lane.SHARED
    policy: Policy = DEFAULT_POLICY
    group: str | None = None
    enqueued_ms: int = 0  # wall clock
    deadline_ms: int | None = None  # wall clock: `expires` of the job
    parked_ms: int | None = None  # how long no worker has known its task
    crashes: int = 0  # times it took a process down alone
    cancelled: bool = False
    resource: str | None = None


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a running job says it is."""

    fraction: float | None = None  # 0..1
    message: str | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A part of a job that is done, with its encoded result."""

    name: str
    result: bytes


class Note(msgspec.Struct, frozen=True, array_like=True):
    """Something to keep for a running job, fenced by its token."""

    job: bytes
    token: int
    progress: Progress | None = None  # None: as it was
    steps: tuple[Step, ...] = ()  # added; one of a name that is there replaces it


class AttemptError(msgspec.Struct, frozen=True):
    """The error that ended one attempt."""

    attempt: int  # 1 is the first execution
    at_ms: int
    error: ErrorRecord


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job. Times are wall-clock milliseconds."""

    id: bytes
    queue: str
    task: str | None
    state: State
    revision: int  # +1 at every change
    priority: int
    attempt: int  # executions counted so far
    token: int
    enqueued_ms: int
    reason: Reason | None = None
    lane: Lane = Lane.SHARED
    due_ms: int | None = None  # scheduled: when; ready: since when
    started_ms: int | None = None  # of the running or last attempt
    ended_ms: int | None = None
    ran_ms: int | None = None  # how long the attempt that ended it did; final jobs only
    deadline_ms: int | None = None
    owner: str | None = None  # who holds the lease, or ran the last attempt
    cancelling: bool = False  # running, and asked to stop
    progress: Progress | None = None
    key: Key | None = None
    group: str | None = None
    parent: bytes | None = None
    resource: str | None = None
    rule: KeyRule = DEFAULT_RULE
    uses: tuple[Use, ...] = ()
    after: tuple[Edge, ...] = ()
    workflow: bytes | None = None
    tags: tuple[str, ...] = ()
    waits_for: int = 0  # jobs that it waits for and that have not ended; blocked jobs only
    blocked_on: str | None = None  # the limit (or turn) that it waits for; blocked jobs only
    policy: Policy = DEFAULT_POLICY
    size: int = 0
    body: bytes = b""
    headers: bytes | None = None
    result: bytes | None = None  # succeeded, and kept
    errors: tuple[AttemptError, ...] = ()  # the newest ERRORS_KEPT, oldest first


ERRORS_KEPT = 20  # per job: what a person reads; older ones tell nothing new
