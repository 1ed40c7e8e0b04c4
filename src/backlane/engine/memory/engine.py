"""The memory engine itself: verbs as plans over a `Store`, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from backlane.engine.caller import HeldTransaction, called
from backlane.engine.joining import Joined
from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.memory import admission as admitting
from backlane.engine.memory import changes, limiting, measure, moving, schedules, steps, sweeper
from backlane.engine.memory import leases as leasing
from backlane.engine.memory import offers as offering
from backlane.engine.memory import resource as resources
from backlane.engine.memory.bell import BeforeWait, Belfry, MemoryBell
from backlane.engine.memory.enlisted import MemoryEnlisted
from backlane.engine.memory.record import queue_record, worker_record
from backlane.engine.memory.store import Store
from backlane.engine.moving import Part, Seal, Settings
from backlane.engine.offering import Offer, Offered
from backlane.engine.plan import Plan, finish, plan, reading
from backlane.engine.protocol import (
    Admission,
    Capability,
    Claimed,
    Close,
    Declare,
    Engine,
    Extended,
    Finding,
    Measured,
    Open,
    Presence,
    Settled,
    Tune,
    Turn,
    Wanted,
    WorkerRecord,
)
from backlane.engine.recalling import Latest, Resulted
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
from backlane.errors import BadOption, NotSupported, WrongUse
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import Clock, SystemClock
from backlane.model.job import Job, Note, Receipt, Refusal, State, Step
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Settlement
from backlane.model.queue import QueueRecord

T = TypeVar("T")

WORKERS_LISTED = 1_000


class MemoryEngine:
    """Keeps jobs in this process, for tests and for trying things out.

    Args:
        clock: where its time comes from.
        url: what it says it was opened by.
        before_wait: called in whoever is about to wait, with the seconds: the first
            before waiting for a queue, the second before waiting for a job.
    """

    capabilities = frozenset(Capability) - {Capability.JOINS, Capability.EMBEDDED}

    def __init__(
        self,
        clock: Clock | None = None,
        url: str = "memory://",
        *,
        before_wait: tuple[BeforeWait | None, BeforeWait | None] = (None, None),
    ) -> None:
        self.url = url
        self._store = Store(clock or SystemClock())
        self._lock = threading.Lock()
        self._queue_bells = Belfry(self._store.clock, before_wait[0])
        self._job_bells = Belfry(self._store.clock, before_wait[1])
        self._gone: set[str] = set()

    # -- verbs --

    @plan
    async def append(
        self, tx: Store, jobs: Sequence[Job], admission: Admission
    ) -> list[Receipt] | Refusal:
        return admitting.append(tx, jobs, admission)

    @plan
    async def claim(self, tx: Store, wanted: Wanted) -> Claimed:
        return leasing.claim(tx, wanted)

    @plan
    async def extend(self, tx: Store, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
        return leasing.extend(tx, leases, by_ms)

    @plan
    async def settle(self, tx: Store, settlements: Sequence[Settlement]) -> Settled:
        return leasing.settle(tx, settlements)

    @plan
    async def turn(
        self, tx: Store, settlements: Sequence[Settlement], wanted: Sequence[Wanted]
    ) -> Turn:
        settled = leasing.settle(tx, settlements)
        return Turn(settled, [leasing.claim(tx, one) for one in wanted])

    @plan
    async def note(self, tx: Store, notes: Sequence[Note]) -> list[bytes]:
        return steps.note(tx, notes)

    @plan
    async def amend(
        self, tx: Store, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Amended:
        return changes.amend(tx, selection, change, cursor)

    @reading
    async def find(
        self,
        tx: Store,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Page:
        return changes.find(tx, selection, limit, cursor, brief=brief)

    @reading
    async def recall(self, tx: Store, job: bytes) -> list[Step]:
        return steps.recall(tx, job)

    @reading
    async def results(self, tx: Store, jobs: Sequence[bytes]) -> list[Resulted]:
        return steps.results(tx, jobs)

    @reading
    async def latest(self, tx: Store, task: str) -> Latest | None:
        return tx.latest.get(task)

    @reading
    async def list_schedules(self, tx: Store, *, due: bool = False) -> Timetable:
        return schedules.list_schedules(tx, due=due)

    @plan
    async def alter_schedule(
        self, tx: Store, name: str, change: Put | Pause | Resume | Remove
    ) -> ScheduleRecord | None:
        return schedules.alter_schedule(tx, name, change)

    @plan
    async def tick(self, tx: Store, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:
        return schedules.tick(tx, ticks, admission)

    @reading
    async def list_queues(self, tx: Store) -> list[QueueRecord]:
        return [queue_record(tx, tx.lines[name]) for name in sorted(tx.lines)]

    @reading
    async def measure(self, tx: Store, queues: Sequence[str]) -> Measured:
        return measure.measure(tx, queues)

    @plan
    async def reserve(
        self, tx: Store, queue: str, after_ms: int, spacing_us: int, number: int
    ) -> int:
        return measure.reserve(tx, queue, after_ms, spacing_us, number)

    @reading
    async def list_workers(self, tx: Store) -> list[WorkerRecord]:
        return [worker_record(tx, owner) for owner in list(tx.workers)[:WORKERS_LISTED]]

    @reading
    async def list_resources(self, tx: Store) -> list[ResourceRecord]:
        return resources.list_resources(tx)

    @plan
    async def steer(self, tx: Store, resource: str, change: Open | Close) -> ResourceRecord | None:
        return resources.steer(tx, resource, change)

    @plan
    async def sweep(self, tx: Store, limit: int, retention: Retention) -> Swept:
        return sweeper.sweep(tx, limit, retention)

    @plan
    async def tune(self, tx: Store, queue: str, change: Declare | Tune) -> QueueRecord | None:
        line = tx.lines.get(queue)
        before = queue_record(tx, line) if line else None
        if isinstance(change, Declare):
            line = line or tx.line(queue, change.kind, change.bounds)
            if line.kind is change.kind:  # otherwise the answer says what it is
                line.declared, line.is_fair = change.bounds, change.is_fair
            return before
        if line is None:
            return None
        if change.reset:
            line.tuned_max_jobs = line.tuned_max_bytes = None
            line.tuned_max_wait_ms = line.tuned_group_share = None
        line.tuned_max_jobs = change.max_jobs or line.tuned_max_jobs
        line.tuned_max_bytes = change.max_bytes or line.tuned_max_bytes
        if change.max_wait_ms is not None:  # 0 lifts the bound
            line.tuned_max_wait_ms = change.max_wait_ms
        line.tuned_group_share = change.group_share or line.tuned_group_share
        line.paused = line.paused if change.paused is None else change.paused
        tx.rung_queues.add(queue)
        return queue_record(tx, line)

    @plan
    async def announce(self, tx: Store, presence: Presence) -> None:
        if presence.leaving:
            tx.workers.pop(presence.owner, None)
            return
        schedules.begin_silence(tx)
        known = tx.workers.get(presence.owner)
        since = known[1] if known else tx.clock.wall_ms()
        tx.workers[presence.owner] = (presence, since, tx.clock.boot_ms())

    # -- limits --

    @reading
    async def list_limits(self, tx: Store) -> list[LimitRecord]:
        return limiting.list_limits(tx)

    @plan
    async def regulate(self, tx: Store, name: str, change: Declared | Tuned) -> LimitRecord | None:
        return limiting.regulate(tx, name, change)

    @plan
    async def acquire(
        self, tx: Store, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Acquired:
        return limiting.acquire(tx, use, declared, holder, lease_ms)

    @plan
    async def release(self, tx: Store, use: Use, holder: bytes) -> bool:
        return limiting.release(tx, use, holder)

    # -- offers --

    @plan
    async def offer(self, tx: Store, offers: Sequence[Offer], for_ms: int) -> Offered:
        return offering.offer(tx, offers, for_ms)

    @plan
    async def withdraw(self, tx: Store, jobs: Sequence[bytes]) -> None:
        offering.withdraw(tx, jobs)

    # -- moving --

    @plan
    async def seal(self, tx: Store, seal: Seal | None) -> Seal | None:
        return moving.seal(tx, seal)

    @reading
    async def sealed(self, tx: Store) -> Seal | None:
        return tx.seal

    @reading
    async def dump(
        self,
        tx: Store,
        limit: int = 1_000,
        cursor: bytes | None = None,
        *,
        final: Sequence[State] = (),
    ) -> Part:
        return moving.dump(tx, limit, cursor, final)

    @plan
    async def discard(self, tx: Store, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return moving.discard(tx, jobs)

    @plan
    async def restore(self, tx: Store, part: Part, move: bytes = b"") -> list[bytes]:
        return moving.restore(tx, part, move)

    @reading
    async def dump_settings(self, tx: Store) -> Settings:
        return moving.dump_settings(tx)

    @plan
    async def restore_settings(self, tx: Store, settings: Settings) -> None:
        moving.restore_settings(tx, settings)

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out; then ring."""
        store = self._store
        with self._lock:
            value = finish(plan.within(store))
            queues, store.rung_queues = store.rung_queues, set()
            jobs, store.rung_jobs = store.rung_jobs, set()
        if queues:
            self._queue_bells.ring(queues)
        if jobs:
            self._job_bells.ring(jobs)
        return value

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`, which never waits here."""
        return self.run(plan)

    def joined(self, connection: object) -> Joined:
        """Refuse: there is no transaction that this engine could join."""
        raise WrongUse(
            f"the memory engine cannot join {type(connection).__name__}: its jobs are in no "
            "database; leave connection= out, or use an engine on the database it belongs to"
        )

    def transaction(self, connection: object | None = None) -> HeldTransaction:
        """Return the caller's transaction; a job is settled here just before it commits.

        For tests: of a process that dies in between, the jobs are gone as well.

        Raises:
            NotSupported: there is no connection, and none of this engine's own to give.
        """
        if connection is None:
            raise NotSupported(
                "the memory engine is in no database, so it has no connection to give: pass "
                "yours, context.transaction(connection), or keep jobs in sqlite:///jobs.db"
            )
        return HeldTransaction(called(connection), self.run, self.arun)

    # -- wake-ups and owners --

    def listen(self, queues: Sequence[str]) -> MemoryBell:
        """Ring when one of these queues may have something to claim or to cancel."""
        return self._queue_bells.hang(queues)

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> MemoryBell:  # noqa: ARG002
        """Ring when one of these jobs may have changed; a start rings in any case."""
        return self._job_bells.hang(jobs)

    async def departed(self) -> tuple[str, ...]:
        """Return owners of leases that gave up their sign of life."""
        with self._lock:
            owners = {row.owner for row in self._store.in_state(State.RUNNING)}
        return tuple(sorted(owner for owner in owners if owner in self._gone))

    def enlist(self, owner: str) -> MemoryEnlisted:
        """Show a sign of life that lasts until it is closed."""
        return MemoryEnlisted(owner, self._gone)

    # -- the store --

    def migrate(self) -> list[str]:
        """Nothing to do: a store in memory is always as new as its code."""
        return []

    def script(self) -> str:
        """Nothing: there are no tables."""
        return ""

    def diagnose(self) -> list[Finding]:
        """Say what this engine cannot promise."""
        return [
            Finding(
                subject="durability",
                state="warning",
                text="jobs are kept in memory: they end with this process",
                remedy="use a file: sqlite:///jobs.db",
            )
        ]

    def close(self) -> None:
        """Nothing to let go of: the jobs stay as long as the engine does."""


def open_url(url: str, clock: Clock) -> Engine:
    """Return a new, empty engine for `memory://`.

    Raises:
        BadOption: the URL says more than that, and nothing of it could be obeyed.
    """
    if url != "memory://":
        raise BadOption(
            "the memory engine takes no path or option; use 'memory://' and nothing behind it"
        )
    return MemoryEngine(clock, url)
