"""The bare engine itself: verbs over a core, which lives in the thread of the broker's loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from backlane.engine.bare import dead, ending, receiving, sending
from backlane.engine.bare.core import Core
from backlane.engine.bare.standing import queue_record, sample
from backlane.engine.capability import Capability, needs_ledger
from backlane.engine.moving import Seal
from backlane.engine.plan import Plan, finish, plan, reading
from backlane.engine.protocol import (
    Admission,
    Claimed,
    Declare,
    Extended,
    Finding,
    Measured,
    Presence,
    Settled,
    Tune,
    Turn,
    Wanted,
)
from backlane.engine.retention import Retention, Swept
from backlane.engine.scheduling import (
    Tick,
    Ticked,
    Timetable,
)
from backlane.engine.transport import Transport
from backlane.engine.transports import loop
from backlane.engine.transports.bell import ArrivalBell, Belfry
from backlane.engine.transports.name import PREFIX
from backlane.model.clock import Clock, SystemClock
from backlane.model.job import Job, Lane, Note, Receipt, Refusal
from backlane.model.outcome import Settlement
from backlane.model.queue import Bounds, QueueRecord

T = TypeVar("T")

CLOSE_SECONDS = 5.0


def _lacking(what: str) -> Callable[..., NoReturn]:
    """Return a verb that refuses, naming the ledger that would have it."""

    def verb(self: Bare, *_: object, **__: object) -> NoReturn:
        raise needs_ledger(what, self.url)

    return verb


class Bare:
    """Keeps jobs at a broker, and nowhere else.

    Args:
        transport: what carries them; one that no other engine uses.
        clock: where the times in letters come from.
        url: what it says it was opened by: without a password.
        prefix: what the broker's queues are called with.
    """

    capabilities: frozenset[Capability] = frozenset()

    def __init__(
        self,
        transport: Transport,
        clock: Clock | None = None,
        *,
        url: str | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self.url = transport.url if url is None else url
        self._transport, self._clock, self._prefix = transport, clock or SystemClock(), prefix
        self.longest_ms = transport.terms.longest_ms
        self._belfry = Belfry()
        self._known: dict[str, Bounds] = {}
        self._secret = secrets.token_bytes(32)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._background: loop.Background | None = None
        self._core: Core | None = None

    def know(self, queues: Mapping[str, Bounds]) -> None:
        """Learn which queues there are, where nothing was enqueued to them in this process."""
        self._known |= queues

    # -- verbs --

    @plan
    async def append(
        self, tx: Core, jobs: Sequence[Job], admission: Admission
    ) -> list[Receipt] | Refusal:
        return await sending.append(tx, jobs, admission, self.url)

    @plan
    async def claim(self, tx: Core, wanted: Wanted) -> Claimed:
        return await receiving.claim(tx, wanted)

    @plan
    async def extend(self, tx: Core, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
        return await ending.extend(tx, leases, by_ms)

    @plan
    async def settle(self, tx: Core, settlements: Sequence[Settlement]) -> Settled:
        return await ending.settle(tx, settlements)

    @plan
    async def turn(
        self, tx: Core, settlements: Sequence[Settlement], wanted: Sequence[Wanted]
    ) -> Turn:
        settled = await ending.settle(tx, settlements, awaited=False)
        return Turn(settled, [await receiving.claim(tx, one) for one in wanted])

    @reading
    async def note(self, tx: Core, notes: Sequence[Note]) -> list[bytes]:  # noqa: ARG002
        """Keep nothing: nobody could read progress. Steps are refused where they begin."""
        return []

    @plan
    async def tune(self, tx: Core, queue: str, change: Declare | Tune) -> QueueRecord | None:
        if not isinstance(change, Declare):
            raise needs_ledger("pausing or tuning a queue", self.url)
        tx.bounds[queue] = change.bounds
        await tx.has(queue, Lane.SHARED)
        return None

    @plan
    async def list_queues(self, tx: Core) -> list[QueueRecord]:
        """Return the queues that this process has to do with; a broker tells of none."""
        if not tx.bounds:
            raise needs_ledger("listing queues that no application (--app) names", self.url)
        return [await queue_record(tx, name) for name in sorted(tx.bounds)]

    @reading
    async def measure(self, tx: Core, queues: Sequence[str]) -> Measured:
        return Measured([sample(tx, name) for name in queues if name in tx.bounds], self._secret)

    @reading
    async def reserve(self, tx: Core, queue: str, after_ms: int, *_: int) -> int:  # noqa: ARG002
        """No clock is shared: each process spreads those it refused by itself."""
        return after_ms

    @plan
    async def announce(self, tx: Core, presence: Presence) -> None:
        if presence.leaving:
            await tx.give_back(presence.queues)

    @reading
    async def sweep(self, tx: Core, limit: int, retention: Retention) -> Swept:  # noqa: ARG002
        return Swept()

    @reading
    async def tick(self, tx: Core, ticks: Sequence[Tick], admission: Admission) -> list[Ticked]:  # noqa: ARG002
        if ticks:
            raise needs_ledger("a schedule", self.url)
        return []

    @reading
    async def list_schedules(self, tx: Core, *, due: bool = False) -> Timetable:
        if not due:
            raise needs_ledger("a schedule", self.url)
        return Timetable(tx.clock.wall_ms())

    @reading
    async def sealed(self, tx: Core) -> Seal | None:  # noqa: ARG002
        return None

    # -- dead letters --

    @plan
    async def list_dead(self, tx: Core, queue: str, number: int) -> list[dead.Dead]:
        """Look at up to so many dead letters of a queue; see `dead.list_dead`."""
        return await dead.list_dead(tx, queue, number)

    @plan
    async def redrive_dead(self, tx: Core, queue: str, number: int) -> int:
        """Send up to so many dead letters of a queue back to it; see `dead.redrive_dead`."""
        return await dead.redrive_dead(tx, queue, number)

    # -- what needs a ledger --

    find = _lacking("looking at jobs (state, result, search)")
    watch = _lacking("waiting for a job (result, events)")
    amend = _lacking("changing jobs (cancel, redrive, delete)")
    recall = _lacking("a step of a job")
    results = _lacking("results of jobs")
    latest = _lacking("the latest result of a task")
    alter_schedule = _lacking("a schedule")
    list_workers = _lacking("a list of workers")
    list_resources = steer = _lacking("a resource")
    list_limits = regulate = acquire = release = _lacking("a limit")
    joined = _lacking("connection= (an enqueue within your transaction)")
    transaction = _lacking("context.transaction()")
    seal = dump = discard = dump_settings = _lacking("moving jobs to another store")
    restore = restore_settings = _lacking("moving jobs here")

    # -- running them --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out, in the thread of the broker's loop."""
        background, core = self._opened()
        if plan.reads:
            return finish(plan.within(core))
        return background.run(plan.within(core))

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`. Cancelling the caller does not cancel what has begun."""
        background, core = self._opened()
        if plan.reads:
            return finish(plan.within(core))
        if background.is_here:
            return await asyncio.shield(asyncio.ensure_future(plan.within(core)))
        return await asyncio.shield(asyncio.wrap_future(background.start(plan.within(core))))

    def _opened(self) -> tuple[loop.Background, Core]:
        if self._pid != os.getpid():
            self._begin_anew()
        background, core = self._background, self._core
        if background is not None and core is not None and background.is_own:
            return background, core
        with self._lock:
            background, core = self._background, self._core
            if background is None or core is None or not background.is_own:
                background = self._background = loop.enter()
                core = Core(self._transport, self._clock, self._prefix, self._belfry)
                core.bounds |= self._known
                self._core = core
            return background, core

    # -- wake-ups, owners, and the broker --

    def listen(self, queues: Sequence[str]) -> ArrivalBell:
        bell = ArrivalBell(queues, self._belfry.take_down)
        self._belfry.hang(bell)
        return bell

    async def departed(self) -> tuple[str, ...]:
        """Nobody: what a dead worker had in its hands, the broker shows again by itself."""
        return ()

    def enlist(self, owner: str) -> BareEnlisted:  # noqa: ARG002
        return BareEnlisted()

    def migrate(self) -> list[str]:
        return []

    def script(self) -> str:
        return ""

    def diagnose(self) -> list[Finding]:
        """Say how the broker is, and what is not there without a ledger."""
        background, core = self._opened()
        names = {core.name(queue): queue for queue in core.bounds}
        told = background.run(
            core.transport.diagnose({name: core.asked(it, name) for name, it in names.items()})
        )
        return [
            *told,
            Finding(
                subject="ledger",
                state="warning",
                text="there is none: no results, keys, limits, schedules, workflows or control, "
                "and a job may run twice",
                remedy=f"write {self.url}{'&' if '?' in self.url else '?'}ledger=postgresql://…",
            ),
        ]

    def close(self) -> None:
        """Give back what is here, and let go of the broker. The next use opens anew."""
        if self._pid != os.getpid():
            return
        with self._lock:
            background, core = self._background, self._core
            self._background = self._core = None
        if background is not None and core is not None and background.is_own:
            try:
                _bounded(background, core)
            finally:
                loop.leave(background)


def _bounded(background: loop.Background, core: Core) -> Any:
    """Close within a bounded time: a broker that does not answer must not keep a process."""
    try:
        return background.run(core.close(), CLOSE_SECONDS)
    except TimeoutError:
        return None


class BareEnlisted:
    """A sign of life: the connection itself is one."""

    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Nothing to take down."""
