"""The catalogue: every benchmark by name, in the order in which they run."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.aside import aside
from bench.chord import chord
from bench.contention import contention
from bench.depth import depth, history
from bench.enqueue import enqueue
from bench.figure import Figure
from bench.gateway import gateway
from bench.latency import latency, round_trip
from bench.limits import limits
from bench.no_op import no_op
from bench.overload import overload
from bench.servers.postgres import postgres
from bench.servers.rabbitmq import rabbitmq
from bench.servers.redis import redis
from bench.setting import Setting
from bench.sqs import sqs
from bench.start import idle, imports, start
from bench.storm.figures import storm
from bench.streams import streams
from bench.waiting import waiting

RESULTS = Path(__file__).parent / "results"  # on the project's disk: /tmp may be memory

CATALOGUE: dict[str, Callable[[Setting], list[Figure]]] = {
    "no-op": no_op,
    "enqueue": enqueue,
    "latency": latency,
    "round-trip": round_trip,
    "waiting": waiting,
    "streams": streams,
    "gateway": gateway,
    "contention": contention,
    "depth": depth,
    "history": history,
    "aside": aside,
    "chord": chord,
    "limits": limits,
    "overload": overload,
    "postgres": postgres,
    "redis": redis,
    "sqs": sqs,
    "rabbitmq": rabbitmq,
    "start": start,
    "idle": idle,
    "import": imports,
    "storm": storm,
}


def measured(names: Sequence[str], *, full: bool, tell: Callable[[str], None]) -> list[Figure]:
    """Run benchmarks one after the other; one that raises is a figure that fails."""
    RESULTS.mkdir(exist_ok=True)
    figures: list[Figure] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
            found = _attempted(name, Setting(full, Path(directory), RESULTS))
        figures += found
        tell(f"{name}: {_verdict(found)} after {time.monotonic() - began:.0f} s")
        gc.collect()
    return figures


def _attempted(name: str, setting: Setting) -> list[Figure]:
    try:
        return CATALOGUE[name](setting)
    except Exception as error:
        # The other figures are still worth having; this one is told as it failed.
        told = " ".join([str(error), *getattr(error, "__notes__", [])])
        return [
            Figure(
                name=name,
                measured="nothing",
                beside="",
                ratio="",
                bar="",
                holds=False,
                note=f"{type(error).__name__}: {told}",
            )
        ]


def _verdict(figures: Iterable[Figure]) -> str:
    return "pass" if all(figure.holds for figure in figures) else "FAIL"
