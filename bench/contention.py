"""Contention: a worker's turn beside a producer that inserts without a pause."""

from __future__ import annotations

import subprocess
import sys
import time

from backlane.engine.protocol import Wanted
from backlane.model.job import Lease
from backlane.model.outcome import Settlement, Succeeded
from bench.bare import PAYLOAD
from bench.figure import Figure, Nothing, at_most, percentile
from bench.process import environment
from bench.setting import Setting
from bench.store import Store
from bench.workload import QUEUE

PAUSE = 0.002  # seconds between two turns of the worker


def contention(setting: Setting) -> list[Figure]:
    """Time turns (settle, then claim 100) alone and beside the producer, in slices."""
    store = setting.store("contention")
    store.fill(1)
    alone: list[float] = []
    beside: list[float] = []
    produced = 0
    for _ in range(setting.size(5, 1)):
        alone += _turns(store, 1.0, feeds=True)
        producer = _producer(store)
        beside += _turns(store, setting.size(4, 2), feeds=False)
        output, _ = producer.communicate("")
        produced += int(output.split()[-1])
    store.close()
    if produced < 100 or len(beside) < 100:
        raise Nothing(f"{produced} jobs were produced beside {len(beside)} turns")
    usual = percentile(alone, 50)
    return [
        at_most(
            "delay of a turn beside a busy producer, p99",
            percentile(beside, 99) - usual,
            unit="ms",
            bar=10.0,
            beside=f"undisturbed turn {usual:.2f} ms",
            note=f"{len(beside):,} turns, {produced:,} jobs enqueued one by one, "
            f"max {max(beside) - usual:.1f} ms; alone p99 {percentile(alone, 99):.2f} ms",
        )
    ]


def _producer(store: Store) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.producer"],
        env=environment(store),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has enqueued its first
    return process


def _turns(store: Store, seconds: float, *, feeds: bool) -> list[float]:
    """Return the milliseconds of each turn.

    With `feeds` each finds a job that we enqueued before it: a turn that finds none
    commits nothing, and would be no measure of one that does.
    """
    engine = store.work.app.engine
    wanted = Wanted(owner="bench", number=100, lease_ms=30_000, queues=(QUEUE,))
    held: list[Lease] = []
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if feeds:
            store.work.noop.enqueue(0, PAYLOAD)
        done = [Settlement(lease.job, lease.token, Succeeded()) for lease in held]
        began = time.perf_counter()
        turn = engine.run(engine.turn(done, [wanted]))
        taken.append((time.perf_counter() - began) * 1000)
        held = turn.claimed[0].leases
        time.sleep(PAUSE)
    engine.run(engine.settle([Settlement(it.job, it.token, Succeeded()) for it in held]))
    return taken
