"""The SQLite engine itself: verbs as plans, and one set of handles a process."""

# long: one method a verb, and what a verb does is in its own file

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.moving import Part, Seal, Settings
from backlane.engine.offering import Offer, Offered
from backlane.engine.plan import Plan, plan, reading
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
from backlane.engine.sqlite.append import schedules
from backlane.engine.sqlite.append.append import append_all
from backlane.engine.sqlite.bells.ear import Bell
from backlane.engine.sqlite.doctor.diagnose import diagnose
from backlane.engine.sqlite.driver import block as blocks
from backlane.engine.sqlite.driver import joining
from backlane.engine.sqlite.driver.handles import Handles
from backlane.engine.sqlite.driver.process import Process
from backlane.engine.sqlite.driver.writer import Retired
from backlane.engine.sqlite.lease import claim as claiming
from backlane.engine.sqlite.lease import hold
from backlane.engine.sqlite.lease import offers as offering
from backlane.engine.sqlite.lease import settle as settling
from backlane.engine.sqlite.limits import limits as limiting
from backlane.engine.sqlite.limits import resource as resources
from backlane.engine.sqlite.moving import dump as dumping
from backlane.engine.sqlite.moving import restore as restoring
from backlane.engine.sqlite.record import find as finding
from backlane.engine.sqlite.record import steps
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.store import migrations
from backlane.engine.sqlite.store import seal as sealing
from backlane.engine.sqlite.store.address import DURABILITIES
from backlane.engine.sqlite.store.connection import Database, read_boot_id
from backlane.engine.sqlite.store.plans import (
    AppendPlan,
    ClaimPlan,
    OfferPlan,
    ReservePlan,
    SettlePlan,
    note_plan,
)
from backlane.engine.sqlite.store.presence import Presence as OwnerLock
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.engine.sqlite.upkeep import amend as amending
from backlane.engine.sqlite.upkeep import measure, sweep, tune, workers
from backlane.errors import BadOption
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import Clock, SystemClock
from backlane.model.job import Job, Note, Receipt, Refusal, State, Step
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Settlement
from backlane.model.queue import Kind, QueueRecord

T = TypeVar("T")


