"""Overhead: what a job costs beside its run, and which tasks are cheaper than that."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec

from backlane.engine.connect import connect
from backlane.engine.protocol import Admission, Engine, Wanted
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job, JobRecord
from backlane.model.outcome import Settlement, Succeeded

SECONDS = 0.5  # hundreds of jobs, on a disk that takes a millisecond to sync
WARM_JOBS = 5  # the first one makes the store's tables
FEWEST = 20  # jobs of a task: fewer tell nothing
# Run times are kept in whole milliseconds, cut off: half of one is lost on average.
CUT_MS = 0.5


class CheapTask(msgspec.Struct, frozen=True):
    """A task that runs shorter than the enqueuing and settling of its jobs takes."""

    task: str
    jobs: int  # the recent ones that were looked at
    run_ms: float  # their mean


def overhead_ms(engine: Engine) -> float:
    """Return what a job costs in this store beside its run, in milliseconds.

    That is one job after the other: its append, its claim and the end of its attempt. They
    are tried in a new file beside a SQLite one, as durable as its URL asks for. On a server
    nothing is left behind, so there it is three round trips, and the job costs more than that.
    """
    if urlsplit(engine.url).scheme == "sqlite":
        return _beside(engine.url)
    nobody = Selection(ids=(bytes(16),))
    for _ in range(WARM_JOBS):
        engine.run(engine.find(nobody, 1))
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        engine.run(engine.find(nobody, 1))
        number += 1
    return 3 * (time.perf_counter() - began) / number * 1000


def _beside(url: str) -> float:
    parts = urlsplit(url)
    beside = Path(unquote(parts.path.removeprefix("/"))).resolve().parent
    where = beside if beside.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="backlane-capacity-", dir=where) as made:
        path = quote(str(Path(made).resolve() / "overhead.db"))
        with closing(connect(f"sqlite:///{path}?{parts.query}", SystemClock())) as engine:
            clock, number, began = SystemClock(), -WARM_JOBS, 0.0
            while number < 1 or time.perf_counter() - began < SECONDS:
                if number == 0:
                    began = time.perf_counter()
                job = Job(id=new_id(clock.wall_ms()), queue="overhead", task="nothing", body=b"{}")
                engine.run(engine.append([job], Admission()))
                wanted = Wanted("overhead", 1, 30_000, ("overhead",))
                (lease,) = engine.run(engine.claim(wanted)).leases
                engine.run(engine.settle([Settlement(job.id, lease.token, Succeeded())]))
                number += 1
            return (time.perf_counter() - began) / number * 1000


def cheap_tasks(records: Iterable[JobRecord], most_ms: float) -> list[CheapTask]:
    """Return the tasks whose recent jobs ran for less than `most_ms` on average."""
    runs: dict[str, list[int]] = {}
    for record in records:
        if record.task and record.ran_ms is not None:
            runs.setdefault(record.task, []).append(record.ran_ms)
    means = [
        CheapTask(task, len(ran), round(sum(ran) / len(ran) + CUT_MS, 2))
        for task, ran in sorted(runs.items())
        if len(ran) >= FEWEST
    ]
    return [one for one in means if one.run_ms < most_ms]
