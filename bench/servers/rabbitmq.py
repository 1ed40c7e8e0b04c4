"""RabbitMQ, quorum queues and confirms: a broker alone beside dramatiq, taskiq and celery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.figure import Figure, at_least, at_most, percentile, rounds
from bench.latency import samples
from bench.peer import Peers
from bench.process import environment
from bench.servers.place import rabbitmq_server
from bench.servers.rival import Rivals
from bench.setting import Setting
from bench.store import Store

CONFIRMED = 8_000  # bulk enqueues a second that the issue asks for


def rabbitmq(setting: Setting) -> list[Figure]:
    """Measure everything on one node, peers in the same rounds."""
    with rabbitmq_server(setting.directory) as url:
        rivals = Rivals(setting.peers(), url, setting.directory)
        return [*_drains(setting, rivals), *_enqueues(setting, url), *_latency(setting, url)]


def _drains(setting: Setting, rivals: Rivals) -> list[Figure]:
    number, few = setting.size(50_000, 5_000), setting.size(10_000, 1_000)
    taken = rounds(
        setting.size(5, 1),
        {
            "ours": lambda: _ours(rivals, number),
            "dramatiq": lambda: rivals.dramatiq_amqp(few),
            "taskiq": lambda: rivals.taskiq_amqp(few),
            "celery": lambda: rivals.celery_amqp(few),
        },
    )
    return [
        at_least(
            "RabbitMQ alone: no-op jobs, end to end",
            taken["ours"],
            beside=f"{peer} {rivals.peers.version(peer)}",
            reference=taken[peer],
            times=1.5,
        )
        for peer in ("dramatiq", "taskiq", "celery")
    ]


def _ours(rivals: Rivals, number: int) -> float:
    """Return jobs/s of one worker of ours, counted as the peers' are."""
    ours = Rivals(Peers(Path(sys.executable)), f"{rivals.url}?prefix=bench", rivals.directory)
    worker = [sys.executable, "-m", "backlane", "worker", "backlane_amqp_app:app"]
    return ours.drained("backlane_amqp_app", [worker], number)


def _enqueues(setting: Setting, url: str) -> list[Figure]:
    number = setting.size(50_000, 5_000)
    store = Store(setting.directory / "rabbitmq-enqueue", f"{url}?prefix=enqueue")
    store.fill(1)
    rates = sorted(store.fill(number) for _ in range(setting.size(5, 1)))
    store.close()
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


def _latency(setting: Setting, url: str) -> list[Figure]:
    store = Store(setting.directory / "rabbitmq-latency", f"{url}?prefix=latency")
    worker = subprocess.Popen(
        [sys.executable, "-m", "backlane", "worker", "bench.served:app"],
        env=environment(store),
        stderr=subprocess.DEVNULL,
    )
    try:
        store.fill(1)
        path = setting.directory / "rabbitmq.stamps"
        samples(store, path, 20)  # until then the worker may still be starting
        taken = samples(store, path, setting.size(1_200, 60))
    finally:
        worker.terminate()
        worker.wait()
        store.close()
    return [
        at_most(
            "RabbitMQ alone: enqueue to first line, 20 jobs/s, p50",
            percentile(taken, 50),
            unit="ms",
            bar=3.0,
            beside=f"{len(taken)} samples, p99 {percentile(taken, 99):.2f} ms",
        )
    ]
