"""A desk in front of an engine: the verbs in few words, for tests that read as sentences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.plan import Plan
from backlane.engine.protocol import (
    Admission,
    Claimed,
    Engine,
    Settled,
    Tune,
    Wanted,
)
from backlane.engine.retention import Retention, Swept
from backlane.engine.selection import Amended, Change, Page, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import Job, JobRecord, Lane, Lease, Receipt, Refusal, State
from backlane.model.limit import Limit, LimitRecord, Use
from backlane.model.outcome import (
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Depth, Kind, QueueRecord

T = TypeVar("T")

BOOM = ErrorRecord("builtins.ValueError", "boom")

SUCCEEDED = Succeeded()
FAILED = Failed(Reason.ERROR, BOOM)
RELEASED = Released()
STOPPED = Cancelled()
CRASHED = Crashed(alone=False, error=BOOM)
CRASHED_ALONE = Crashed(alone=True, error=BOOM)


def retry(seconds: float = 0, message: str = "boom") -> RetryAfter:
    return RetryAfter(int(seconds * 1000), ErrorRecord("builtins.ValueError", message))


def snooze(seconds: float = 0, *, parked: bool = False) -> Snoozed:
    return Snoozed(int(seconds * 1000), parked)


def settlement(lease: Lease, outcome: Outcome) -> Settlement:
    return Settlement(lease.job, lease.token, outcome)


def firsts(answer: list[Receipt] | Refusal) -> list[tuple[bytes, bytes | None]]:
    """Each job of an append that was taken, with the one that holds its place."""
    assert isinstance(answer, list), answer
    return [(receipt.job, receipt.first) for receipt in answer]


class Desk:
    """An engine and its fake clock. The queue is `mail` and the owner `ann` unless said."""

    def __init__(self, engine: Engine, clock: FakeClock, first: int = 1) -> None:
        self.engine, self.clock = engine, clock
        self._ids = itertools.count(first)
        self.limits: dict[str, Limit] = {}  # what appends declare
        self.fair: set[str] = set()  # queues

    def new_id(self) -> bytes:
        """A UUIDv7 that depends on nothing but the clock and the ids made before."""
        number = 0x7 << 76 | 0b10 << 62 | next(self._ids)
        return (self.clock.wall_ms() << 80 | number).to_bytes(16)

    def run(self, plan: Plan[T]) -> T:
        return self.engine.run(plan)

    # -- append --

    def job(self, queue: str = "mail", **fields: Any) -> Job:
        fields = {"id": self.new_id(), "task": "send", "body": b"{}"} | fields
        return Job(queue=queue, **fields)

    def append(
        self,
        *jobs: Job,
        bounds: Bounds | None = None,
        declared: dict[str, Bounds] | None = None,
        kind: Kind = Kind.TASKS,
        pace: Pace | None = None,
    ) -> list[Receipt] | Refusal:
        """Append; `bounds` are those declared for `mail`, and `pace` is its pace."""
        if bounds:
            declared = {"mail": bounds}
        paces = {"mail": pace} if pace else {}
        admission = Admission(declared or {}, kind, paces, self.limits, frozenset(self.fair))
        return self.run(self.engine.append(jobs, admission))

    def add(self, number: int = 1, queue: str = "mail", **fields: Any) -> list[bytes]:
        """Append some new jobs that must be taken; return their ids."""
        jobs = [self.job(queue, **fields) for _ in range(number)]
        receipts = self.append(*jobs)
        assert isinstance(receipts, list), receipts
        assert all(receipt.is_new for receipt in receipts)
        return [job.id for job in jobs]

    def add_one(self, queue: str = "mail", **fields: Any) -> bytes:
        return self.add(1, queue, **fields)[0]

    # -- leases --

    def claim(
        self,
        number: int = 100,
        *queues: str,
        owner: str = "ann",
        seconds: float = 30,
        lane: int | None = Lane.SHARED,
        **fields: Any,
    ) -> Claimed:
        wanted = Wanted(
            owner=owner,
            number=number,
            lease_ms=int(seconds * 1000),
            queues=queues or ("mail",),
            lane=lane,
            **fields,
        )
        return self.run(self.engine.claim(wanted))

    def lease(self, **fields: Any) -> Lease:
        """Claim the one job next in line."""
        (lease,) = self.claim(1, **fields).leases
        return lease

    def claimed_ids(self, *args: Any, **fields: Any) -> list[bytes]:
        return [lease.job for lease in self.claim(*args, **fields).leases]

    def settle(self, lease: Lease, outcome: Outcome) -> Settled:
        return self.run(self.engine.settle([settlement(lease, outcome)]))

    def end(self, *jobs: bytes, outcome: Outcome = SUCCEEDED, ran_ms: int = 0) -> Settled:
        """Settle running jobs by the tokens they have."""
        tokens = {job: self.record(job).token for job in jobs}
        ended = [Settlement(job, token, outcome, ran_ms) for job, token in tokens.items()]
        return self.run(self.engine.settle(ended))

    def lose(self) -> Lease:
        """Claim the next job and let the lease end by time."""
        lease = self.lease(seconds=30, lane=None)
        self.clock.advance(seconds=31)
        return lease

    # -- amend, find, mend --

    def amend(self, change: Change, *ids: bytes, **selection: Any) -> Amended:
        return self.run(self.engine.amend(Selection(ids=ids, **selection), change))

    def find(self, limit: int = 100, cursor: bytes | None = None, **selection: Any) -> Page:
        return self.run(self.engine.find(Selection(**selection), limit, cursor))

    def found_ids(self, **selection: Any) -> list[bytes]:
        """The ids of all pages, in order."""
        ids: list[bytes] = []
        cursor = None
        while True:
            page = self.find(cursor=cursor, **selection)
            ids += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                return ids

    def record(self, job: bytes) -> JobRecord:
        (record,) = self.find(ids=(job,)).records
        return record

    def state(self, job: bytes) -> State:
        return self.record(job).state

    def is_known(self, job: bytes) -> bool:
        return bool(self.find(ids=(job,)).records)

    def states(self, jobs: Sequence[bytes]) -> list[State]:
        return [self.state(job) for job in jobs]

    def queue(self, name: str = "mail") -> QueueRecord:
        (record,) = [one for one in self.run(self.engine.list_queues()) if one.name == name]
        return record

    def blocked_on(self, *jobs: bytes) -> list[str | None]:
        return [self.record(job).blocked_on for job in jobs]

    def depth(self, name: str = "mail") -> Depth:
        return self.queue(name).depth

    def sweep(self, limit: int = 1_000, **retention: int) -> Swept:
        return self.run(self.engine.sweep(limit, Retention(**retention)))

    def pause(self, queue: str = "mail") -> None:
        self.run(self.engine.tune(queue, Tune(paused=True)))

    def resume(self, queue: str = "mail") -> None:
        self.run(self.engine.tune(queue, Tune(paused=False)))

    # -- limits --

    def limit(self, name: str, change: Limit | None = None) -> LimitRecord:
        """A limit as it is; declared anew, if so given."""
        if change is not None:
            self.run(self.engine.regulate(name, Declared(change)))
        (record,) = [it for it in self.run(self.engine.list_limits()) if it.name == name]
        return record

    def tune_limit(self, name: str, limit: Limit | None) -> LimitRecord | None:
        return self.run(self.engine.regulate(name, Tuned(limit)))

    def acquire(
        self, limit: str, holder: bytes = b"me", *, part: str = "", seconds: float = 30
    ) -> Acquired:
        use = Use(limit, part)
        return self.run(self.engine.acquire(use, None, holder, int(seconds * 1000)))

    def release(self, limit: str, holder: bytes = b"me", *, part: str = "") -> bool:
        return self.run(self.engine.release(Use(limit, part), holder))

    # -- jobs brought into a state --

    def finished(self, outcome: Outcome = SUCCEEDED, **fields: Any) -> bytes:
        """A new job that has run and ended so."""
        job = self.add_one(**fields)
        lane, queue = fields.get("lane", Lane.SHARED), fields.get("queue", "mail")
        claimed = self.claim(1, queue, ids=(job,), lane=lane)
        self.settle(claimed.leases[0], outcome)
        return job

    def in_state(self, state: State, **fields: Any) -> bytes:
        """A new job that is in this state."""
        match state:
            case State.SCHEDULED:
                return self.add_one(delay_ms=60_000, **fields)
            case State.READY:
                return self.add_one(**fields)
            case State.RUNNING:
                job = self.add_one(**fields)
                assert self.claimed_ids(1, ids=(job,), owner="bob") == [job]
                return job
            case State.SUCCEEDED:
                return self.finished(**fields)
            case State.FAILED:
                return self.finished(FAILED, **fields)
            case State.CANCELLED:
                return self.finished(STOPPED, **fields)
            case State.EXPIRED:
                job = self.add_one(expires_ms=1, **fields)
                self.clock.advance(milliseconds=1)
                assert self.claimed_ids(1, ids=(job,)) == []
                return job
            case State.BLOCKED:
                raise ValueError("nothing blocks a job yet")


REACHABLE = [state for state in State if state is not State.BLOCKED]
