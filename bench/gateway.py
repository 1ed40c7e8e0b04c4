"""The gateway: submissions a second, each durable before it is answered with 202."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from bench.bare import PAYLOAD
from bench.figure import Figure, Nothing
from bench.process import environment
from bench.setting import Setting
from bench.store import Store
from bench.volley import Orders, Score

CONNECTIONS = 100
RATE_BAR = 5_000.0  # a second
P99_BAR = 50.0  # ms
STOP_SECONDS = 15.0


def gateway(setting: Setting) -> list[Figure]:
    """Measure one process on durable SQLite, pressed by another on the same machine."""
    store = setting.store("gateway")
    seconds = setting.size(10, 3)
    with served(store) as port:
        scores = [shot(port, store.work.noop.name, seconds) for _ in range(setting.size(3, 1))]
    stored = store.record()
    store.close()
    told = sum(score.statuses.get("202", 0) for score in scores)
    if stored is None or stored.appended < told or not told:
        raise Nothing(f"{told} answers of 202, and {stored and stored.appended} jobs are stored")
    if any(score.statuses.keys() - {"202"} for score in scores):
        raise Nothing(f"not all were accepted: {[score.statuses for score in scores]}")
    return _figures(scores)


def _figures(scores: Sequence[Score]) -> list[Figure]:
    rate = statistics.median(score.rate for score in scores)
    p50 = statistics.median(score.p50 for score in scores)
    p99 = statistics.median(score.p99 for score in scores)
    load = os.getloadavg()[0]
    return [
        Figure(
            name=f"POST -> 202, {CONNECTIONS} connections",
            measured=f"{rate:,.0f}/s",
            beside="",
            ratio=f"{rate / RATE_BAR:.2f}x",
            bar=f"at least {RATE_BAR:,.0f}/s",
            holds=rate >= RATE_BAR,
            note=f"load average {load:.1f}",
        ),
        Figure(
            name="... its p99",
            measured=f"{p99:.1f} ms",
            beside=f"p50 {p50:.1f} ms",
            ratio=f"{p99 / P99_BAR:.2f}",
            bar=f"at most {P99_BAR:g} ms",
            holds=p99 <= P99_BAR,
        ),
    ]


def shot(port: int, task: str, seconds: float) -> Score:
    """Send submissions from a process of its own and return what it met."""
    body = msgspec.json.encode({"arguments": {"_n": 7, "_text": PAYLOAD}}).decode()
    orders = Orders(port, f"/v1/tasks/{task}/jobs", body, CONNECTIONS, seconds)
    done = subprocess.run(
        [sys.executable, "-m", "bench.volley", msgspec.json.encode(orders).decode()],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise Nothing(f"the volley failed: {done.stderr[-500:]}")
    return msgspec.json.decode(done.stdout, type=Score)


@contextmanager
def served(store: Store) -> Iterator[int]:
    """Run `backlane serve` on a store within the block; yield its port."""
    command = (sys.executable, "-m", "backlane", "serve", "bench.served:app", "--port", "0")
    process = subprocess.Popen(
        command, env=environment(store), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise Nothing("the gateway said no URL")
        yield int(url.rpartition(":")[2])
        process.send_signal(signal.SIGTERM)
        if (status := process.wait(STOP_SECONDS)) != 0:
            raise Nothing(f"the gateway ended with {status} on SIGTERM")
    finally:
        # The session is this process's own: it was started above.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
