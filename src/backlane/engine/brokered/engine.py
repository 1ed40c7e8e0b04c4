"""The brokered engine: the ledger's verbs, and a transport that brings jobs to workers.

An append is the ledger's alone, and its commit is the acknowledgement. A relay publishes
the ids of a few ready jobs, the window; a claim is one of those whose message has arrived.
So nothing that a broker loses, doubles, delays or refuses changes what becomes of a job.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import TypeVar, cast

from backlane.engine.brokered.depot import Depot
from backlane.engine.brokered.errand import Errand, Step
from backlane.engine.brokered.examination import examine
from backlane.engine.brokered.joined import PlainJoined, PlainTransaction
from backlane.engine.brokered.pace import Extent
from backlane.engine.brokered.patience import Patience
from backlane.engine.brokered.taking import Taking
from backlane.engine.hearing import Bell, Enlisted, Watch
from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.moving import Part, Seal, Settings
from backlane.engine.offering import Ledger
from backlane.engine.plan import Plan
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
from backlane.engine.transport import Transport
from backlane.engine.transports.bell import ArrivalBell
from backlane.engine.transports.name import PREFIX, physical
from backlane.errors import BacklaneError
from backlane.model.breaker import ResourceRecord
from backlane.model.job import Job, Note, Receipt, Refusal, State
from backlane.model.job import Step as JobStep
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import Settlement
from backlane.model.queue import Kind, QueueRecord

T = TypeVar("T")

ARRIVAL_SECONDS = 0.5  # that a message takes at most which is ready, from a broker that is well


class Brokered:
    """A broker before a ledger.

    Args:
        transport: what carries messages.
        ledger: the engine that has the jobs.
        prefix: what queues at the broker are called by first.
        url: what it says it was opened by, without passwords.
        patience: how long it waits for what.
        extent: how many messages are where.
    """

    def __init__(
        self,
        transport: Transport,
        ledger: Ledger,
        *,
        prefix: str = PREFIX,
        url: str | None = None,
        patience: Patience | None = None,
        extent: Extent | None = None,
    ) -> None:
        self.transport, self.ledger = transport, ledger
        mark = "&" if "?" in transport.url else "?"
        self.url = url or f"{transport.url}{mark}ledger={ledger.url}"
        self.capabilities: frozenset[Capability] = ledger.capabilities
        self._terms = prefix, patience or Patience(), extent or Extent()
        self._depot: Depot | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def depot(self) -> Depot:
        """What this process has of the transport, begun anew after a fork or a close."""
        depot = self._depot
        if depot is not None and depot.is_own:
            return depot
        if self._pid != os.getpid():  # another thread of the parent may have held the lock
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._depot is None or not self._depot.is_own:
                self._depot = Depot(self.transport, self.ledger, *self._terms)
            return self._depot

    # -- what the transport has to do with --

    def append(self, jobs: Sequence[Job], admission: Admission) -> Plan[list[Receipt] | Refusal]:
        """See `Verbs.append`. The relay is told once it has committed."""
        own = self.ledger.append(jobs, admission)

        def end(answer: list[Receipt] | Refusal) -> list[Receipt] | Refusal:
            if isinstance(answer, list):
                ways = {(job.queue, job.lane) for job in jobs}
                self.depot.appended(ways, admission.kind)
            return answer

        return Errand(own, lambda: Step(own, end, _nothing))

    def claim(self, wanted: Wanted) -> Plan[Claimed]:
        """See `Verbs.claim`: of what has arrived."""

        def begin() -> Step[Claimed]:
            taking = Taking(self.depot, [wanted])
            own = self.ledger.claim(taking.wanted[0])
            return Step(own, lambda claimed: taking.end([claimed])[0], taking.undo)

        # A worker claims again when it is rung; who asks for messages may ask but once.
        waits = wanted.kind is Kind.MESSAGES and wanted.number > 0 and not wanted.ids
        return Errand(self.ledger.claim(wanted), begin, wanted if waits else None)

    def turn(self, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Plan[Turn]:
        """See `Verbs.turn`: of what has arrived."""

        def begin() -> Step[Turn]:
            taking = Taking(self.depot, wanted)
            own = self.ledger.turn(settlements, taking.wanted)
            return Step(own, lambda turn: Turn(turn.settled, taking.end(turn.claimed)), taking.undo)

        return Errand(self.ledger.turn(settlements, wanted), begin)

    def tick(self, ticks: Sequence[Tick], admission: Admission) -> Plan[list[Ticked]]:
        """See `Verbs.tick`. The relay is told once it has committed."""
        own = self.ledger.tick(ticks, admission)

        def end(ticked: list[Ticked]) -> list[Ticked]:
            ways = {(job.queue, job.lane) for tick in ticks for job in tick.jobs}
            self.depot.appended(ways, admission.kind)
            return ticked

        return Errand(own, lambda: Step(own, end, _nothing))

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out and return its value, durable once this returns."""
        if not isinstance(plan, Errand):
            return self.ledger.run(plan)
        if plan.wanted is not None and not self.depot.has_arrived(plan.wanted):
            with contextlib.closing(self.depot.arrivals(plan.wanted)) as bell:
                if _has_ready(self.ledger.run(self.ledger.measure(plan.wanted.queues))):
                    bell.heard(ARRIVAL_SECONDS)
        step = cast("Step[T]", plan.begin())
        try:
            value = self.ledger.run(step.plan)
        except BaseException:
            step.undo()
            raise
        return step.end(value)

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""
        if not isinstance(plan, Errand):
            return await self.ledger.arun(plan)
        if plan.wanted is not None and not self.depot.has_arrived(plan.wanted):
            with contextlib.closing(self.depot.arrivals(plan.wanted)) as bell:
                if _has_ready(await self.ledger.arun(self.ledger.measure(plan.wanted.queues))):
                    await bell.aheard(ARRIVAL_SECONDS)
        step = cast("Step[T]", plan.begin())
        try:
            value = await self.ledger.arun(step.plan)
        except BaseException:
            step.undo()
            raise
        return step.end(value)

    def joined(self, connection: object) -> PlainJoined:
        """Join the caller's open transaction, if the ledger can.

        Raises:
            WrongUse: the connection is not one the ledger can join; says why and which is.
        """
        return PlainJoined(self.ledger.joined(connection))

    def transaction(self, connection: object | None = None) -> PlainTransaction:
        """Return a transaction of the ledger's, not begun yet.

        Raises:
            WrongUse: the connection is not one the ledger can join; says why and which is.
            NotSupported: the ledger joins none, or has none to give.
        """
        return PlainTransaction(self.ledger.transaction(connection), self._look)

    def _look(self) -> None:
        """Something may have been appended in a transaction of ours."""
        self.depot.look()

    # -- wake-ups --

    def listen(self, queues: Sequence[str]) -> Bell | ArrivalBell:
        """Ring when messages arrive for one of these queues, or something is to be cancelled."""
        return self.depot.listen(queues) if queues else self.ledger.listen(queues)

    def diagnose(self) -> list[Finding]:
        """Say what the ledger says, then what the broker says, then how the two get along."""
        told = self.ledger.diagnose()
        names: list[str] = []
        with contextlib.suppress(BacklaneError):  # the ledger is away: it has said so
            records = self.ledger.run(self.ledger.list_queues())
            names = [physical(self._terms[0], it.name) for it in records]
        return [*told, *examine(self.depot, self.transport, names)]

    def close(self) -> None:
        """Publish no more, give back what was received, then let go of broker and ledger."""
        depot, self._depot = self._depot, None
        if depot is not None:
            depot.close()
        self.ledger.close()

    # -- what is the ledger's alone --

    def extend(self, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Plan[Extended]:
        return self.ledger.extend(leases, by_ms)

    def settle(self, settlements: Sequence[Settlement]) -> Plan[Settled]:
        return self.ledger.settle(settlements)

    def note(self, notes: Sequence[Note]) -> Plan[list[bytes]]:
        return self.ledger.note(notes)

    def amend(
        self, selection: Selection, change: Change, cursor: bytes | None = None
    ) -> Plan[Amended]:
        return self.ledger.amend(selection, change, cursor)

    def find(
        self,
        selection: Selection,
        limit: int = 100,
        cursor: bytes | None = None,
        *,
        brief: bool = False,
    ) -> Plan[Page]:
        return self.ledger.find(selection, limit, cursor, brief=brief)

    def recall(self, job: bytes) -> Plan[list[JobStep]]:
        return self.ledger.recall(job)

    def results(self, jobs: Sequence[bytes]) -> Plan[list[Resulted]]:
        return self.ledger.results(jobs)

    def latest(self, task: str) -> Plan[Latest | None]:
        return self.ledger.latest(task)

    def list_schedules(self, *, due: bool = False) -> Plan[Timetable]:
        return self.ledger.list_schedules(due=due)

    def alter_schedule(
        self, name: str, change: Put | Pause | Resume | Remove
    ) -> Plan[ScheduleRecord | None]:
        return self.ledger.alter_schedule(name, change)

    def list_queues(self) -> Plan[list[QueueRecord]]:
        return self.ledger.list_queues()

    def measure(self, queues: Sequence[str]) -> Plan[Measured]:
        return self.ledger.measure(queues)

    def reserve(self, queue: str, after_ms: int, spacing_us: int, number: int) -> Plan[int]:
        return self.ledger.reserve(queue, after_ms, spacing_us, number)

    def list_resources(self) -> Plan[list[ResourceRecord]]:
        return self.ledger.list_resources()

    def steer(self, resource: str, change: Open | Close) -> Plan[ResourceRecord | None]:
        return self.ledger.steer(resource, change)

    def list_workers(self) -> Plan[list[WorkerRecord]]:
        return self.ledger.list_workers()

    def sweep(self, limit: int, retention: Retention) -> Plan[Swept]:
        return self.ledger.sweep(limit, retention)

    def tune(self, queue: str, change: Declare | Tune) -> Plan[QueueRecord | None]:
        return self.ledger.tune(queue, change)

    def announce(self, presence: Presence) -> Plan[None]:
        return self.ledger.announce(presence)

    def list_limits(self) -> Plan[list[LimitRecord]]:
        return self.ledger.list_limits()

    def regulate(self, name: str, change: Declared | Tuned) -> Plan[LimitRecord | None]:
        return self.ledger.regulate(name, change)

    def acquire(
        self, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Plan[Acquired]:
        return self.ledger.acquire(use, declared, holder, lease_ms)

    def release(self, use: Use, holder: bytes) -> Plan[bool]:
        return self.ledger.release(use, holder)

    def seal(self, seal: Seal | None) -> Plan[Seal | None]:
        return self.ledger.seal(seal)

    def sealed(self) -> Plan[Seal | None]:
        return self.ledger.sealed()

    def dump(
        self, limit: int = 1_000, cursor: bytes | None = None, *, final: Sequence[State] = ()
    ) -> Plan[Part]:
        return self.ledger.dump(limit, cursor, final=final)

    def discard(self, jobs: Sequence[tuple[bytes, int]]) -> Plan[list[bytes]]:
        return self.ledger.discard(jobs)

    def restore(self, part: Part, move: bytes = b"") -> Plan[list[bytes]]:
        return self.ledger.restore(part, move)

    def dump_settings(self) -> Plan[Settings]:
        return self.ledger.dump_settings()

    def restore_settings(self, settings: Settings) -> Plan[None]:
        return self.ledger.restore_settings(settings)

    def watch(self, jobs: Sequence[bytes], *, starts: bool = False) -> Watch:
        return self.ledger.watch(jobs, starts=starts)

    async def departed(self) -> tuple[str, ...]:
        return await self.ledger.departed()

    def enlist(self, owner: str) -> Enlisted:
        return self.ledger.enlist(owner)

    def migrate(self) -> list[str]:
        return self.ledger.migrate()

    def script(self) -> str:
        return self.ledger.script()


def _has_ready(measured: Measured) -> bool:
    """Whether something may be on its way."""
    return any(it.oldest_ready_ms is not None and not it.is_paused for it in measured.queues)


def _nothing() -> None:
    """An append took nothing that could be put back."""
