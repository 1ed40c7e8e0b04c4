"""The measurements behind `backlane bench`, each in its share of the time."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import apsw
import msgspec

from backlane.app import Backlane
from backlane.cli.child import command_line
from backlane.demo.workers import WorkerProcess
from backlane.engine.selection import Delete, Selection
from backlane.enqueuer import Arguments
from backlane.errors import EngineUnavailable
from backlane.model.job import WAITING
from backlane.model.queue import QueueRecord

QUEUE = "bench"
RAW_INSERT = "insert into job (body) values (?)"
MODULE = "bench_app"
SOURCE = """\
import time

from backlane import Backlane, Queue

app = Backlane({url!r}, queues=[Queue("bench", max_jobs=5_000_000, max_bytes=2**33)])


@app.task(name="nothing", queue="bench", keep_result=False)
def nothing() -> None:
    pass


@app.task(name="nanoseconds_since", queue="bench")
def nanoseconds_since(sent: int) -> int:
    return time.monotonic_ns() - sent
"""

BULK = 1_000  # jobs a call of enqueue_many
PAYLOAD = b"x" * 100  # of a raw insert: about what a small job takes
MOST_BACKLOG = 200_000  # jobs to drain: more tell nothing new
PACE_SECONDS = 0.02  # between jobs whose latency is measured: the worker is idle before each
START_SECONDS = 20.0  # a worker that has not run a job by then has failed
RESULT_SECONDS = 20.0
DRAIN_SHARES = 3  # of the time of a part: the backlog may be more than fits in one
POLL_SECONDS = 0.02  # 1 % of a part of 2 s, and nothing beside the work of a worker


class Figure(msgspec.Struct, frozen=True):
    """One measured value."""

    name: str
    value: float
    unit: str
    note: str = ""


class Bench:
    """All measurements over one store, in the order of `parts`.

    Args:
        directory: empty; the store and the application are made there.
        durability: of the store, `full` or `normal`.
        seconds: for all parts together, about.
    """

    def __init__(self, directory: Path, durability: str, seconds: float) -> None:
        self._directory, self._durability = directory, durability
        self.parts: list[Callable[[], list[Figure]]] = [
            self.raw_inserts,
            self.enqueue,
            self.enqueue_many,
            self.drain,
            self.latency,
            self.round_trips,
        ]
        self._share = seconds / len(self.parts)
        self._raw = 0.0  # inserts a second of SQLite alone
        self._app = self._made_app()
        self._worker: WorkerProcess | None = None

    def _made_app(self) -> Backlane:
        """Write the application as a module, for the worker, and import it here too."""
        path = quote(str(self._directory / "bench.db"))
        url = f"sqlite:///{path}?durability={self._durability}"
        (self._directory / f"{MODULE}.py").write_text(SOURCE.format(url=url))
        sys.path.insert(0, str(self._directory))
        try:
            app: Backlane = importlib.import_module(MODULE).app
        finally:
            sys.path.remove(str(self._directory))
            sys.modules.pop(MODULE, None)
        return app

    def close(self) -> None:
        """Stop the worker and let go of the store."""
        if self._worker is not None:
            self._worker.stop()
        self._app.close()

    # -- without a worker --

    def raw_inserts(self) -> list[Figure]:
        """SQLite alone: one insert a commit, in the same mode and on the same disk."""
        with closing(apsw.Connection(str(self._directory / "raw.db"))) as raw:
            raw.execute("pragma journal_mode = wal")
            raw.execute(f"pragma synchronous = {self._durability}")
            raw.execute("create table job (id integer primary key, body blob)")
            self._raw = self._rate(lambda: raw.execute(RAW_INSERT, (PAYLOAD,)))
        return [Figure("raw durable inserts", self._raw, "per second", "SQLite alone")]

    def enqueue(self) -> list[Figure]:
        """One durable job after the other."""
        rate = self._rate(self._app.tasks["nothing"].enqueue)
        return [Figure("enqueue, one by one", rate, "jobs/s", f"{rate / self._raw:.0%} of raw")]

    def enqueue_many(self) -> list[Figure]:
        """Durable jobs, a thousand a transaction; they stay for `drain`."""
        calls: list[Arguments] = [((), {})] * BULK
        many = self._app.tasks["nothing"].enqueue_many
        rate = self._rate(lambda: many(calls), at_most=MOST_BACKLOG // BULK) * BULK
        return [Figure("enqueue_many", rate, "jobs/s", f"{BULK:,} a call")]

    # -- through a worker --

    def drain(self) -> list[Figure]:
        """Start a worker on the backlog; stop looking when its time is over."""
        began = time.perf_counter()
        self._worker = WorkerProcess(
            command_line(["worker", f"{MODULE}:app"]), self._directory, "worker"
        )
        while not self._finished():
            self._refuse_death(began)
            time.sleep(POLL_SECONDS)
        first_at, first = time.perf_counter(), self._finished()
        while self._depth() and time.perf_counter() - first_at < DRAIN_SHARES * self._share:
            time.sleep(POLL_SECONDS)
        rate = (self._finished() - first) / (time.perf_counter() - first_at)
        self._purge()
        return [
            Figure("from command to first job", first_at - began, "s", "a cold worker"),
            Figure("no-op jobs, end to end", rate, "jobs/s", "a worker with one executor"),
        ]

    def latency(self) -> list[Figure]:
        """From the call of enqueue to the function's first line, one job at a time."""
        task = self._app.tasks["nanoseconds_since"]
        waits: list[float] = []
        ends_at = time.perf_counter() + self._share
        while time.perf_counter() < ends_at or len(waits) < 2:
            job = task.enqueue(time.monotonic_ns())
            waits.append(job.result(RESULT_SECONDS) / 1e6)
            time.sleep(PACE_SECONDS)
        cuts = statistics.quantiles(waits, n=100, method="inclusive")
        note = f"{len(waits)} jobs to an idle worker"
        return [
            Figure("enqueue to first line, median", cuts[49], "ms", note),
            Figure("enqueue to first line, 99 %", cuts[98], "ms", note),
        ]

    def round_trips(self) -> list[Figure]:
        """Enqueue and wait for the result, one after the other."""
        task = self._app.tasks["nanoseconds_since"]
        rate = self._rate(lambda: task.enqueue(0).result(RESULT_SECONDS))
        return [Figure("enqueue and its result", rate, "jobs/s", f"{rate / self._raw:.0%} of raw")]

    # -- how --

    def _rate(self, once: Callable[[], object], at_most: int | None = None) -> float:
        """Return how often a second `once` can be done, over the share of this part."""
        began = time.perf_counter()
        number, passed = 0, 0.0
        while passed < self._share and number != at_most:
            once()
            number += 1
            passed = time.perf_counter() - began
        return number / passed

    def _queue(self) -> QueueRecord:
        return next(
            queue
            for queue in self._app.engine.run(self._app.engine.list_queues())
            if queue.name == QUEUE
        )

    def _finished(self) -> int:
        return self._queue().succeeded

    def _depth(self) -> int:
        return self._queue().depth.jobs

    def _refuse_death(self, began: float) -> None:
        end = self._worker.ended() if self._worker is not None else None
        if end is None and time.perf_counter() - began > START_SECONDS:
            end = f"no job ran within {START_SECONDS:.0f} s"
        if end is not None:
            raise EngineUnavailable(f"the measured worker: {end}")

    def _purge(self) -> None:
        """Forget what was not drained in time: what follows measures an idle worker."""
        selection, cursor = Selection(queue=QUEUE, states=WAITING), None
        while True:
            amended = self._app.engine.run(self._app.engine.amend(selection, Delete(), cursor))
            cursor = amended.cursor
            if cursor is None:
                return
