"""PostgreSQL, synchronous_commit on: two executors beside pgqueuer, procrastinate and raw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

from bench.figure import Figure, at_least, rounds
from bench.process import WorkerProcess
from bench.servers.latency import latency
from bench.servers.place import postgres_server
from bench.servers.rival import Rivals
from bench.setting import Setting
from bench.store import Store, one_by_one, round_trips

HELD_JOBS = 500_000  # while a transaction elsewhere holds its snapshot


def postgres(setting: Setting) -> list[Figure]:
    """Measure everything on one server, peers and raw statements in the same rounds."""
    with postgres_server(setting.directory) as url:
        rivals = Rivals(setting.peers(), url, setting.directory)
        for peer in ("pgqueuer_app", "procrastinate_app"):
            rivals.install(peer)
        return [
            *_drains(setting, url, rivals),
            *_enqueues(setting, url, rivals),
            *_round_trips(setting, url, rivals),
            *latency(setting, _store(setting, url, "latency"), "PostgreSQL", p50=3.0, p99=6.0),
            *_held(setting, url),
        ]


def _store(setting: Setting, url: str, name: str) -> Store:
    """Return a migrated store in a schema of its own."""
    store = Store(setting.directory / f"postgres-{name}", f"{url}?schema=bench_{name}")
    store.work.app.engine.migrate()
    return store


def _drains(setting: Setting, url: str, rivals: Rivals) -> list[Figure]:
    number = setting.size(60_000, 6_000)
    store = _store(setting, url, "drain")
    store.fill(1)
    with WorkerProcess(store, processes=2):
        store.pause(paused=True)
        taken = rounds(
            setting.size(5, 1),
            {
                "ours": lambda: _drained(store, number),
                "bare": lambda: rivals.printed("bare_postgres", f"drain({number}, 2)"),
                "pgqueuer": lambda: rivals.pgqueuer(setting.size(30_000, 3_000)),
            },
        )
        store.pause(paused=False)
    store.close()
    name = "PostgreSQL: no-op jobs, two executors"
    peer = f"pgqueuer {rivals.peers.version('pgqueuer')}"
    return [
        at_least(name, taken["ours"], beside=peer, reference=taken["pgqueuer"], times=1.5),
        at_least(name, taken["ours"], beside="bare loops, 2", reference=taken["bare"], times=0.5),
    ]


def _drained(store: Store, number: int) -> float:
    store.fill(number)
    return store.drain(number)


def _enqueues(setting: Setting, url: str, rivals: Rivals) -> list[Figure]:
    seconds = 1.0 if setting.full else 0.3
    bulk = setting.size(100_000, 10_000)
    store = _store(setting, url, "enqueue")
    taken = rounds(
        setting.size(7, 2),
        {
            "ours": lambda: one_by_one(store, seconds),
            "raw": lambda: rivals.printed("bare_postgres", f"inserts({seconds})"),
            "pgqueuer": lambda: rivals.printed("pgqueuer_app", f"singles({seconds})"),
            "procrastinate": lambda: rivals.printed("procrastinate_app", f"singles({seconds})"),
            "bulk": lambda: store.fill(bulk),
            "copied": lambda: rivals.printed("bare_postgres", f"copied({bulk})"),
        },
    )
    store.close()
    name, ours = "PostgreSQL: enqueue, one by one", taken["ours"]
    return [
        at_least(name, ours, beside=peer, reference=taken[peer], times=1.0)
        for peer in ("pgqueuer", "procrastinate")
    ] + [
        at_least(name, ours, beside="raw insert a commit", reference=taken["raw"], times=0.5),
        at_least(
            "PostgreSQL: enqueue_many",
            taken["bulk"],
            beside="COPY, 1,000 a commit",
            reference=taken["copied"],
            times=0.5,
        ),
    ]


def _round_trips(setting: Setting, url: str, rivals: Rivals) -> list[Figure]:
    seconds = 1.0 if setting.full else 0.3
    store = _store(setting, url, "round_trip")
    with WorkerProcess(store):
        taken = rounds(
            setting.size(7, 2),
            {
                "raw": lambda: rivals.printed("bare_postgres", f"inserts({seconds})"),
                "ours": lambda: round_trips(store, seconds),
            },
        )
    store.close()
    return [
        at_least(
            "PostgreSQL: enqueue and wait for the result",
            taken["ours"],
            beside="raw insert a commit",
            reference=taken["raw"],
            times=0.2,
        )
    ]


def _held(setting: Setting, url: str) -> list[Figure]:
    """Drain many jobs while another transaction's snapshot keeps every dead row."""
    number = setting.size(HELD_JOBS, 20_000)
    rates = {}
    for name in ("free", "held"):
        store = _store(setting, url, name)
        store.fill(1)
        with WorkerProcess(store, processes=2):
            store.pause(paused=True)
            store.fill(number)
            with _snapshot(url) if name == "held" else contextlib.nullcontext():
                rates[name] = store.drain(number)
        store.close()
    return [
        at_least(
            f"PostgreSQL: {number:,} jobs while a snapshot is held",
            [rates["held"]],
            beside="without it",
            reference=[rates["free"]],
            times=0.9,
        )
    ]


@contextlib.contextmanager
def _snapshot(url: str) -> Iterator[None]:
    """Hold a snapshot, as a long report does."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select count(*) from pg_class")
        yield
