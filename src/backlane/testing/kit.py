"""The kit: an application in a test, where nothing runs and no time passes by itself.

Jobs go into an empty store in memory. `drain` runs what is due, one job at a time,
through the worker's own pipeline; `advance` lets time pass and runs what falls due on
the way, each job at its own time. So a test decides when what happens.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from backlane.app import Backlane
from backlane.context import current
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Selection
from backlane.errors import BadOption, WrongUse
from backlane.handle import JobHandle
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import FakeClock
from backlane.model.event import JobBuried, ResourceChanged
from backlane.model.job import JobRecord, Lease
from backlane.model.outcome import Settlement
from backlane.task import Task
from backlane.testing.inline import LEASE_MS, Inline, Ran
from backlane.testing.sight import Sighting, call_text, is_call, listed, named, see
from backlane.testing.timetable import Timetable

START = datetime(2030, 1, 1, tzinfo=UTC)
OWNER = "testing"
DRAIN_LIMIT = 10_000  # attempts: beyond it a job that makes itself again would never end
SWEPT = 1_000
PAGE = 1_000
FOR_EVER = 2**62
# A worker prunes history; a test wants to look at all that it did.
KEEP_ALL = Retention(FOR_EVER, FOR_EVER, FOR_EVER, FOR_EVER)


class testing:  # noqa: N801 - reads as a verb; as a function pytest would take it for a test
    """Run a block with the application on an empty store in memory and a fake clock.

        with testing(app) as t: ...

    Works in plain and in async tests; what the application's own store holds is not
    touched. `start` is what the clock shows at first.

    .. versionadded:: 0.1
    """

    def __init__(self, app: Backlane, *, start: datetime = START) -> None:
        self._app, self._start = app, start
        self._block = ExitStack()

    def __enter__(self) -> Testing:
        kit = Testing(self._app, FakeClock(self._start))
        self._block.enter_context(self._app.replaced(kit.engine, kit.clock))
        self._block.callback(kit.close)
        kit.open()
        return kit

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.close()


class Testing:
    """What a test does with an application inside `with testing(app)`.

    .. versionadded:: 0.1
    """

    __test__ = False  # its name looks like a test class to pytest

    def __init__(self, app: Backlane, clock: FakeClock) -> None:
        self.app, self.clock = app, clock
        self.engine = MemoryEngine(
            clock, "memory://", before_wait=(self._before_queue_wait, self._before_job_wait)
        )
        self._thread = threading.get_ident()
        self._inline: Inline | None = None
        self._timetable: Timetable | None = None

    def open(self) -> None:
        """Make ready what runs jobs; `testing` calls it once the application is replaced."""
        self._inline = Inline(self.app, self.engine, self.clock)
        self._timetable = Timetable(self.app, self.engine)

    def close(self) -> None:
        """Let go of what ran jobs; `testing` calls it at the end of the block."""
        if self._inline is not None:
            self._inline.close()
            self._inline = None

    @property
    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC)

    # -- running jobs --

    def drain(self) -> list[Ran]:
        """Run what is due, and what comes of it, until nothing is; return what ran.

        Jobs run one after the other: by priority, then by the time they became due,
        then in the order they were enqueued. No time passes, unless a job waits on the
        clock. A job that fails does not raise here: it is retried or buried, as by a
        worker; look at `Ran.error` or ask its handle.

        Raises:
            WrongUse: called in a running event loop (use `adrain`) or inside a job; or
                10,000 attempts did not come to an end.
        """
        self._refuse_in_a_loop("drain")
        inline, ran = self._running_inline(), list[Ran]()
        self._tick()
        while lease := self._next_lease(len(ran)):
            ran.append(self._settled(lease, inline.run(lease)))
        return ran

    async def adrain(self) -> list[Ran]:
        """Like `drain`, in the running loop: other coroutines run meanwhile."""
        inline, ran = self._running_inline(), list[Ran]()
        self._tick()
        while lease := self._next_lease(len(ran)):
            ran.append(self._settled(lease, await inline.arun(lease)))
        return ran

    def advance(self, **duration: float) -> list[Ran]:
        """Let time pass: `advance(hours=3)`, with the keywords of `timedelta`.

        First runs what is due, then moves the clock from one due time to the next and
        runs at each what has become due, as a worker would have; returns what ran.
        Schedules, deadlines and ageing are seen to as well. History is not pruned.

        Raises:
            WrongUse: as `drain`.
            BadOption: the duration is negative.
        """
        until_ms = self._until(duration)
        ran = self.drain()
        while self._move_on(until_ms):
            ran += self.drain()
        return ran

    async def aadvance(self, **duration: float) -> list[Ran]:
        """Like `advance`, in the running loop."""
        until_ms = self._until(duration)
        ran = await self.adrain()
        while self._move_on(until_ms):
            ran += await self.adrain()
        return ran

    # -- looking at jobs --

    def jobs(self, task: Task[..., Any, Any] | None = None) -> list[Sighting]:
        """Return all jobs (of one task) in the order they were enqueued, in any state."""
        selection = Selection(task=None if task is None else task.name)
        records: list[JobRecord] = []
        cursor = None
        while True:
            page = self.engine.run(self.engine.find(selection, PAGE, cursor))
            ids = tuple(record.id for record in page.records if record.task is not None)
            if ids:
                whole = Selection(ids=ids)
                records += self.engine.run(self.engine.find(whole, PAGE)).records
            cursor = page.cursor
            if cursor is None:
                return [self._sighting(record) for record in reversed(records)]

    def assert_enqueued(self, task: Task[..., Any, Any], /, *args: Any, **kwargs: Any) -> Sighting:
        """Assert that this call was enqueued, and return its job (the newest, of many).

        Arguments that are left out may be anything; those given are compared with what
        the function gets, after encoding and decoding. It may have run already.
        """
        __tracebackhide__ = True
        wanted = named(task, args, kwargs)
        found = [one for one in self.jobs(task) if is_call(one, wanted)]
        if not found:
            raise AssertionError(
                f"no {call_text(task, wanted)} was enqueued; {listed(self.jobs())}"
            )
        return found[-1]

    def assert_not_enqueued(self, task: Task[..., Any, Any], /, *args: Any, **kwargs: Any) -> None:
        """Assert that no such call was enqueued; see `assert_enqueued`."""
        __tracebackhide__ = True
        wanted = named(task, args, kwargs)
        found = [one for one in self.jobs(task) if is_call(one, wanted)]
        if found:
            text = call_text(task, wanted)
            raise AssertionError(f"{text} was enqueued {_times(len(found))}; {listed(found)}")

    # -- steps of these --

    def _tick(self) -> int | None:
        """Apply the schedules that are due; return in how many milliseconds the next one is."""
        return None if self._timetable is None else self._timetable.tick()

    def _next_lease(self, ran: int) -> Lease | None:
        claimed = self.engine.run(self.engine.claim(self._wanted(1)))
        self._tell_turned(claimed.turned)
        leases = claimed.leases
        if leases and ran >= DRAIN_LIMIT:
            raise WrongUse(
                f"{DRAIN_LIMIT:,} attempts ran and {leases[0].task} is due again: a job that "
                "enqueues or retries itself without a delay never ends; give it one"
            )
        return leases[0] if leases else None

    def _wanted(self, number: int) -> Wanted:
        queues = tuple(self.app.queues)
        return Wanted(owner=OWNER, number=number, lease_ms=LEASE_MS, queues=queues, lane=None)

    def _settled(self, lease: Lease, settlement: Settlement) -> Ran:
        """Settle an attempt and tell the observers as a worker does."""
        settled = self.engine.run(self.engine.settle([settlement]))
        self._tell_turned(settled.turned)
        (record,) = self.engine.run(self.engine.find(Selection(ids=(lease.job,)))).records
        if settled.buried and record.reason and self.app.observers:
            job = uuid.UUID(bytes=lease.job)
            self.app.observers.tell(JobBuried(job, lease.task, lease.queue, record.reason.value))
        return Ran(
            job=self._handle(record),
            task=lease.task or "",
            attempt=lease.attempt + 1,
            outcome=type(settlement.outcome).__name__.lower(),
            state=record.state,
            error=getattr(settlement.outcome, "error", None),
        )

    def _tell_turned(self, resources: list[ResourceRecord]) -> None:
        for one in resources:
            self.app.observers.tell(ResourceChanged(one.name, one.state, one.reason))

    def _until(self, duration: dict[str, float]) -> int:
        passing = timedelta(**duration)
        if passing < timedelta(0):
            raise BadOption(f"time does not go back: advance was given {passing}")
        return self.clock.boot_ms() + passing // timedelta(milliseconds=1)

    def _move_on(self, until_ms: int) -> bool:
        """Move the clock to the next due time, or to the end; False when it is there."""
        left_ms = until_ms - self.clock.boot_ms()
        if left_ms <= 0:
            return False
        due_ms = self.engine.run(self.engine.claim(self._wanted(0))).next_due_ms
        waits = [wait_ms for wait_ms in (left_ms, due_ms, self._tick()) if wait_ms is not None]
        self.clock.advance(milliseconds=min(waits))
        while self.engine.run(self.engine.sweep(SWEPT, KEEP_ALL)).more:
            continue
        return True

    def _handle(self, record: JobRecord) -> JobHandle[Any]:
        return self.app.job(uuid.UUID(bytes=record.id))

    def _sighting(self, record: JobRecord) -> Sighting:
        return see(self._handle(record), record, self.app.tasks.get(record.task or ""))

    # -- what cannot be --

    def _running_inline(self) -> Inline:
        if self._inline is None:
            raise WrongUse("the block of `with testing(app)` has ended; drain inside of it")
        if current.get() is not None:
            raise WrongUse("a job cannot drain the queues it runs from; let the test do it")
        return self._inline

    def _refuse_in_a_loop(self, verb: str) -> None:
        if asyncio._get_running_loop() is not None:
            raise WrongUse(f"{verb}() would block the running event loop; use `await t.a{verb}()`")

    def _is_alone(self) -> bool:
        """Whether nobody but the caller could do what the caller is about to wait for."""
        if threading.get_ident() != self._thread:
            return False
        loop = asyncio._get_running_loop()
        return loop is None or len(asyncio.all_tasks(loop)) <= 1

    def _before_queue_wait(self, seconds: float) -> None:
        """A test that waits for a message lets time pass: nobody else does."""
        if self._is_alone():
            self.clock.advance(seconds=seconds)

    def _before_job_wait(self, _seconds: float) -> None:
        if self._is_alone():
            raise WrongUse(
                "no worker runs under testing(), so waiting for a job would never end: call "
                "t.drain() or t.advance(...) first (in a coroutine: await t.adrain())"
            )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
