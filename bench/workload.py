"""The application that the benchmarks run: its tasks do nothing, or wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from backlane import Backlane, Queue
from backlane.task import Task

QUEUE = "bench"
BOUND = 10_000_000  # jobs: the default bound is below the deepest queue measured
HISTORIES = tuple(f"history-{n}" for n in range(6))  # each below the retention of a queue


def noop(_n: int, _text: str) -> None:
    """Do nothing."""


async def anoop(_n: int, _text: str) -> None:
    """Do nothing, as a coroutine."""


async def nap(seconds: float) -> None:
    """Wait, as a call to another service does."""
    await asyncio.sleep(seconds)


def stamp(sent_ns: int, path: str) -> None:
    """Write down how long ago the caller began to enqueue this."""
    late = time.monotonic_ns() - sent_ns
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, b"%d\n" % late)
    os.close(handle)


def gather(found: list[None], path: str) -> int:
    """Write down that it was called, and return with how many results."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, b"called\n")
    os.close(handle)
    return len(found)


@dataclass(frozen=True, slots=True)
class Workload:
    """An application on some store, and its tasks."""

    app: Backlane
    noop: Task[[int, str], None, None]
    anoop: Task[[int, str], Coroutine[Any, Any, None], None]
    nap: Task[[float], Coroutine[Any, Any, None], None]
    stamp: Task[[int, str], None, None]
    gather: Task[[list[None], str], int, int]


def workload(url: str, bound: int = BOUND) -> Workload:
    """Make the application on the store that `url` names; its queues hold `bound` jobs each."""
    queues = [Queue(name, max_jobs=bound, max_bytes=2**40) for name in (QUEUE, *HISTORIES)]
    app = Backlane(url, queues=queues)
    task = app.task(queue=QUEUE)
    return Workload(app, task(noop), task(anoop), task(nap), task(stamp), task(gather))
