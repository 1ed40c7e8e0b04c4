"""Limits: a rate and a concurrency over four workers, and what fairness leaves to the small.

All times are the store's own: when a lease was given and when it was settled, as the jobs'
records tell.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from backlane.engine.selection import Selection
from backlane.enqueuer import Arguments
from backlane.model.clock import SystemClock
from backlane.model.ids import new_ids
from backlane.model.job import Job, JobRecord, State
from bench.figure import Figure, Nothing, at_least, at_most, percentile, rounds
from bench.process import WorkerProcess
from bench.regulated import AT_A_TIME, BURST, FAIR, RATE, Regulated, regulated
from bench.servers.place import postgres_server, redis_server
from bench.setting import Setting
from bench.store import PATIENCE, Store, batches

WORKERS = 4
TARGET = "bench.regulated:app"
READ = 200  # records at a time
LINGER = 0.01  # seconds that a job holds one of the three places

# One worker with four slots runs 200 jobs of 20 ms a second. Every half second 40 groups send
# one job each: 40 % of what it can do, but all at once, so that nearly all wait by queueing.
SLOTS, NAP = 4, 0.02
GROUPS, BURST_JOBS, BURST_SECONDS = 99, 40, 0.5
SHARE = 99  # jobs of the large group for one of the others

Opened = Callable[[str], Store]


def limits(setting: Setting) -> list[Figure]:
    """Measure on each engine, in stores of their own."""
    figures = []
    for name, places in (
        ("SQLite", _on_sqlite(setting)),
        ("PostgreSQL", _on_postgres(setting)),
        ("Redis", _on_redis(setting)),
    ):
        with places as opened:
            figures += _rated(setting, name, opened("rate"))
            figures.append(_at_a_time(setting, name, opened("three")))
            figures.append(_fair(setting, name, opened))
    return figures


@contextlib.contextmanager
def _on_sqlite(setting: Setting) -> Iterator[Opened]:
    yield lambda name: _store(setting, name, f"sqlite:///{setting.directory}/{name}.db")


@contextlib.contextmanager
def _on_postgres(setting: Setting) -> Iterator[Opened]:
    with postgres_server(setting.directory) as url:
        yield lambda name: _store(setting, f"postgres-{name}", f"{url}?schema=bench_{name}")


@contextlib.contextmanager
def _on_redis(setting: Setting) -> Iterator[Opened]:
    with redis_server(setting.directory) as url:
        yield lambda name: _store(setting, f"redis-{name}", f"{url}?namespace=bench-{name}")


def _store(setting: Setting, name: str, url: str) -> Store:
    store = Store(setting.directory / name, url)
    store.work.app.engine.migrate()
    return store


@contextlib.contextmanager
def _workers(store: Store) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in range(WORKERS):
            stack.enter_context(WorkerProcess(store, target=TARGET, name=f"worker-{number}"))
        yield


# -- a rate --


def _rated(setting: Setting, engine: str, store: Store) -> list[Figure]:
    """Let four workers have more jobs than they may begin, and see when each began."""
    seconds = setting.size(30, 5)
    work = regulated(store.url)
    with _workers(store):
        calls: list[Arguments] = [((number,), {}) for number in range(RATE * (seconds + 2) + BURST)]
        ids = [job.id.bytes for job in work.paced.enqueue_many(calls)]
        records = _ended(store, ids)
    work.app.close()
    store.close()
    began = sorted(record.started_ms or 0 for record in records)
    used = sum(at < began[0] + seconds * 1000 for at in began) / (RATE * seconds)
    owners = len({record.owner for record in records})
    name = f"{engine}: a rate of {RATE}/s over {WORKERS} workers, {seconds} s"
    return [
        at_most(
            f"{name}: most in a second",
            _most_within(began, 1000),
            unit="jobs",
            bar=RATE + BURST,
            note=f"{len(began):,} jobs, begun by {owners} workers",
        ),
        at_least(
            f"{name}: used",
            [used * RATE],
            beside="the rate",
            reference=[float(RATE)],
            times=0.95,
        ),
    ]


def _most_within(times: Sequence[int], length: int) -> int:
    """Return the most of these sorted times that lie in any window of that length."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= length:
            first += 1
        most = max(most, last - first + 1)
    return most


# -- a concurrency --


