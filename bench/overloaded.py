"""The application that the overload runs on: naps of 20 ms, and a wait of 5 s at most."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from backlane import Backlane, Queue

NAP_SECONDS = 0.02
SLOTS = 20
MAX_WAIT_SECONDS = 5.0
QUEUE = "naps"
MAX_JOBS = 20_000

app = Backlane(
    os.environ.get("BENCH_URL", "memory://"),
    queues=[Queue(QUEUE, max_jobs=MAX_JOBS, max_wait=timedelta(seconds=MAX_WAIT_SECONDS))],
)


@app.task(queue=QUEUE, name="nap")
async def nap(seconds: float = NAP_SECONDS) -> None:
    """Wait, as a call to another service does."""
    await asyncio.sleep(seconds)