class SqliteEngine:
    """Keeps jobs in a SQLite file, shared by all processes of one machine.

    Args:
        path: the file; made when it is first needed.
        durability: `"full"` survives power loss; `"normal"` may lose the last commits
            when the power fails, and is faster where jobs come one by one.
        may_be_remote: allow a network file system, at your own risk.
        vfs: the name of an apsw VFS to use, for tests.
        boot_id: what tells two starts of the machine apart, for tests.
    """

    capabilities = frozenset(Capability)

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        durability: str = "full",
        may_be_remote: bool = False,
        vfs: str | None = None,
        boot_id: Callable[[], str] = read_boot_id,
    ) -> None:
        if durability not in DURABILITIES:
            raise BadOption(f"durability is {durability!r}; use 'full' or 'normal'")
        option = "" if durability == "full" else f"?durability={durability}"
        self.url = f"sqlite:///{path}{option}"
        self._clock = clock or SystemClock()
        self._database = Database(Path(path).absolute(), durability, may_be_remote, vfs)
        self._process = Process(lambda: Handles(self._database, self._clock, boot_id))

    # -- verbs --

    def append(self, jobs: Sequence[Job], admission: Admission) -> Plan[list[Receipt] | Refusal]:
        """See `Verbs.append`."""
        batch = (jobs, admission)

        async def within(tx: SqliteTx) -> list[Receipt] | Refusal:
            return (await append_all(tx, self._clock, [batch]))[0]

        return AppendPlan(within, batch)

    @plan
    async def claim(self, tx: SqliteTx, wanted: Wanted) -> Claimed:
        moves = Moves(self._clock)
        claimed = await claiming.claim(tx, self._clock, wanted, moves)
        await moves.store_counts(tx)
        return claimed

    @plan
    async def extend(
        self, tx: SqliteTx, leases: Sequence[tuple[bytes, int]], by_ms: int
    ) -> Extended:
        return await hold.extend(tx, self._clock, leases, by_ms)

    def settle(self, settlements: Sequence[Settlement]) -> Plan[Settled]:
        """See `Verbs.settle`."""
        return SettlePlan(
            lambda tx: settling.settle(tx, self._clock, settlements), settlements, self.settle
        )

    def turn(self, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Plan[Turn]:
        """See `Verbs.turn`."""

        async def within(tx: SqliteTx) -> Turn:
            moves = Moves(self._clock)
            settled = await settling.settle_into(tx, self._clock, settlements, moves)
            claimed = [await claiming.claim(tx, self._clock, one, moves) for one in wanted]
            await moves.store_counts(tx)
            return Turn(settled, claimed)

        if not settlements and all(one.kind is Kind.TASKS for one in wanted):
            return ClaimPlan(within)
        claims = self.turn((), wanted) if settlements else None
        return SettlePlan(within, settlements, self.settle, claims)

    def note(self, notes: Sequence[Note]) -> Plan[list[bytes]]:
        """See `Verbs.note`."""
        return note_plan(notes, lambda tx: hold.note(tx, notes))

    @reading
    async def recall(self, tx: SqliteTx, job: bytes) -> list[Step]:
        return await steps.recall(tx, job)

    @reading
    async def results(self, tx: SqliteTx, jobs: Sequence[bytes]) -> list[Resulted]:
        return await steps.results(tx, jobs)

    @reading
    async def latest(self, tx: SqliteTx, task: str) -> Latest | None:
        return await steps.latest(tx, task)

    @plan
    async def amend(
        self, tx: SqliteTx, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Amended:
        return await amending.amend(tx, self._clock, selection, change, cursor)

    @reading
    async def find(
        self,
        tx: SqliteTx,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Page:
        return await finding.find(tx, selection, limit, cursor, brief=brief)

    @reading
    async def list_schedules(self, tx: SqliteTx, *, due: bool = False) -> Timetable:
        return await schedules.list_schedules(tx, self._clock, due=due)

    @plan
    async def alter_schedule(
        self, tx: SqliteTx, name: str, change: Put | Pause | Resume | Remove
    ) -> ScheduleRecord | None:
        return await schedules.alter(tx, self._clock, name, change)

    @plan
    async def tick(self, tx: SqliteTx, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:
        return await schedules.tick(tx, self._clock, ticks, admission)

    @reading
    async def list_queues(self, tx: SqliteTx) -> list[QueueRecord]:
        return await tune.list_queues(tx, self._clock)

    @reading
    async def measure(self, tx: SqliteTx, queues: Sequence[str]) -> Measured:
        return await measure.measure(tx, self._clock, queues)

    def reserve(self, queue: str, after_ms: int, spacing_us: int, number: int) -> Plan[int]:
        """See `Verbs.reserve`."""
        slots = (queue, after_ms, spacing_us, number)
        return ReservePlan(lambda tx: measure.reserve(tx, self._clock, *slots))

    @reading
    async def list_workers(self, tx: SqliteTx) -> list[WorkerRecord]:
        return await workers.list_workers(tx, self._clock)

    @reading
    async def list_resources(self, tx: SqliteTx) -> list[ResourceRecord]:
        return await resources.list_resources(tx, self._clock)

    @plan
    async def steer(
        self, tx: SqliteTx, resource: str, change: Open | Close
    ) -> ResourceRecord | None:
        return await resources.steer(tx, self._clock, resource, change)

    @plan
    async def sweep(self, tx: SqliteTx, limit: int, retention: Retention) -> Swept:
        return await sweep.sweep(tx, self._clock, limit, retention)

    @plan
    async def tune(self, tx: SqliteTx, queue: str, change: Declare | Tune) -> QueueRecord | None:
        return await tune.tune(tx, self._clock, queue, change)

    @plan
    async def announce(self, tx: SqliteTx, presence: Presence) -> None:
        await workers.announce(tx, self._clock, presence)

    # -- limits --

    @reading
    async def list_limits(self, tx: SqliteTx) -> list[LimitRecord]:
        return await limiting.list_limits(tx, self._clock)

    @plan
    async def regulate(
        self, tx: SqliteTx, name: str, change: Declared | Tuned
    ) -> LimitRecord | None:
        return await limiting.regulate(tx, self._clock, name, change)

    @plan
    async def acquire(
        self, tx: SqliteTx, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Acquired:
        return await limiting.acquire(tx, self._clock, use, declared, holder, lease_ms)

    @plan
    async def release(self, tx: SqliteTx, use: Use, holder: bytes) -> bool:
        return await limiting.release(tx, self._clock, use, holder)

    # -- offers --

    def offer(self, offers: Sequence[Offer], for_ms: int) -> Plan[Offered]:
        """See `Offering.offer`."""
        return OfferPlan(lambda tx: offering.offer(tx, self._clock, offers, for_ms))

    def withdraw(self, jobs: Sequence[bytes]) -> Plan[None]:
        """See `Offering.withdraw`."""
        return OfferPlan(lambda tx: offering.withdraw(tx, jobs))

    # -- moving --

    @plan
    async def seal(self, tx: SqliteTx, seal: Seal | None) -> Seal | None:
        return await sealing.seal(tx, self._clock, seal)

    @reading
    async def sealed(self, tx: SqliteTx) -> Seal | None:
        return await sealing.sealed(tx)

    @reading
    async def dump(
        self,
        tx: SqliteTx,
        limit: int = 1_000,
        cursor: bytes | None = None,
        *,
        final: Sequence[State] = (),
    ) -> Part:
        return await dumping.dump(tx, limit, cursor, final)

    @plan
    async def discard(self, tx: SqliteTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return await dumping.discard(tx, jobs)

    @plan
    async def restore(self, tx: SqliteTx, part: Part, move: bytes = b"") -> list[bytes]:
        return await restoring.restore(tx, self._clock, part, move)

    @reading
    async def dump_settings(self, tx: SqliteTx) -> Settings:
        return await dumping.dump_settings(tx, self._clock)

    @plan
    async def restore_settings(self, tx: SqliteTx, settings: Settings) -> None:
        await restoring.restore_settings(tx, settings)

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out and return its value, durable once this returns."""
        while True:
            handles = self._process.handles()
            try:
                return handles.reader.run(plan) if plan.reads else handles.writer.run(plan)
            except Retired:
                continue  # closed by another thread meanwhile: the next use opens anew

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""
        while True:
            handles = self._process.handles()
            try:
                return await (
                    handles.reader.arun(plan) if plan.reads else handles.writer.arun(plan)
                )
            except Retired:
                continue

    def joined(self, connection: object) -> joining.JoinedTransaction:
        """Join the caller's open transaction.

        Raises:
            WrongUse: the connection is not an apsw one on this file, in a transaction.
        """
        path = self._database.path
        own = joining.checked(connection, path)
        return self._process.handles().joins.join(own)

    def transaction(self, connection: object | None = None) -> blocks.Block:
        """Return a transaction, not begun yet: on an apsw connection of the caller's, or ours.

        Raises:
            WrongUse: the connection is not an apsw one on this file.
        """
        return blocks.block(self._process.handles(), self._database, connection)

    # -- wake-ups and owners --

    def listen(self, queues: Sequence[str]) -> Bell:
        """Ring when one of these queues may have something to claim or to cancel."""
        return self._process.opened().belfry.listen(queues)

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> Bell:
        """Ring when one of these jobs may have changed, or with `starts` was taken."""
        return self._process.opened().belfry.watch(jobs, starts=starts)

    async def departed(self) -> tuple[str, ...]:
        """Return owners of leases whose file nobody keeps locked any more."""
        return self._process.opened().departed()

    def enlist(self, owner: str) -> OwnerLock:
        """Show a sign of life that ends with the last process that holds its descriptor."""
        return self._process.opened().roll.enlist(owner)

    # -- the store --

    def migrate(self) -> list[str]:
        """Bring the schema up to date, as every first use does; return what was applied."""
        store = self._process.opened().store
        applied, store.migrated = store.migrated, []
        return applied

    def script(self) -> str:
        """Return the SQL that makes the tables; opening the file runs it."""
        return migrations.script()

    def diagnose(self) -> list[Finding]:
        """Look for settings and states that lose jobs or time."""
        return diagnose(self._database, self._process.handles())

    def close(self) -> None:
        """Wait for what has begun, then let go of the file. The next use opens anew."""
        self._process.close()
