"""RabbitMQ, quorum queues and confirms: alone and before a ledger, beside its peers there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from backlane.engine.connect import connect
from backlane.engine.transports.name import physical
from backlane.model.clock import SystemClock
from bench.figure import Figure, Nothing, at_least, at_most, percentile, rounds
from bench.latency import RATE, samples
from bench.peer import Peers
from bench.process import WorkerProcess
from bench.servers import amqp
from bench.servers.place import postgres_server, rabbitmq_server
from bench.servers.rival import Rivals
from bench.setting import Setting
from bench.store import Store
from bench.workload import QUEUE

CONFIRMED = 8_000  # bulk enqueues a second that the issue asks for
ALONE = 3.0  # milliseconds of a lone job, at most

Sample = Callable[[int], list[float]]


def rabbitmq(setting: Setting) -> list[Figure]:
    """Measure everything on one node, peers in the same rounds."""
    with contextlib.ExitStack() as held:
        url = held.enter_context(rabbitmq_server(setting.directory))
        ledgers = {
            "SQLite": f"sqlite:///{setting.directory / 'ledger.db'}",
            "PostgreSQL": held.enter_context(_migrated(setting)),
        }
        rivals = Rivals(setting.peers(), url, setting.directory)
        return [
            *_drains(setting, rivals, ledgers),
            *_enqueues(setting, url),
            _lone(setting, url),
            *(_lone_before(setting, url, name, it) for name, it in ledgers.items()),
        ]


@contextlib.contextmanager
def _migrated(setting: Setting) -> Iterator[str]:
    with postgres_server(setting.directory) as url:
        engine = connect(url, SystemClock())
        engine.migrate()
        engine.close()
        yield url


def _drains(setting: Setting, rivals: Rivals, ledgers: dict[str, str]) -> list[Figure]:
    number, few = setting.size(50_000, 5_000), setting.size(10_000, 1_000)
    some = setting.size(20_000, 2_000)
    before = {name: f"prefix={name.lower()}&ledger={it}" for name, it in ledgers.items()}
    taken = rounds(
        setting.size(5, 1),
        {
            "alone": lambda: _ours(rivals, "prefix=alone", number),
            "SQLite": lambda: _ours(rivals, before["SQLite"], some),
            "PostgreSQL": lambda: _ours(rivals, before["PostgreSQL"], some),
            "dramatiq": lambda: rivals.dramatiq_amqp(few),
            "taskiq": lambda: rivals.taskiq_amqp(few),
            "celery": lambda: rivals.celery_amqp(few),
        },
    )
    compared = [("alone", 1.5, peer) for peer in ("dramatiq", "taskiq", "celery")]
    compared += [(name, 1.0, peer) for name in ledgers for peer in ("dramatiq", "celery")]
    return [
        at_least(
            f"RabbitMQ {kind if kind == 'alone' else f'before {kind}'}: no-op jobs, end to end",
            taken[kind],
            beside=f"{peer} {rivals.peers.version(peer)}",
            reference=taken[peer],
            times=times,
        )
        for kind, times, peer in compared
    ]


def _ours(rivals: Rivals, options: str, number: int) -> float:
    """Return jobs/s of one worker of ours, counted as the peers' are."""
    ours = Rivals(Peers(Path(sys.executable)), f"{rivals.url}?{options}", rivals.directory)
    worker = [sys.executable, "-m", "backlane", "worker", "backlane_amqp_app:app"]
    return ours.drained("backlane_amqp_app", [worker], number)


def _enqueues(setting: Setting, url: str) -> list[Figure]:
    """Time `enqueue_many`, from the call to the last confirm; the node counts what it has."""
    number, times = setting.size(50_000, 5_000), setting.size(5, 1)
    store = Store(setting.directory / "rabbitmq-enqueue", f"{url}?prefix=enqueue")
    store.fill(1)
    rates = sorted(store.fill(number) for _ in range(times))
    store.close()
    if (there := amqp.waiting(url, physical("enqueue", QUEUE))) != 1 + number * times:
        raise Nothing(f"{there} messages are there of {1 + number * times} confirmed")
    rate = rates[len(rates) // 2]
    return [
        at_most(
            "RabbitMQ alone: enqueue_many, confirmed, of one job",
            1_000_000 / rate,
            unit="µs",
            bar=1_000_000 / CONFIRMED,
            beside=f"{rate:,.0f}/s, bar {CONFIRMED:,}/s",
        )
    ]


def _lone(setting: Setting, url: str) -> Figure:
    """Time a lone job, in parts; between them what the node itself takes for a message."""
    taken: list[float] = []
    node = amqp.Floor([], [])
    with _latency(setting, f"{url}?prefix=latency", "alone") as sample:
        for _ in range(setting.size(8, 1)):
            taken += sample(setting.size(150, 40))
            part = amqp.floor(url, setting.size(150, 40), 1 / RATE)
            node.brought.extend(part.brought)
            node.confirmed.extend(part.confirmed)
    return at_most(
        "RabbitMQ alone: enqueue to first line, 20 jobs/s, p50",
        percentile(taken, 50),
        unit="ms",
        bar=ALONE,
        beside=f"bare sockets, to delivery {percentile(node.brought, 50):.2f} ms, "
        f"to confirm {percentile(node.confirmed, 50):.2f} ms",
        note=f"{len(taken)} samples, p99 {percentile(taken, 99):.2f} ms "
        f"(bare {percentile(node.brought, 99):.2f} ms)",
    )


def _lone_before(setting: Setting, url: str, name: str, ledger: str) -> Figure:
    """Time a lone job of a broker before a ledger; nothing is promised of it."""
    options = f"prefix=lone-{name.lower()}&ledger={ledger}"
    with _latency(setting, f"{url}?{options}", name) as sample:
        taken = sample(setting.size(600, 40))
    return Figure(
        name=f"RabbitMQ before {name}: enqueue to first line, 20 jobs/s, p50",
        measured=f"{percentile(taken, 50):.3g} ms",
        beside=f"{len(taken)} samples, p99 {percentile(taken, 99):.2f} ms",
        ratio="",
        bar="none: reported",
        holds=True,
    )


@contextlib.contextmanager
def _latency(setting: Setting, url: str, name: str) -> Iterator[Sample]:
    """Run a worker, and yield what times so many jobs on it."""
    store = Store(setting.directory / f"rabbitmq-{name}", url)
    path = setting.directory / f"rabbitmq-{name}.stamps"
    process = WorkerProcess(store)
    process.start()
    try:
        samples(store, path, 20)  # until then the worker may still be starting
        yield lambda number: samples(store, path, number)
    finally:
        process.stop()
        store.close()
