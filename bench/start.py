"""Start and rest: command to first job, an idle worker's cost, the price of the import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.figure import Figure, Nothing, at_most, rounds
from bench.process import WorkerProcess, cpu_seconds, proportional_mib
from bench.setting import Setting
from bench.store import PATIENCE

SETTLE = 3.0  # seconds until a started worker has nothing left to do


def start(setting: Setting) -> list[Figure]:
    """Time from the command to the first line of a job that was waiting."""
    store = setting.store("start")
    path = setting.directory / "first"
    taken: list[float] = []
    for _ in range(setting.size(7, 2)):
        path.unlink(missing_ok=True)
        worker = WorkerProcess(store)
        store.work.stamp.enqueue(time.monotonic_ns(), str(path))
        began = time.monotonic()
        worker.start()
        try:
            while not path.exists():
                if time.monotonic() - began > PATIENCE:
                    raise Nothing(f"no job ran: {worker.log.read_text()[-500:]}")
                time.sleep(0.002)
            taken.append(time.monotonic() - began)
        finally:
            worker.stop()
    store.close()
    python = statistics.median(_elapsed("pass") for _ in range(5))
    return [
        at_most(
            "command to first job",
            statistics.median(taken),
            unit="s",
            bar=0.5,
            beside=f"python -c pass {python:.3f} s",
        )
    ]


def idle(setting: Setting) -> list[Figure]:
    """Watch a worker that has nothing to do."""
    seconds = 20.0 if setting.full else 3.0
    store = setting.store("idle")
    with WorkerProcess(store) as worker:
        time.sleep(SETTLE)
        family = worker.family()
        before, began = cpu_seconds(family), time.monotonic()
        time.sleep(seconds)
        used = (cpu_seconds(family) - before) / (time.monotonic() - began)
        memory = proportional_mib(family)
    store.close()
    if len(family) < 2:
        raise Nothing("there was no executor to watch")
    beside = f"{len(family)} processes"
    return [
        at_most("idle worker, processor", used * 100, unit="%", bar=1.0, beside=beside),
        at_most("idle worker, memory (PSS)", memory, unit="MiB", bar=40.0, beside=beside),
    ]


def imports(setting: Setting) -> list[Figure]:
    """Compare `import backlane` with `import asyncio`, each in a fresh interpreter."""
    taken = rounds(
        setting.size(21, 5),
        {"backlane": lambda: _imported("backlane"), "asyncio": lambda: _imported("asyncio")},
    )
    ours, theirs = (statistics.median(taken[name]) for name in ("backlane", "asyncio"))
    return [
        Figure(
            name="import backlane",
            measured=f"{ours * 1000:.0f} ms",
            beside=f"import asyncio {theirs * 1000:.0f} ms",
            ratio=f"{ours / theirs:.2f}x",
            bar="at most 2x",
            holds=ours <= 2 * theirs,
        )
    ]


def _imported(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def _elapsed(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began
