"""Aside: what a million jobs that wait for something else cost those that do not.

In the store itself, without a worker: 100 jobs a turn are settled and claimed beside jobs
that are scheduled, blocked on a limit, blocked on jobs, or of a queue whose own limit has
no room. The claims want that queue too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from backlane.engine.limiting import Declared
from backlane.engine.protocol import Admission, Engine, Wanted
from backlane.model.clock import SystemClock
from backlane.model.ids import new_ids
from backlane.model.job import Edge, Job
from backlane.model.limit import Limit, Use
from backlane.model.outcome import Settlement, Succeeded
from backlane.model.queue import Bounds
from bench.figure import Figure, Nothing, at_least, rounds
from bench.servers.place import postgres_server, redis_server
from bench.setting import Setting
from bench.store import Store, batches
from bench.workload import BOUND

PLAIN, ASIDE = "plain", "aside"
BATCH = 100
ROOMS = {queue: Bounds(BOUND, 2**40) for queue in (PLAIN, ASIDE)}
ONE = Limit(concurrency=1)
HOUR_MS = 3_600_000


def aside(setting: Setting) -> list[Figure]:
    """Measure each kind in a store of its own, in turns with an empty one, on each engine."""
    figures = []
    for name, stores in _places(setting):
        with stores as place:
            plain = _opened(setting, place("empty"), "empty")
            for kind, fill in KINDS.items():
                figures.append(_compared(setting, name, plain, place, kind, fill))
            plain.close()
    return figures


Place = Callable[[str], str | None]  # the URL of a store by its name; None: a file
Fill = Callable[[Engine, int], None]


def _places(setting: Setting) -> Iterator[tuple[str, contextlib.AbstractContextManager[Place]]]:
    yield "SQLite", contextlib.nullcontext(lambda _: None)
    yield "PostgreSQL", _on_postgres(setting)
    yield "Redis", _on_redis(setting)


@contextlib.contextmanager
def _on_postgres(setting: Setting) -> Iterator[Place]:
    with postgres_server(setting.directory) as url:
        yield lambda name: f"{url}?schema=bench_{name}"


@contextlib.contextmanager
def _on_redis(setting: Setting) -> Iterator[Place]:
    with redis_server(setting.directory) as url:
        yield lambda name: f"{url}?namespace=bench-{name}"


def _opened(setting: Setting, url: str | None, name: str) -> Store:
    path: Path = setting.directory / f"aside-{name}.db"
    store = Store.fresh(path) if url is None else Store(path, url)
    store.work.app.engine.migrate()
    return store


def _compared(  # long: one figure, read down
    setting: Setting, engine: str, plain: Store, place: Place, kind: str, fill: Fill
) -> Figure:
    many, turns = setting.size(1_000_000, 20_000), setting.size(100, 10)
    name = "".join(letter for letter in kind if letter.isalpha())
    loaded = _opened(setting, place(name), name)
    fill(loaded.work.app.engine, many)
    _check(loaded.work.app.engine, many)
    taken = rounds(
        setting.size(7, 2),
        {
            "plain": lambda: _turned(plain.work.app.engine, turns),
            "loaded": lambda: _turned(loaded.work.app.engine, turns),
        },
    )
    _check(loaded.work.app.engine, many)
    loaded.close()
    return at_least(
        f"{engine}: turns beside {many:,} {kind}",
        taken["loaded"],
        beside="none aside",
        reference=taken["plain"],
        times=0.8,
    )


def _check(engine: Engine, many: int) -> None:
    """See that those aside are still there: else nothing was measured."""
    waiting = {it.name: it.depth.jobs for it in engine.run(engine.list_queues())}
    if waiting.get(ASIDE, 0) < many:
        raise Nothing(f"{waiting.get(ASIDE, 0)} of {many} jobs wait aside")


# -- what waits aside --


def _scheduled(engine: Engine, number: int) -> None:
    _append(engine, number, lambda ids: [_job(it, delay_ms=24 * HOUR_MS) for it in ids])


def _on_a_limit(engine: Engine, number: int) -> None:
    uses = (Use("one"),)
    admission = Admission(declared=ROOMS, limits={"one": ONE})
    first = new_ids(SystemClock().wall_ms(), 1)
    engine.run(engine.append([_job(first[0], uses=uses)], admission))
    _take(engine, 1)
    _append(engine, number, lambda ids: [_job(it, uses=uses) for it in ids], admission)


def _on_jobs(engine: Engine, number: int) -> None:
    first = new_ids(SystemClock().wall_ms(), 1)
    engine.run(engine.append([_job(first[0])], Admission(declared=ROOMS)))
    _take(engine, 1)
    after = (Edge(first[0]),)
    _append(engine, number, lambda ids: [_job(it, after=after) for it in ids])


def _of_a_queue(engine: Engine, number: int) -> None:
    _append(engine, 1, lambda ids: [_job(it) for it in ids])
    engine.run(engine.regulate(f"queue:{ASIDE}", Declared(ONE)))
    _take(engine, 1)
    _append(engine, number, lambda ids: [_job(it) for it in ids])


KINDS: dict[str, Fill] = {
    "scheduled": _scheduled,
    "limited, blocked": _on_a_limit,
    "blocked on a job": _on_jobs,
    "ready in a limited queue": _of_a_queue,
}


def _job(job: bytes, **options: object) -> Job:
    return Job(id=job, queue=ASIDE, task="noop", body=b"{}", **options)  # type: ignore[arg-type]


def _append(
    engine: Engine,
    number: int,
    make: Callable[[Sequence[bytes]], list[Job]],
    admission: Admission | None = None,
) -> None:
    admission = admission or Admission(declared=ROOMS)
    for batch in batches(number, 1_000):
        ids = new_ids(SystemClock().wall_ms(), len(batch))
        answer = engine.run(engine.append(make(ids), admission))
        if not isinstance(answer, list):
            raise Nothing(f"refused: {answer}")


def _take(engine: Engine, number: int) -> None:
    wanted = Wanted(owner="holder", number=number, lease_ms=24 * HOUR_MS, queues=(ASIDE,))
    if len(engine.run(engine.claim(wanted)).leases) != number:
        raise Nothing("there was nothing to hold the place with")


# -- what is measured --


def _turned(engine: Engine, turns: int) -> float:
    """Return jobs/s of turns of 100, each of which claims what was appended before."""
    number = turns * BATCH
    for batch in batches(number, 1_000):
        ids = new_ids(SystemClock().wall_ms(), len(batch))
        jobs = [Job(id=it, queue=PLAIN, task="noop", body=b"{}") for it in ids]
        engine.run(engine.append(jobs, Admission(declared=ROOMS)))
    wanted = Wanted(owner="bench", number=BATCH, lease_ms=60_000, queues=(PLAIN, ASIDE))
    settlements: list[Settlement] = []
    began, done = time.perf_counter(), 0
    while done < number:
        turn = engine.run(engine.turn(settlements, [wanted]))
        leases = turn.claimed[0].leases
        if not leases:
            raise Nothing(f"{done} of {number} jobs were there to claim")
        settlements = [Settlement(it.job, it.token, Succeeded(), ran_ms=1) for it in leases]
        done += len(leases)
    engine.run(engine.settle(settlements))
    return number / (time.perf_counter() - began)
