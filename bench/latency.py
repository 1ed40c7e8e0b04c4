"""Latency across processes: enqueue to the function's first line, and to its result."""

from __future__ import annotations

import time
from pathlib import Path

from bench.bare import insert_rate, paced_insert_ms
from bench.figure import Figure, Nothing, at_least, at_most, percentile, rounds
from bench.process import WorkerProcess
from bench.setting import Setting
from bench.store import PATIENCE, Store, round_trips

RATE = 20.0  # jobs/s: an idle worker, woken for each
WALL = 300  # samples, as in the study of the peers


def latency(setting: Setting) -> list[Figure]:
    """Send 20 jobs a second; the clock starts before the enqueue, so its commit counts."""
    store = setting.store("latency")
    with WorkerProcess(store):
        taken = samples(store, setting.directory / "stamps", setting.size(1_200, 60))
    store.close()
    raw = paced_insert_ms(setting.directory, setting.size(200, 20), 1 / RATE)
    walls = [taken[n : n + WALL] for n in range(0, len(taken) - WALL + 1, WALL)]
    third_worst = ", ".join(f"{percentile(wall, 99):.2f}" for wall in walls)
    name = "enqueue to first line, 20 jobs/s"
    return [
        at_most(
            f"{name}, p50",
            percentile(taken, 50),
            unit="ms",
            bar=1.0,
            beside=f"raw insert at that pace {raw:.2f} ms",
        ),
        at_most(
            f"{name}, p99",
            percentile(taken, 99),
            unit="ms",
            bar=5.0,
            beside=f"{len(taken)} samples, max {max(taken):.2f} ms",
            note=f"p99 of each {WALL} samples: {third_worst} ms" if walls else "",
        ),
    ]


def samples(store: Store, path: Path, number: int) -> list[float]:
    """Return milliseconds from enqueue to first line."""
    path.unlink(missing_ok=True)
    due = time.monotonic()
    for _ in range(number):
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        store.work.stamp.enqueue(time.monotonic_ns(), str(path))
    limit = time.monotonic() + PATIENCE
    while len(lines := path.read_text().split() if path.exists() else []) < number:
        if time.monotonic() > limit:
            raise Nothing(f"{len(lines)} of {number} jobs ran")
        time.sleep(0.05)
    return [int(line) / 1e6 for line in lines]


def round_trip(setting: Setting) -> list[Figure]:
    """Enqueue and wait for the result, one after the other."""
    seconds = 1.0 if setting.full else 0.3
    store = setting.store("round-trip")
    with WorkerProcess(store):
        taken = rounds(
            setting.size(7, 2),
            {
                "raw": lambda: insert_rate(setting.directory, seconds / 2),
                "there and back": lambda: round_trips(store, seconds),
            },
        )
    store.close()
    return [
        at_least(
            "enqueue and wait for the result",
            taken["there and back"],
            beside="raw insert a commit",
            reference=taken["raw"],
            times=0.2,
        )
    ]