def _at_a_time(setting: Setting, engine: str, store: Store) -> Figure:
    number = setting.size(2_000, 200)
    work = regulated(store.url)
    with _workers(store):
        jobs = work.three.enqueue_many([((LINGER,), {})] * number)
        records = _ended(store, [job.id.bytes for job in jobs])
    work.app.close()
    store.close()
    # At the same millisecond an end comes before a beginning.
    changes = sorted(
        [(record.started_ms or 0, 1) for record in records]
        + [(record.ended_ms or 0, -1) for record in records]
    )
    leases = most = 0
    for _, change in changes:
        leases += change
        most = max(most, leases)
    took = (changes[-1][0] - changes[0][0]) / 1000
    if most < AT_A_TIME:
        raise Nothing(f"{most} of {AT_A_TIME} places were ever used")
    return at_most(
        f"{engine}: a concurrency of {AT_A_TIME} over {WORKERS} workers",
        most,
        unit="leases",
        bar=AT_A_TIME,
        note=f"{number:,} jobs of {LINGER * 1000:.0f} ms, {number / took:,.0f}/s",
    )


# -- fairness --


def _fair(setting: Setting, engine: str, opened: Opened) -> Figure:
    bursts = setting.size(40, 10)
    names = (f"{kind}_{turn}" for turn in range(9) for kind in ("few", "many"))
    taken = rounds(
        setting.size(3, 1),
        {
            "few": lambda: _waits(opened(next(names)), bursts, flood=0),
            "many": lambda: _waits(opened(next(names)), bursts, flood=bursts * BURST_JOBS * SHARE),
        },
    )
    few, many = sorted(taken["few"]), sorted(taken["many"])
    alone, beside = few[len(few) // 2], many[len(many) // 2]
    return at_most(
        f"{engine}: p95 wait of {GROUPS} groups beside one that sends {SHARE} %",
        beside / alone,
        unit="times",
        bar=2.0,
        beside="their wait without it",
        note=f"{beside:.0f} ms beside {alone:.0f} ms; bursts of {BURST_JOBS} jobs wait for "
        f"{SLOTS} slots, 40 % of the time",
    )


def _waits(store: Store, bursts: int, *, flood: int) -> float:
    """Return the p95 of the milliseconds that jobs of small groups waited."""
    work = regulated(store.url)
    sent: list[bytes] = []
    with WorkerProcess(store, concurrency=SLOTS, target=TARGET):
        if flood:
            task = work.nap.using(group="flood")
            task.enqueue_many(((NAP,), {}) for _ in range(flood))
        began = time.monotonic()
        for burst in range(bursts):
            time.sleep(max(0.0, began + burst * BURST_SECONDS - time.monotonic()))
            sent += _sent(work, burst)
        records = _ended(store, sent)
        left = work.app.queue(FAIR).record().depth.jobs
    if flood and not left:
        raise Nothing("the large group had nothing left to send")
    work.app.close()
    store.close()
    return percentile([(it.started_ms or 0) - it.enqueued_ms for it in records], 95)


def _sent(work: Regulated, burst: int) -> list[bytes]:
    """Append a job of each of some groups, of other groups each time."""
    body = work.nap.codec.encode_arguments((NAP,), {})
    jobs = [
        Job(
            id=job,
            queue=FAIR,
            task=work.nap.name,
            body=body,
            group=f"group-{(burst * BURST_JOBS + at) % GROUPS}",
        )
        for at, job in enumerate(new_ids(SystemClock().wall_ms(), BURST_JOBS))
    ]
    work.app.engine.run(work.app.engine.append(jobs, work.app.admission))
    return [job.id for job in jobs]


# -- the store --


def _ended(store: Store, ids: Sequence[bytes]) -> list[JobRecord]:
    """Wait until all of these jobs have succeeded; return their records."""
    engine, limit = store.work.app.engine, time.monotonic() + PATIENCE
    records: list[JobRecord] = []
    for part in batches(len(ids), READ):
        wanted = Selection(ids=tuple(ids[part.start : part.stop]))
        while True:
            found = engine.run(engine.find(wanted, READ, brief=True)).records
            done = sum(record.state is State.SUCCEEDED for record in found)
            if done == len(part):
                break
            if time.monotonic() > limit:
                raise Nothing(f"{done} of {len(part)} jobs succeeded")
            time.sleep(0.2)
        records += found
    return records
