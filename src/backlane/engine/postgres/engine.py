"""The PostgreSQL engine itself: verbs as plans, and one set of links a process."""

# long: one method a verb, and what a verb does is in its own file
from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from typing import TypeVar

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.moving import Part, Seal, Settings
from backlane.engine.offering import Offer, Offered
from backlane.engine.plan import Plan, plan, reading
from backlane.engine.postgres.append import append as appending
from backlane.engine.postgres.append import schedules as scheduling
from backlane.engine.postgres.append.credit import Purse
from backlane.engine.postgres.bells.bell import Belfry, Bell
from backlane.engine.postgres.doctor.examination import diagnose
from backlane.engine.postgres.driver import block as blocks
from backlane.engine.postgres.driver import joining
from backlane.engine.postgres.driver.links import Links
from backlane.engine.postgres.driver.pool import Retired
from backlane.engine.postgres.lease import lease as leasing
from backlane.engine.postgres.lease import offers as offering
from backlane.engine.postgres.lease import turn as turning
from backlane.engine.postgres.lease.head import Heads
from backlane.engine.postgres.lease.memory import Memory
from backlane.engine.postgres.limits import limits
from backlane.engine.postgres.limits import resource as resources
from backlane.engine.postgres.moving import dump as dumping
from backlane.engine.postgres.moving import restore as restoring
from backlane.engine.postgres.moving import settings as stating
from backlane.engine.postgres.record import find as finding
from backlane.engine.postgres.record import steps
from backlane.engine.postgres.store import migrations
from backlane.engine.postgres.store import seal as sealing
from backlane.engine.postgres.store.address import parse
from backlane.engine.postgres.store.plans import beat, step
from backlane.engine.postgres.store.presence import Enlisted
from backlane.engine.postgres.store.statement import Statements
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep import amend as amending
from backlane.engine.postgres.upkeep import measure, tune, workers
from backlane.engine.postgres.upkeep import sweep as sweeping
from backlane.engine.protocol import (
    Admission,
    Capability,
    Claimed,
    Close,
    Declare,
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
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import Clock, SystemClock
from backlane.model.job import Job, Note, Receipt, Refusal, State, Step
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Settlement
from backlane.model.queue import QueueRecord

T = TypeVar("T")


class PostgresEngine:
    """Keeps jobs in a PostgreSQL database, shared by any number of machines.

    Args:
        url: libpq's, with `schema`, `pool` and `pooler` beside its own options.
    """

    capabilities = frozenset(Capability) - {Capability.EMBEDDED}

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._address = parse(url)
        self.url = self._address.url
        self._clock = clock or SystemClock()
        self._statements = Statements(self._address.schema)
        self._links: Links | None = None
        self._home: joining.Home | None = None
        self._belfry: Belfry | None = None
        self._hung_in = 0
        self._purse = Purse()
        self._memory = Memory()
        self._heads = Heads()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def append(self, jobs: Sequence[Job], admission: Admission) -> Plan[list[Receipt] | Refusal]:
        """See `Verbs.append`."""
        return appending.plan(self._purse, (jobs, admission))

    def claim(self, wanted: Wanted) -> Plan[Claimed]:
        """See `Verbs.claim`."""
        return turning.claim_plan(self._memory, wanted)

    @beat
    async def extend(
        self, tx: PostgresTx, leases: Sequence[tuple[bytes, int]], by_ms: int
    ) -> Extended:
        return await leasing.extend(tx, leases, by_ms)

    @plan
    async def settle(self, tx: PostgresTx, settlements: Sequence[Settlement]) -> Settled:
        return await turning.settle(tx, self._memory, settlements)

    def turn(self, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Plan[Turn]:
        """See `Verbs.turn`."""
        return turning.turn_plan(self._memory, settlements, wanted)

    @step
    async def note(self, tx: PostgresTx, notes: Sequence[Note]) -> list[bytes]:
        return await leasing.note(tx, notes)

    @plan
    async def amend(
        self, tx: PostgresTx, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Amended:
        return await amending.amend(tx, selection, change, cursor)

    @reading
    async def find(
        self,
        tx: PostgresTx,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Page:
        return await finding.find(tx, selection, limit, cursor, brief=brief)

    # -- schedules, steps, queues, resources, workers --

    @reading
    async def list_schedules(self, tx: PostgresTx, *, due: bool = False) -> Timetable:
        return await scheduling.list_schedules(tx, due=due)

    @plan
    async def alter_schedule(
        self, tx: PostgresTx, name: str, change: Put | Pause | Resume | Remove
    ) -> ScheduleRecord | None:
        return await scheduling.alter_schedule(tx, name, change)

    @plan
    async def tick(
        self, tx: PostgresTx, ticks: Sequence[Tick], admission: Admission
    ) -> list[Ticked]:
        return await scheduling.tick(tx, self._purse, ticks, admission)

    @reading
    async def recall(self, tx: PostgresTx, job: bytes) -> list[Step]:
        return await steps.recall(tx, job)

    @reading
    async def results(self, tx: PostgresTx, jobs: Sequence[bytes]) -> list[Resulted]:
        return await steps.results(tx, jobs)

    @reading
    async def latest(self, tx: PostgresTx, task: str) -> Latest | None:
        return await steps.latest(tx, task)

    @reading
    async def list_queues(self, tx: PostgresTx) -> list[QueueRecord]:
        return await tune.list_queues(tx, self._heads)

    @reading
    async def measure(self, tx: PostgresTx, queues: Sequence[str]) -> Measured:
        return await measure.measure(tx, self._heads, queues)

    @step
    async def reserve(
        self, tx: PostgresTx, queue: str, after_ms: int, spacing_us: int, number: int
    ) -> int:
        return await measure.reserve(tx, queue, after_ms, spacing_us, number)

    @reading
    async def list_workers(self, tx: PostgresTx) -> list[WorkerRecord]:
        return await workers.list_workers(tx)

    @reading
    async def list_resources(self, tx: PostgresTx) -> list[ResourceRecord]:
        return await resources.list_resources(tx)

    @plan
    async def steer(
        self, tx: PostgresTx, resource: str, change: Open | Close
    ) -> ResourceRecord | None:
        return await resources.steer(tx, resource, change)

    @step
    async def sweep(self, tx: PostgresTx, limit: int, retention: Retention) -> Swept:
        return await sweeping.sweep(tx, limit, retention)

    @plan
    async def tune(self, tx: PostgresTx, queue: str, change: Declare | Tune) -> QueueRecord | None:
        return await tune.tune(tx, queue, change)

    @beat
    async def announce(self, tx: PostgresTx, presence: Presence) -> None:
        await workers.announce(tx, presence)

    # -- limits, offers, moving --

    @reading
    async def list_limits(self, tx: PostgresTx) -> list[LimitRecord]:
        return await limits.list_limits(tx)

    @plan
    async def regulate(
        self, tx: PostgresTx, name: str, change: Declared | Tuned
    ) -> LimitRecord | None:
        tx.then(lambda: self._purse.undeclare(name))
        return await limits.regulate(tx, name, change)

    @plan
    async def acquire(
        self, tx: PostgresTx, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Acquired:
        return await limits.acquire(tx, use, declared, holder, lease_ms)

    @plan
    async def release(self, tx: PostgresTx, use: Use, holder: bytes) -> bool:
        return await limits.release(tx, use, holder)

    @step
    async def offer(self, tx: PostgresTx, offers: Sequence[Offer], for_ms: int) -> Offered:
        return await offering.offer(tx, self._memory, offers, for_ms)

    @step
    async def withdraw(self, tx: PostgresTx, jobs: Sequence[bytes]) -> None:
        await offering.withdraw(tx, jobs)

    @plan
    async def seal(self, tx: PostgresTx, seal: Seal | None) -> Seal | None:
        return await sealing.seal(tx, seal)

    @reading
    async def sealed(self, tx: PostgresTx) -> Seal | None:
        return await sealing.sealed(tx)

    @reading
    async def dump(
        self,
        tx: PostgresTx,
        limit: int = 1_000,
        cursor: bytes | None = None,
        *,
        final: Sequence[State] = (),
    ) -> Part:
        return await dumping.dump(tx, limit, cursor, final)

    @plan
    async def discard(self, tx: PostgresTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return await dumping.discard(tx, jobs)

    @plan
    async def restore(self, tx: PostgresTx, part: Part, move: bytes = b"") -> list[bytes]:
        return await restoring.restore(tx, part, move)

    @reading
    async def dump_settings(self, tx: PostgresTx) -> Settings:
        return await stating.dump_settings(tx)

    @plan
    async def restore_settings(self, tx: PostgresTx, settings: Settings) -> None:
        await stating.restore_settings(tx, settings)

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out and return its value, durable once this returns."""
        while True:
            try:
                return self._own().run(plan)
            except Retired:
                continue  # closed by another thread meanwhile: the next use opens anew

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""
        while True:
            try:
                return await self._own().arun(plan)
            except Retired:
                continue

    def joined(self, connection: object) -> joining.JoinedTransaction:
        """Join the caller's open transaction.

        Raises:
            WrongUse: it cannot be joined; says why, and which can.
        """
        home = self._own_home()
        return joining.joined(connection, home, home.links.ring)

    def transaction(self, connection: object | None = None) -> blocks.Block:
        """Return a transaction, not begun yet: on the caller's connection, or on a lent one.

        Raises:
            WrongUse: it cannot be joined; says why, and which can.
        """
        home = self._own_home()
        return blocks.Block(connection, home, home.lending, home.links.ring)

    # -- wake-ups, owners and the store --

    def listen(self, queues: Sequence[str]) -> Bell:
        """Ring when one of these queues may have something to claim or to cancel."""
        return self._own().belfry.listen(queues)

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> Bell:
        """Ring when one of these jobs may have changed, or with `starts` was taken."""
        return self._own().belfry.watch(jobs, starts=starts)

    async def departed(self) -> tuple[str, ...]:
        """Return owners of leases whose session is gone, and has not come back."""
        while True:
            try:
                return await self._own().departed()
            except Retired:
                continue

    def enlist(self, owner: str) -> Enlisted:
        """Show a sign of life that ends with this process."""
        return self._own().enlist(owner, self.run)

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return what was applied."""
        with self._own().own_connection() as connection:
            return migrations.migrate(connection, self._address)

    def script(self) -> str:
        """Return the SQL that `migrate` runs where there is no schema of this name."""
        return migrations.script(self._address.schema)

    def diagnose(self) -> list[Finding]:
        """Look for settings and states that lose jobs or time."""
        return diagnose(self._address, self._clock)

    def close(self) -> None:
        """Wait for what has begun, then let go of the server. The next use opens anew."""
        with self._lock:
            links, self._links = self._links, None
            home, self._home = self._home, None
        if home is not None and home.links.is_own:
            home.lending.close()
        if links is not None and links.is_own:
            links.close()

    def _own_home(self) -> joining.Home:
        links = self._own()
        if self._home is None or self._home.links is not links:
            self._home = joining.Home(links)
        return self._home

    def _own(self) -> Links:
        """Return this process's links: what a fork inherited is left alone."""
        links = self._links
        if links is not None and links.is_own:
            return links
        if self._pid != os.getpid():
            # Another thread of the parent may have held the lock when it forked.
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._links is None or not self._links.is_own:
                if self._belfry is None or self._pid != self._hung_in:
                    # Bells go on when the engine is closed and opens anew; not in a fork.
                    self._belfry, self._hung_in = Belfry(self._hang, self._wait), self._pid
                self._links = Links(self._address, self._statements, self._clock, self._belfry)
            return self._links

    def _hang(self) -> None:
        self._own().side.hang()

    def _wait(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._own().side.wait(loop)


def open_url(url: str, clock: Clock) -> PostgresEngine:
    """Return the engine for a `postgresql://` URL, not opened yet.

    Raises:
        BadOption: the URL is none of libpq's, or an option has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    return PostgresEngine(url, clock=clock)
