"""The application that `limits` runs: a rate, a concurrency, and a queue that is fair."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from backlane import Backlane, Limit, Queue
from backlane.task import Task
from bench.workload import BOUND, QUEUE, nap, noop

FAIR = "fair"
RATE, BURST = 100, 10  # a second
AT_A_TIME = 3


async def paced(number: int) -> int:
    """Do nothing, so many times a second."""
    return number


async def three(seconds: float) -> None:
    """Wait, three at a time."""
    await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Regulated:
    """An application on some store, and its tasks."""

    app: Backlane
    noop: Task[[int, str], None, None]
    paced: Task[[int], Coroutine[Any, Any, int], int]
    three: Task[[float], Coroutine[Any, Any, None], None]
    nap: Task[[float], Coroutine[Any, Any, None], None]


def regulated(url: str) -> Regulated:
    """Make the application on the store that `url` names."""
    rooms = [Queue(name, max_jobs=BOUND, max_bytes=2**40, fair=name == FAIR) for name in ROOMS]
    app = Backlane(url, queues=rooms)
    task = app.task(queue=QUEUE)
    rate, room = Limit(rate=f"{RATE}/s", burst=BURST), Limit(concurrency=AT_A_TIME)
    return Regulated(
        app,
        task(noop),
        app.task(queue="paced", limit=rate)(paced),
        app.task(queue="three", limit=room)(three),
        app.task(queue=FAIR)(nap),
    )


ROOMS = (QUEUE, "paced", "three", FAIR)

app = regulated(os.environ["BENCH_URL"]).app if "BENCH_URL" in os.environ else None
"""What the workers run."""
