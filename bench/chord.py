"""Chord: a map of a million no-op leaves and what gathers them, in a bounded queue.

The like are as many independent jobs of the same task, enqueued while the same worker runs
them and as the bound lets them in. Both are measured from the enqueue to the last result.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat

from bench.bare import PAYLOAD
from bench.figure import Figure, Nothing, at_least, at_most, rounds
from bench.process import WorkerProcess, resident_mib
from bench.servers.place import postgres_server
from bench.setting import Setting
from bench.store import PATIENCE, Store, batches

EXTRA_MIB = 100.0  # what a worker may grow by, however many leaves there are
FIRST = 4_000  # leaves of a chord before: its imports and connections are no growth by leaves
AT_ONCE = 500  # jobs of an append, as a slice appends its leaves
LOOK = 0.05  # seconds between two looks at the counters: nothing beside a run of seconds
SAMPLE = 0.5  # seconds between two looks at the memory

Opened = Callable[[str], Store]


def chord(setting: Setting) -> list[Figure]:
    """Measure on SQLite, and on PostgreSQL with two executors, each in new stores."""
    figures = []
    for name, processes, places in (
        ("SQLite", 1, _on_sqlite(setting)),
        ("PostgreSQL", 2, _on_postgres(setting)),
    ):
        with places as opened:
            figures += _compared(setting, name, processes, opened)
    return figures


@contextlib.contextmanager
def _on_sqlite(setting: Setting) -> Iterator[Opened]:
    yield lambda name: _store(setting, name, f"sqlite:///{setting.directory}/{name}.db")


@contextlib.contextmanager
def _on_postgres(setting: Setting) -> Iterator[Opened]:
    with postgres_server(setting.directory) as url:
        yield lambda name: _store(setting, f"postgres-{name}", f"{url}?schema=bench_{name}")


def _store(setting: Setting, name: str, url: str) -> Store:
    store = Store(setting.directory / name, url, setting.size(100_000, 5_000))
    store.work.app.engine.migrate()
    return store


def _compared(setting: Setting, engine: str, processes: int, opened: Opened) -> list[Figure]:
    number, grown = setting.size(1_000_000, 20_000), list[float]()
    names = (f"{kind}_{turn}" for turn in range(9) for kind in ("alone", "chord"))

    def alone() -> float:
        store = opened(next(names))
        with _working(store, processes):
            return _independent(store, number)

    def chorded() -> float:
        store = opened(next(names))
        with _working(store, processes) as worker:
            _mapped(store, FIRST)
            with _watched(worker, grown):
                return _mapped(store, number)

    taken = rounds(setting.size(2, 1), {"alone": alone, "chord": chorded})
    return [
        at_least(
            f"{engine}: chord of {number:,} leaves",
            taken["chord"],
            beside="independent jobs",
            reference=taken["alone"],
            times=0.7,
            note="called back once",
        ),
        at_most(
            f"{engine}: growth of the worker by them",
            max(grown),
            unit="MiB",
            bar=EXTRA_MIB,
            note=f"RSS of the supervisor and its executors, after a chord of {FIRST:,}",
        ),
    ]


@contextlib.contextmanager
def _working(store: Store, processes: int) -> Iterator[WorkerProcess]:
    try:
        with WorkerProcess(store, processes=processes) as worker:
            yield worker
    finally:
        store.close()


def _independent(store: Store, number: int) -> float:
    """Enqueue jobs as there is room; return how many a second came through."""
    start, began = _succeeded(store), time.perf_counter()
    task = store.work.noop.using(on_full="wait", on_full_timeout=PATIENCE)
    for batch in batches(number, AT_ONCE):
        task.enqueue_many([((n, PAYLOAD), {}) for n in batch])
    limit = time.perf_counter() + PATIENCE
    while _succeeded(store) - start < number:
        if time.perf_counter() > limit:
            raise Nothing(f"{_succeeded(store) - start} of {number} jobs were done")
        time.sleep(LOOK)
    return number / (time.perf_counter() - began)


def _mapped(store: Store, number: int) -> float:
    """Enqueue a map and what gathers it; return how many leaves a second came through."""
    called = store.path.with_suffix(".called")
    called.unlink(missing_ok=True)
    work, began = store.work, time.perf_counter()
    leaves = work.noop.starmap(zip(range(number), repeat(PAYLOAD)))
    run = work.gather.node(leaves.out, str(called)).enqueue()
    found = run.result(timeout=PATIENCE + number / 500)
    rate = number / (time.perf_counter() - began)
    if found != number or called.read_text() != "called\n":
        raise Nothing(f"{found} of {number} results, and calls: {called.read_text()!r}")
    return rate


def _succeeded(store: Store) -> int:
    record = store.record()
    return record.succeeded if record else 0


@contextlib.contextmanager
def _watched(worker: WorkerProcess, grown: list[float]) -> Iterator[None]:
    """Add to `grown` by how much the worker's family was larger meanwhile than before."""
    before, largest, ended = resident_mib(worker.family()), [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE):
            largest.append(resident_mib(worker.family()))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
    if len(largest) < 2:
        raise Nothing("the worker's memory was never looked at")
    grown.append(max(largest) - before)
