"""The engine contract: what keeps jobs answers these verbs, and says what it can.

A verb makes a fresh plan and does nothing yet; `run` and `arun` carry a plan out in
a transaction of the engine's own, `joined` in one of the caller's. Polling is always
the truth: a bell only makes it sooner. Only delays travel; each engine adds its own
now. Every engine passes `tests/engine/contract/`; `memory` is its executable form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from backlane.engine.capability import Capability as Capability  # noqa: PLC0414 - here too
from backlane.engine.hearing import Bell, Enlisted, Watch
from backlane.engine.joining import Joined, Transaction
from backlane.engine.limiting import Limiting
from backlane.engine.moving import Moving
from backlane.engine.plan import Plan
from backlane.engine.recalling import Recalling
from backlane.engine.retention import Retention, Swept
from backlane.engine.scheduling import (
    Pause,
    Put,
    Remove,
    Resume,
    ScheduleRecord,
    Tick,
    Ticked,
    Timetable,
)
from backlane.engine.selection import Amended, Change, Page, Selection
from backlane.model.breaker import ResourceRecord
from backlane.model.job import Job, JobRecord, Lease, Note, Receipt, Refusal
from backlane.model.limit import Limit
from backlane.model.outcome import Settlement
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Kind, QueueRecord, QueueSample

T = TypeVar("T")

# -- what verbs take and answer --


class Admission(msgspec.Struct, frozen=True):
    """What an append is judged by, beside what the store itself says of a queue.

    `declared` holds the bounds of the application's code by queue; what was tuned in
    the store goes before them, the engine's default behind them. `kind` is what the
    appended jobs are; the first append or `declare` of a queue fixes it. `paces` is what
    the caller knows of the speed of queues, at most a second old: with it the wait of a
    job is foretold, without it no wait is. `limits` are those the code declares of what the
    jobs use; `fair` are the queues whose order is by virtual time (a queue is as the latest
    append or `declare` said). Jobs that are `remade` may be lost with the power until a later
    commit is on the disk: who appends them appends the same ones again.
    """

    declared: Mapping[str, Bounds] = {}
    kind: Kind = Kind.TASKS
    paces: Mapping[str, Pace] = {}
    limits: Mapping[str, Limit] = {}
    fair: frozenset[str] = frozenset()
    remade: bool = False


class Wanted(msgspec.Struct, frozen=True):
    """What a claim asks for: jobs of these queues (or these very jobs)."""

    owner: str
    number: int
    lease_ms: int
    queues: tuple[str, ...] = ()
    lane: int | None = 0  # None: both lanes (raw messages, inline tests)
    ids: tuple[bytes, ...] = ()  # instead of queues
    kind: Kind = Kind.TASKS
    departed: tuple[str, ...] = ()  # owners known dead: their leases have lapsed


class Claimed(msgspec.Struct, frozen=True):
    """Leases given, and what the claimer should know for its next turn."""

    leases: list[Lease] = []
    cancelled: list[bytes] = []  # jobs this owner holds that were asked to stop
    next_due_ms: int | None = None  # until the next scheduled job or lapse, if within sight
    buried: list[JobRecord] = []  # lapsed out of attempts: dead letters now (ids and reasons)
    turned: list[ResourceRecord] = []  # resources of which this claim took the first trial


class Settled(msgspec.Struct, frozen=True):
    """`lost` are the jobs whose lease was no longer the current one: nothing was changed."""

    lost: list[bytes] = []
    buried: list[bytes] = []  # became dead letters
    turned: list[ResourceRecord] = []  # resources of these jobs that stand otherwise than
    # before, or are open: a worker whose attempts end late learns so too that one is


class Turn(msgspec.Struct, frozen=True):
    """What one turn of a worker did: settled, then claimed, in one transaction."""

    settled: Settled
    claimed: list[Claimed]  # one for each `Wanted`


class Extended(msgspec.Struct, frozen=True):
    """Leases that were not extended, and those whose job is to stop."""

    lost: list[bytes] = []
    cancelled: list[bytes] = []


class Declare(msgspec.Struct, frozen=True):
    """What the application's code says of a queue. What was tuned goes before it."""

    kind: Kind
    bounds: Bounds
    is_fair: bool = False


