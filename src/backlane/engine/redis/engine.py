"""The Redis and Valkey engine itself: verbs as plans, a driver and bells for each process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from backlane.engine.address import shown
from backlane.engine.hearing import Enlisted
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
from backlane.engine.redis.append import append as appending
from backlane.engine.redis.append import schedules
from backlane.engine.redis.bells.belfry import Belfry
from backlane.engine.redis.bells.bell import Bell
from backlane.engine.redis.doctor import diagnose as diagnosing
from backlane.engine.redis.driver.driver import Driver
from backlane.engine.redis.lease import claim as claiming
from backlane.engine.redis.lease import hold
from backlane.engine.redis.lease import offers as offering
from backlane.engine.redis.lease import settle as settling
from backlane.engine.redis.limits import limits
from backlane.engine.redis.limits import resource as resources
from backlane.engine.redis.moving import dump as dumping
from backlane.engine.redis.moving import restore as restoring
from backlane.engine.redis.record import find as finding
from backlane.engine.redis.record import latest as newest
from backlane.engine.redis.store import seal as sealing
from backlane.engine.redis.store.address import parse
from backlane.engine.redis.store.durability import Durability
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.redis.upkeep import amend as amending
from backlane.engine.redis.upkeep import queues as lines
from backlane.engine.redis.upkeep import sweep as sweeping
from backlane.engine.redis.upkeep import workers
from backlane.engine.redis.upkeep.workers import RedisEnlisted
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
from backlane.errors import NotSupported, WrongUse
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import Clock, SystemClock
from backlane.model.job import Job, Note, Receipt, Refusal, State, Step
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Settlement
from backlane.model.queue import QueueRecord

T = TypeVar("T")


class RedisEngine:
    """Keeps jobs in a Redis or Valkey server, shared by all who can connect to it.

    Args:
        url: `redis://host:6379/0?namespace=…`; see `address` for the others.
        clock: a `SystemClock` (the standard) means the server's own time.
    """

    capabilities = frozenset(Capability) - {Capability.JOINS, Capability.EMBEDDED}

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        address = parse(url)
        self.url = shown(url)
        self._driver = Driver(address, clock or SystemClock())
        self._belfry = Belfry(self._driver.open, address.prefix.encode())

    @property
    def durability(self) -> Durability:
        """What the server was found to promise; it is asked if it was not yet."""
        return self._driver.durability or self._driver.look()

    # -- verbs --

    @plan
    async def append(
        self, tx: RedisTx, jobs: Sequence[Job], admission: Admission
    ) -> list[Receipt] | Refusal:
        return await appending.append(tx, jobs, admission)

    @plan
    async def claim(self, tx: RedisTx, wanted: Wanted) -> Claimed:
        return await claiming.claim(tx, wanted)

    @plan
    async def extend(
        self, tx: RedisTx, leases: Sequence[tuple[bytes, int]], by_ms: int
    ) -> Extended:
        return await hold.extend(tx, leases, by_ms)

    @plan
    async def settle(self, tx: RedisTx, settlements: Sequence[Settlement]) -> Settled:
        return await settling.settle(tx, settlements)

    @plan
    async def turn(
        self, tx: RedisTx, settlements: Sequence[Settlement], wanted: Sequence[Wanted]
    ) -> Turn:
        return await settling.turn(tx, settlements, wanted)

    @plan
    async def note(self, tx: RedisTx, notes: Sequence[Note]) -> list[bytes]:
        return await hold.note(tx, notes)

    @plan
    async def amend(
        self, tx: RedisTx, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Amended:
        return await amending.amend(tx, selection, change, cursor)

    @reading
    async def find(
        self,
        tx: RedisTx,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Page:
        return await finding.find(tx, selection, limit, cursor, brief=brief)

    @reading
    async def list_schedules(self, tx: RedisTx, *, due: bool = False) -> Timetable:
        return await schedules.list_schedules(tx, due=due)

    @plan
    async def alter_schedule(
        self, tx: RedisTx, name: str, change: Put | Pause | Resume | Remove
    ) -> ScheduleRecord | None:
        return await schedules.alter_schedule(tx, name, change)

    @plan
    async def tick(self, tx: RedisTx, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:
        return await schedules.tick(tx, ticks, admission)

    @reading
    async def recall(self, tx: RedisTx, job: bytes) -> list[Step]:
        return await hold.recall(tx, job)

    @reading
    async def results(self, tx: RedisTx, jobs: Sequence[bytes]) -> list[Resulted]:
        return await newest.results(tx, jobs)

    @reading
    async def latest(self, tx: RedisTx, task: str) -> Latest | None:
        return await newest.latest(tx, task)

    @reading
    async def list_queues(self, tx: RedisTx) -> list[QueueRecord]:
        return await lines.list_queues(tx)

    @reading
    async def measure(self, tx: RedisTx, queues: Sequence[str]) -> Measured:
        return await lines.measure(tx, queues)

    @plan
    async def reserve(
        self, tx: RedisTx, queue: str, after_ms: int, spacing_us: int, number: int
    ) -> int:
        return await lines.reserve(tx, queue, after_ms, spacing_us, number)

    @plan
    async def tune(self, tx: RedisTx, queue: str, change: Declare | Tune) -> QueueRecord | None:
        return await lines.tune(tx, queue, change)

    @reading
    async def list_workers(self, tx: RedisTx) -> list[WorkerRecord]:
        return await workers.list_workers(tx)

    @plan
    async def announce(self, tx: RedisTx, presence: Presence) -> None:
        await workers.announce(tx, presence)

    @reading
    async def list_resources(self, tx: RedisTx) -> list[ResourceRecord]:
        return await resources.list_resources(tx)

    @plan
    async def steer(
        self, tx: RedisTx, resource: str, change: Open | Close
    ) -> ResourceRecord | None:
        return await resources.steer(tx, resource, change)

    @plan
    async def sweep(self, tx: RedisTx, limit: int, retention: Retention) -> Swept:
        return await sweeping.sweep(tx, limit, retention)

    # -- limits --

    @reading
    async def list_limits(self, tx: RedisTx) -> list[LimitRecord]:
        return await limits.list_limits(tx)

    @plan
    async def regulate(
        self, tx: RedisTx, name: str, change: Declared | Tuned
    ) -> LimitRecord | None:
        return await limits.regulate(tx, name, change)

    @plan
    async def acquire(
        self, tx: RedisTx, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Acquired:
        return await limits.acquire(tx, use, declared, holder, lease_ms)

    @plan
    async def release(self, tx: RedisTx, use: Use, holder: bytes) -> bool:
        return await limits.release(tx, use, holder)

    # -- offers --

    @plan
    async def offer(self, tx: RedisTx, offers: Sequence[Offer], for_ms: int) -> Offered:
        return await offering.offer(tx, offers, for_ms)

    @plan
    async def withdraw(self, tx: RedisTx, jobs: Sequence[bytes]) -> None:
        await offering.withdraw(tx, jobs)

    # -- moving --

    @plan
    async def seal(self, tx: RedisTx, seal: Seal | None) -> Seal | None:
        return await sealing.seal(tx, seal)

    @reading
    async def sealed(self, tx: RedisTx) -> Seal | None:
        return await sealing.sealed(tx)

    @reading
    async def dump(
        self,
        tx: RedisTx,
        limit: int = 1_000,
        cursor: bytes | None = None,
        *,
        final: Sequence[State] = (),
    ) -> Part:
        return await dumping.dump(tx, limit, cursor, final)

    @plan
    async def discard(self, tx: RedisTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return await dumping.discard(tx, jobs)

    @plan
    async def restore(self, tx: RedisTx, part: Part, move: bytes = b"") -> list[bytes]:
        return await restoring.restore(tx, part, move)

    @reading
    async def dump_settings(self, tx: RedisTx) -> Settings:
        return await dumping.dump_settings(tx)

    @plan
    async def restore_settings(self, tx: RedisTx, settings: Settings) -> None:
        await restoring.restore_settings(tx, settings)

    # -- wake-ups and owners --

    def listen(self, queues: Sequence[str]) -> Bell:
        """Ring when one of these queues may have something to claim or to cancel."""
        return self._belfry.listen(queues)

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> Bell:
        """Ring when one of these jobs may have changed."""
        return self._belfry.watch(jobs, starts=starts)

    async def departed(self) -> tuple[str, ...]:
        """Return owners of leases that said farewell: the leases of others end by time."""
        return await self.arun(self._departed())

    def enlist(self, owner: str) -> Enlisted:
        """Let an owner say farewell; without that its leases end by time."""
        return RedisEnlisted(owner, lambda owner: self.run(self._farewell(owner)))

    @reading
    async def _departed(self, tx: RedisTx) -> tuple[str, ...]:
        return await workers.departed(tx)

    @plan
    async def _farewell(self, tx: RedisTx, owner: str) -> None:
        await workers.farewell(tx, owner)

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out and return its value, as durable as `?durability=` says."""
        return self._driver.run(plan)

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""
        return await self._driver.arun(plan)

    def joined(self, connection: object) -> NoReturn:
        """Refuse: a server of this kind has no transactions that others could join.

        Raises:
            WrongUse: always.
        """
        raise WrongUse(
            f"the Redis engine cannot join {type(connection).__name__}: its jobs are in no "
            "database of yours; leave connection= out and enqueue after your commit, or use an "
            "engine on the database it belongs to"
        )

    def transaction(self, connection: object | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse, for the same reason.

        Raises:
            NotSupported: always.
        """
        raise NotSupported(
            "a Redis server has no transaction that a job's own writes and its completion could "
            "share; keep jobs in sqlite:///jobs.db or postgresql://, or make the effect safe to "
            "repeat"
        )

    # -- the store --

    def migrate(self) -> list[str]:
        """Nothing to do: keys come with their first use."""
        self._driver.look()
        return []

    def script(self) -> str:
        """Nothing: there are no tables."""
        return ""

    def diagnose(self) -> list[Finding]:
        """Look for settings and states of the server that lose jobs or time."""
        return diagnosing.diagnose(self._driver)

    def close(self) -> None:
        """Wait for what has begun, then let go of the server. The next use opens anew."""
        self._belfry.close()
        self._driver.close()
