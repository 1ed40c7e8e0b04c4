"""Jobs that many workers wait for at once: whoever ends the last one lets the waiting job run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.model.ids import new_id
from backlane.model.job import Edge, Job, Lease, When
from backlane.model.outcome import (
    Awaiting,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Settlement,
    Succeeded,
)
from backlane.model.queue import Bounds

WORKERS = 8
BOUNDS = Admission(declared={"leaves": Bounds(max_jobs=100_000), "last": Bounds(max_jobs=100_000)})
DONE = Succeeded(b"1")
BROKEN = Failed(Reason.ERROR, ErrorRecord("E", "broken"))


def job(queue: str = "leaves", *after: bytes, when: When = When.SUCCEEDED) -> Job:
    edges = tuple(Edge(other, when) for other in after)
    return Job(
        id=new_id(time.time_ns() // 1_000_000), queue=queue, task="t", body=b"{}", after=edges
    )


def add(engine: PostgresEngine, *jobs: Job) -> list[bytes]:
    receipts = engine.run(engine.append(jobs, BOUNDS))
    assert isinstance(receipts, list), receipts
    return [receipt.job for receipt in receipts]


def claim(engine: PostgresEngine, number: int, queue: str, owner: str = "ann") -> list[Lease]:
    return engine.run(engine.claim(Wanted(owner, number, 60_000, (queue,)))).leases


def settle(engine: PostgresEngine, leases: list[Lease], outcome: Outcome = DONE) -> None:
    told = [Settlement(lease.job, lease.token, outcome) for lease in leases]
    assert engine.run(engine.settle(told)).lost == []


def at_once(acts: list[Callable[[], None]]) -> None:
    """Run these at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(acts))

    def act(one: Callable[[], None]) -> None:
        gate.wait()
        one()

    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act, one) for one in acts]:
            done.result(60)


@pytest.mark.parametrize("kind", ["after", "awaiting"])
def test_the_last_leaves_settled_at_the_same_moment_unblock_once(
    engine: PostgresEngine, kind: str
) -> None:
    for _ in range(15):
        leaves = add(engine, *(job() for _ in range(WORKERS)))
        (last,) = add(engine, job("last", *(leaves if kind == "after" else ())))
        if kind == "awaiting":
            settle(engine, claim(engine, 1, "last"), Awaiting(tuple(leaves)))
        parts = [claim(engine, 1, "leaves", f"w{i}") for i in range(WORKERS)]

        at_once([lambda part=part: settle(engine, part) for part in parts])

        assert [lease.job for lease in claim(engine, 2, "last")] == [last]
        settle(engine, [Lease(last, 2 if kind == "awaiting" else 1, 0, "last", "t", b"")])


def test_leaves_that_end_while_they_come_to_be_waited_for_are_not_missed(
    engine: PostgresEngine,
) -> None:
    """Half of the workers settle leaves, while the others wait for them or append behind them."""
    for _ in range(10):
        leaves = add(engine, *(job() for _ in range(80)))
        slices = add(engine, *(job("last") for _ in range(WORKERS // 2)))
        held = {lease.job: lease for lease in claim(engine, WORKERS, "last")}
        parts = [claim(engine, 20, "leaves", f"w{i}") for i in range(WORKERS // 2)]
        behind: list[bytes] = []

        def wait(one: bytes) -> None:
            settle(engine, [held[one]], Awaiting(tuple(leaves)))  # noqa: B023
            behind.extend(add(engine, job("last", *leaves, when=When.ENDED)))  # noqa: B023

        at_once(
            [lambda part=part: settle(engine, part) for part in parts]
            + [lambda one=one: wait(one) for one in slices]
        )

        found = Counter(lease.job for lease in claim(engine, 100, "last"))
        assert found == Counter([*slices, *behind])
        states = engine.run(engine.find(Selection(ids=(*slices, *behind)), brief=True)).records
        settle(engine, [Lease(it.id, it.token, 0, "last", "t", b"") for it in states])


def test_workers_drain_a_graph_that_people_change_meanwhile(engine: PostgresEngine) -> None:
    """Whatever is cancelled and redriven in between: in the end no job is left waiting."""
    roots = [job() for _ in range(60)]
    middles = [
        job("leaves", *(root.id for root in roots[i : i + 6]), when=list(When)[i % 3])
        for i in range(55)
    ]
    ends = [
        job("leaves", *(it.id for it in middles[i : i + 5]), when=When.ENDED) for i in range(50)
    ]
    jobs = [*roots, *middles, *ends]
    add(engine, *jobs)
    is_over = threading.Event()

    def work(owner: str) -> None:
        idle = 0
        while idle < 20 or not is_over.is_set():
            leases = claim(engine, 5, "leaves", owner)
            idle = 0 if leases else idle + 1
            for lease in leases:
                settle(engine, [lease], BROKEN if lease.job[-1] % 5 == 0 else DONE)
            if not leases:
                time.sleep(0.01)

    def meddle() -> None:
        for i in range(0, 60, 4):
            some = Selection(ids=tuple(it.id for it in jobs[i::20]))
            engine.run(engine.amend(some, Cancel()))
            engine.run(engine.amend(some, Redrive()))
        is_over.set()

    at_once([meddle, *(lambda i=i: work(f"w{i}") for i in range(WORKERS - 1))])

    records = engine.run(engine.find(Selection(queue="leaves"), limit=1_000)).records
    assert Counter(it.state.is_final for it in records) == {True: len(jobs)}
    assert engine.run(engine.list_queues())[0].depth.jobs == 0


def test_five_hundred_leaves_that_share_a_waiting_job_are_settled_as_a_set(
    engine: PostgresEngine,
) -> None:
    """As long as twice a settle of plain jobs at most, and not a step for each of them."""
    plain = add(engine, *(job() for _ in range(500)))
    bare = claim(engine, 500, "leaves")
    began = time.perf_counter()
    settle(engine, bare)
    alone = time.perf_counter() - began
    leaves = add(engine, *(job() for _ in range(500)))
    (last,) = add(engine, job("last", *leaves))
    leases = claim(engine, 500, "leaves")
    began = time.perf_counter()
    settle(engine, leases)
    together = time.perf_counter() - began

    assert len(plain) == len(leases) == 500
    assert [lease.job for lease in claim(engine, 1, "last")] == [last]
    assert together < 5 * alone + 0.5  # one by one it is 50 times as long