class Tune(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person sets at run time; it survives deploys until `reset`."""

    max_jobs: int | None = None
    max_bytes: int | None = None
    max_wait_ms: int | None = None  # 0: the wait is not bounded
    group_share: float | None = None
    paused: bool | None = None
    reset: bool = False  # first forget all that was tuned (not the pause)


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it announces itself."""

    owner: str  # random for each start
    host: str
    pid: int
    queues: tuple[str, ...]
    slots: int
    running: int
    most: Mapping[str, int] = {}  # queues of which it runs fewer than `slots` at a time
    leaving: bool = False  # it stops: forget it


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the engine knows it."""

    owner: str
    host: str
    pid: int
    queues: tuple[str, ...]
    slots: int
    running: int
    started_ms: int
    beat_age_ms: int


class Measured(msgspec.Struct, frozen=True):
    """Queues as they are now, and the secret that tickets of this store are signed with."""

    queues: list[QueueSample]
    secret: bytes


class Open(msgspec.Struct, frozen=True):
    """A resource is down: its lanes give nothing for so long, or until it is closed."""

    for_ms: int | None = None


class Close(msgspec.Struct, frozen=True):
    """A resource is well again, and what was counted of it is forgotten."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What `diagnose` found: a setting or a state, good or not, with what mends it."""

    subject: str
    state: str  # "ok" | "warning" | "error"
    text: str
    remedy: str | None = None


class Verbs(Protocol):
    """Each makes a fresh plan. What it does, it does atomically."""

    def append(self, jobs: Sequence[Job], admission: Admission) -> Plan[list[Receipt] | Refusal]:
        """Insert all jobs, or none when a bound would be passed.

        A job whose id, key or idempotency key is taken is not inserted again: its receipt
        names the first. Duplicates need no room. Jobs with a `parent` may use headroom,
        and are not refused for the wait. An idempotency key that comes again with another
        print is refused.

        A job with `after` is blocked until all of these have ended; each must be known, or
        new in the same append, and no new ones may wait for each other in a circle (limit
        "after", also of who waits behind one). Of two edges to the same job the first counts.
        Edges to jobs that have ended are judged at once. No wait is foretold of a job with
        edges, as of one with a delay.
        However a job ends (or is deleted: as if cancelled), its edges are followed in the
        same transaction: who waited for the last of his is in line at the place he had
        (scheduled, if he never ran and his delay is not over), who hoped in vain ends as
        cancelled, with an error of kind "Skipped" kept that names one job which failed him,
        and so on. While one of several has ended, the waiting job's revision stays.

        In a fair queue the place of a job that gets in line is its virtual time; see
        `engine.limiting`.
        """

    def claim(self, wanted: Wanted) -> Plan[Claimed]:
        """Give leases: by priority (higher first), then place, then order of append.

        First moves up to 1,000 due, lapsed and departed owners' jobs into ready. A lapse
        counts the attempt and keeps the job's place; out of attempts it is failed
        (crashed), flagged it is cancelled. A job past its deadline ends as expired,
        unrun; who waited for it is for the next claim. Paused queues give nothing. Token + 1.
        """

    def extend(self, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Plan[Extended]:
        """Move the end of each lease (job, token) to now + `by_ms`.

        A lease that is not current, or has lapsed already by time, is lost. There
        is no way to extend by owner: what its owner does not know it holds (a claim whose
        answer was lost) has to lapse.
        """

    def settle(self, settlements: Sequence[Settlement]) -> Plan[Settled]:
        """Carry outcomes out, each only if its token is the current one; of two for one
        lease the first counts.

        `RetryAfter` counts the attempt; out of attempts the job is failed (attempts).
        A job asked to stop is never retried, snoozed or released: it is cancelled.
        `Snoozed`, `Released` and `Awaiting` count nothing. What is awaited is looked at once
        all other outcomes of the call were carried out. A retried job's place is its new
        due time, a released, crashed or awaiting one keeps its place.
        """

    def turn(self, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Plan[Turn]:
        """Settle, then claim for each `wanted`, in one transaction: a worker's hot path."""

    def note(self, notes: Sequence[Note]) -> Plan[list[bytes]]:
        """Keep progress and steps, fenced; return the jobs whose lease was no longer current."""

    def amend(
        self, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Plan[Amended]:
        """Change up to 1,000 selected jobs; `cursor` goes on behind the last answer.

        Edges are judged as they were before the call, and followed once all were changed.
        """

    def find(
        self,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Plan[Page]:
        """Read job records. Reads at most 10,000 rows a call, so a page may be short.

        Records found by `ids` carry errors, body and result, unless they are to be `brief`;
        others leave those out.
        """

    def list_schedules(self, *, due: bool = False) -> Plan[Timetable]:
        """Return the schedules by name, at most 10,000.

        With `due`: those that are to be looked at now (not paused), the earliest
        `next_ms` first, at most 1,000.
        """

    def alter_schedule(
        self, name: str, change: Put | Pause | Resume | Remove
    ) -> Plan[ScheduleRecord | None]:
        """Return the schedule as it is now; None: there is none of that name (any more)."""

    def tick(self, ticks: Sequence[Tick], admission: Admission) -> Plan[list[Ticked]]:
        """Apply schedules: of each, if its revision is still the one given, append its jobs
        and move `last_ms` and `next_ms` on.

        Each is on its own: where its append is refused, nothing of it is changed; one
        without jobs is an append of none, and declares limits as that does. Its jobs may use
        headroom as those with a `parent` do, and are not refused as "stale".
        """

    def list_queues(self) -> Plan[list[QueueRecord]]:
        """Return all queues by name, from counters alone."""

    def measure(self, queues: Sequence[str]) -> Plan[Measured]:
        """Return samples of those of these queues that exist."""

    def reserve(self, queue: str, after_ms: int, spacing_us: int, number: int) -> Plan[int]:
        """Move the queue's virtual clock on by `number` slots of `spacing_us`.

        The slots begin where the clock stood, or `after_ms` from now if that is later.
        Return how many milliseconds from now the first one begins. Shared by all
        processes; it need not survive a crash.
        """

    def list_resources(self) -> Plan[list[ResourceRecord]]:
        """Return what is known of the resources that jobs depend on, by name."""

    def steer(self, resource: str, change: Open | Close) -> Plan[ResourceRecord | None]:
        """Pause or resume the lanes of a resource by hand. Of an unknown one: None."""

    def list_workers(self) -> Plan[list[WorkerRecord]]:
        """Return the workers that announced themselves, at most 1,000."""

    def sweep(self, limit: int, retention: Retention) -> Plan[Swept]:
        """Mend and prune, at most about `limit` rows a call: lapsed leases, expired jobs,
        ageing (5 minutes of waiting = one level of priority), history, silent workers.

        History: a job goes when its policy's `keep_ms` is over, else as `retention` says;
        not while an unfinished job waits, or waited, for it. A schedule that code declared
        goes when it was not declared for 15 minutes while some worker was alive (both by the
        lease clock, as the beats of workers are). `Retention.least_ms` counts for all, what
        has a `keep_ms` counts to no number. Keys whose window is over go as idempotency keys
        do, with the `limit`, and are no part of what is counted as pruned."""

    def tune(self, queue: str, change: Declare | Tune) -> Plan[QueueRecord | None]:
        """Set a queue's bounds or pause it. `Tune` of an unknown queue answers None;
        `Declare` makes it, and answers what was in force before (None: it was new)."""

    def announce(self, presence: Presence) -> Plan[None]:
        """Say that a worker is there.

        Where none was alive (no beat for a minute), the silence about schedules begins anew:
        who comes first after a pause has not had the time to declare them.
        """


class Engine(Verbs, Limiting, Recalling, Moving, Protocol):
    """Keeps jobs. Nothing opens before first use; after a fork a process opens anew."""

    capabilities: frozenset[Capability]
    url: str

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out and return its value, durable once this returns.

        Raises:
            EngineUnavailable: nothing was changed.
            OutcomeUnknown: it may have been; the same ids can be sent again.
        """

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""

    def joined(self, connection: object) -> Joined:
        """Join the caller's open transaction.

        Raises:
            WrongUse: the connection is not one this engine can join; says why and which is.
        """

    def transaction(self, connection: object | None = None) -> Transaction:
        """Return a transaction, not begun yet: on the caller's connection, or on one of ours.

        Raises:
            WrongUse: the connection is not one this engine can join; says why and which is.
            NotSupported: the engine joins none, or has none to give.
        """

    def listen(self, queues: Sequence[str]) -> Bell:
        """Ring when one of these queues may have something to claim or to cancel."""

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> Watch:
        """Ring when one of these jobs may have changed.

        That a worker took one rings only with `starts`: who waits for an end is not
        woken for it.
        """

    async def departed(self) -> tuple[str, ...]:
        """Return owners of leases that are known dead (not merely silent)."""

    def enlist(self, owner: str) -> Enlisted:
        """Show a sign of life that ends with the process, however it ends."""

    def migrate(self) -> list[str]:
        """Bring the store's schema up to date; return what was applied."""

    def script(self) -> str:
        """Return the SQL that `migrate` runs on an empty store; "": it runs none."""

    def diagnose(self) -> list[Finding]:
        """Look for settings and states that lose jobs or time."""

    def close(self) -> None:
        """Wait for what has begun, then let go of the store. The next use opens anew."""
