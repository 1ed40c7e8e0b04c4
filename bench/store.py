"""Stores of the benchmarks, looked at from outside while a worker drains them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backlane.engine.protocol import Tune
from backlane.enqueuer import Arguments
from backlane.model.queue import QueueRecord
from bench.bare import PAYLOAD
from bench.figure import Nothing
from bench.workload import BOUND, QUEUE, Workload, workload

PATIENCE = 120.0  # seconds for a worker to do what it was given
LOOK = 0.005  # seconds between two looks at the counters: a hundredth of a short drain


class Store:
    """One store and its workload, as a producer sees them.

    Args:
        path: the SQLite file; with a `url`, only what logs beside it are named for.
        url: another store.
        bound: how many jobs a queue may hold.
    """

    def __init__(self, path: Path, url: str | None = None, bound: int = BOUND) -> None:
        self.path, self.bound = path, bound
        self.url = url or f"sqlite:///{path}"
        self.work: Workload = workload(self.url, bound)

    @classmethod
    def fresh(cls, path: Path) -> Store:
        """Return a store whose file is not there yet."""
        for old in path.parent.glob(path.name + "*"):
            old.unlink()
        return cls(path)

    def close(self) -> None:
        """Let go of the store."""
        self.work.app.close()

    def record(self) -> QueueRecord | None:
        """Return the counters of the queue that is measured; None before its first job."""
        engine = self.work.app.engine
        for record in engine.run(engine.list_queues()):
            if record.name == QUEUE:
                return record
        return None

    def pause(self, *, paused: bool) -> None:
        """Stop or let go what workers claim of the queue."""
        engine = self.work.app.engine
        if engine.run(engine.tune(QUEUE, Tune(paused=paused))) is None:
            raise Nothing(f"there is no queue {QUEUE!r} to pause: fill it first")

    def fill(self, number: int) -> float:
        """Append `number` no-op jobs in bulk; return jobs/s."""
        calls: list[Arguments] = [((n, PAYLOAD), {}) for n in range(number)]
        return timed(number, lambda: self.work.noop.enqueue_many(calls))

    def fill_to(self, depth: int) -> None:
        """Append what is missing so that `depth` jobs wait."""
        record = self.record()
        self.fill(depth - (record.depth.jobs if record else 0))

    def drain(self, number: int) -> float:
        """Let the worker have the queue until `number` more have settled; return jobs/s.

        The rate runs from the first look that saw some settled to the last, like the
        peers' from their first function run; what is counted is settled, durably.
        """
        start = self._settled()
        looks: list[tuple[float, int]] = []
        limit = time.perf_counter() + PATIENCE
        self.pause(paused=False)
        while not looks or looks[-1][1] < number:
            if (settled := self._settled() - start) > 0:
                looks.append((time.perf_counter(), settled))
            elif time.perf_counter() > limit:
                raise Nothing(f"the worker settled {settled} of {number} jobs")
            time.sleep(LOOK)
        self.pause(paused=True)
        (first, some), (last, all_of_them) = looks[0], looks[-1]
        if last <= first:
            raise Nothing(f"{number} jobs were drained within one look: use more")
        return (all_of_them - some) / (last - first)

    def wait_idle(self) -> None:
        """Wait until nothing of the queue runs."""
        limit = time.perf_counter() + PATIENCE
        while (record := self.record()) is not None and record.depth.running:
            if time.perf_counter() > limit:
                raise Nothing("jobs of a paused queue do not end")
            time.sleep(LOOK)

    def _settled(self) -> int:
        record = self.record()
        return record.succeeded if record else 0


def one_by_one(store: Store, seconds: float) -> float:
    """Return jobs/s enqueued by one caller, one after the other."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        store.work.noop.enqueue(done, PAYLOAD)
        done += 1
    return done / (time.perf_counter() - began)


def round_trips(store: Store, seconds: float) -> float:
    """Return results/s enqueued and waited for, one after the other."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        store.work.noop.enqueue(done, PAYLOAD).result(timeout=10)
        done += 1
    return done / (time.perf_counter() - began)


def timed(number: int, work: Any) -> float:
    """Return `number` divided by the seconds that `work()` takes."""
    began = time.perf_counter()
    work()
    return number / (time.perf_counter() - began)


def batches(number: int, size: int) -> Iterable[range]:
    """Cut `range(number)` into ranges of `size`."""
    return (range(first, min(first + size, number)) for first in range(0, number, size))
