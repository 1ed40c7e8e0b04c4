"""What is measured alike on every server: the latency of a lone job."""

from __future__ import annotations

from pathlib import Path

from bench.figure import Figure, at_most, percentile
from bench.latency import samples
from bench.process import WorkerProcess
from bench.setting import Setting
from bench.store import Store


def latency(setting: Setting, store: Store, name: str, *, p50: float, p99: float) -> list[Figure]:
    """Time 20 jobs a second from before their enqueue to the function's first line."""
    path: Path = setting.directory / f"{name}.stamps"
    with WorkerProcess(store):
        taken = samples(store, path, setting.size(1_200, 60))
    title = f"{name}: enqueue to first line, 20 jobs/s"
    note = f"{len(taken)} samples, max {max(taken):.2f} ms"
    return [
        at_most(f"{title}, p50", percentile(taken, 50), unit="ms", bar=p50),
        at_most(f"{title}, p99", percentile(taken, 99), unit="ms", bar=p99, beside=note),
    ]
