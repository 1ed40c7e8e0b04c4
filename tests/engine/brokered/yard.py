"""A yard: a ledger, a broker, and processes that may die at any moment.

Processes are brokered engines in this one, each with a connection of its own; to die is to
do nothing any more, and to have the connection cut. Time in the ledger is a fake clock's;
what the engine itself waits for is real and short.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from backlane.engine.brokered import Brokered
from backlane.engine.brokered.pace import Extent
from backlane.engine.brokered.patience import Patience
from backlane.engine.memory import MemoryEngine
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.selection import Selection
from backlane.engine.transport import Transport
from backlane.engine.transports import loop
from backlane.engine.transports.memory import MemoryBroker
from backlane.model.clock import Clock, FakeClock
from backlane.model.ids import new_ids
from backlane.model.job import Job, JobRecord, Lane, Lease, State
from backlane.model.outcome import Outcome, Settlement, Succeeded
from backlane.model.queue import Bounds, Kind

MAIL = "backlane.1.mail"  # as the broker calls it
LEASE_SECONDS = 30.0
SOON = 10.0  # that anything here may take on a busy machine
BOUNDS = Bounds(max_jobs=1_000_000)

QUICK = Patience(
    offer=60.0,
    held=0.1,
    settled=0.15,
    inexact=0.15,
    unordered=0.15,
    poll=0.02,
    cut_off=0.1,
    closing=1.0,
)


def until(is_so: Callable[[], Any], what: str = "it", seconds: float = SOON) -> None:
    """Wait for something that comes about by itself."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.001)


class Process:
    """One process: what it started, and what it settled."""

    def __init__(self, yard: Yard, transport: Transport, owner: str, **extent: int) -> None:
        self.yard, self.owner = yard, owner
        self.transport = transport
        self.engine = Brokered(
            transport, yard.ledger, patience=yard.patience, extent=Extent(**extent)
        )

    def add(self, number: int = 1, queue: str = "mail", **fields: Any) -> list[bytes]:
        jobs = self.yard.jobs(number, queue, **fields)
        kind = Kind.MESSAGES if fields.get("task", "") is None else Kind.TASKS
        admission = Admission(declared={queue: BOUNDS}, kind=kind)
        answer = self.engine.run(self.engine.append(jobs, admission))
        assert isinstance(answer, list), answer
        return [job.id for job in jobs]

    def wanted(self, number: int = 50, *queues: str, lane: int | None = 0, **fields: Any) -> Wanted:
        queues = queues or ("mail",)
        return Wanted(self.owner, number, int(LEASE_SECONDS * 1000), queues, lane, **fields)

    def claim(self, number: int = 50, *queues: str, **fields: Any) -> list[Lease]:
        """Claim once, and remember what was begun."""
        wanted = self.wanted(number, *queues, **fields)
        leases = self.engine.run(self.engine.claim(wanted)).leases
        self.yard.begin(leases)
        return leases

    def take(self, number: int = 50, *queues: str, **fields: Any) -> list[Lease]:
        """Claim until something is there."""
        leases: list[Lease] = []

        def claim() -> bool:
            leases.extend(self.claim(number, *queues, **fields))
            return bool(leases)

        until(claim, "a lease")
        return leases

    def settle(self, leases: Sequence[Lease], outcome: Outcome | None = None) -> list[bytes]:
        outcome = outcome or Succeeded()
        ended = [Settlement(lease.job, lease.token, outcome) for lease in leases]
        lost = self.engine.run(self.engine.settle(ended)).lost
        self.yard.settled.update(lease.job for lease in leases if lease.job not in lost)
        return lost

    def work(self, seconds: float = SOON) -> None:
        """Run jobs until all that the yard knows have ended."""
        end = time.monotonic() + seconds
        while not self.yard.is_done:
            leases = self.claim()
            if leases:
                self.settle(leases)
            else:
                time.sleep(0.001)
            assert time.monotonic() < end, self.yard.counts()

    def die(self) -> None:
        """Do nothing any more, and be gone from the broker."""
        depot = self.engine.depot

        async def end() -> None:
            depot._is_closed = True
            for task in [*depot._tasks, *depot.relay.tasks]:
                task.cancel()
            await asyncio.sleep(0)

        depot.background.run(end(), SOON)
        loop.leave(depot.background)
        with contextlib.suppress(AttributeError):
            self.transport.cut()  # type: ignore[attr-defined]


class Yard:
    """What all processes share, and what is known of each job."""

    def __init__(
        self, ledger: Ledger, broker: MemoryBroker, clock: Clock, patience: Patience
    ) -> None:
        self.ledger, self.broker, self.clock, self.patience = ledger, broker, clock, patience
        self.ids: list[bytes] = []
        self.settled: Counter[bytes] = Counter()
        self.begun: dict[bytes, int] = {}  # when the lease of the latest start ends
        self._processes: list[Process] = []

    def process(self, transport: Transport | None = None, **extent: int) -> Process:
        owner = f"worker-{len(self._processes)}"
        made = Process(self, transport or self.broker.connect(), owner, **extent)
        self._processes.append(made)
        return made

    def jobs(self, number: int = 1, queue: str = "mail", **fields: Any) -> list[Job]:
        fields = {"task": "send", "body": b"{}"} | fields
        jobs = [
            Job(id=made, queue=queue, **fields) for made in new_ids(self.clock.wall_ms(), number)
        ]
        self.ids += [job.id for job in jobs]
        return jobs

    def begin(self, leases: Sequence[Lease]) -> None:
        """A function begins; that of an earlier lease must be over by the clock."""
        now = self.clock.boot_ms()
        for lease in leases:
            assert self.begun.get(lease.job, 0) <= now, "begun while its first lease lives"
            assert not self.settled[lease.job], "begun although it has ended"
            self.begun[lease.job] = now + int(LEASE_SECONDS * 1000)

    def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, FakeClock)
        self.clock.advance(seconds=seconds)

    def records(self) -> list[JobRecord]:
        found: list[JobRecord] = []
        for at in range(0, len(self.ids), 100):
            ids = tuple(self.ids[at : at + 100])
            found += self.ledger.run(self.ledger.find(Selection(ids=ids), brief=True)).records
        return found

    @property
    def is_done(self) -> bool:
        queues = self.ledger.run(self.ledger.list_queues())
        return not any(queue.depth.jobs for queue in queues)

    def counts(self) -> Counter[State]:
        return Counter(record.state for record in self.records())

    def check(self, attempts: int = 1) -> None:
        """Nothing is lost, and nothing was settled twice."""
        assert self.counts() == {State.SUCCEEDED: len(self.ids)}
        assert all(self.settled[job] == 1 for job in self.ids)
        assert max(record.attempt for record in self.records()) <= attempts

    def close(self) -> None:
        for process in self._processes:
            process.engine.close()


@contextlib.contextmanager
def yard(patience: Patience = QUICK, *, broker: MemoryBroker | None = None) -> Iterator[Yard]:
    clock = FakeClock()
    made = Yard(MemoryEngine(clock), broker or MemoryBroker(), clock, patience)
    with contextlib.closing(made):
        yield made


EXCLUSIVE = int(Lane.EXCLUSIVE)
