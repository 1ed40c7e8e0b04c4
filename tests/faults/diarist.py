"""Tasks that keep a diary: what the workers of the fault tests run.

Every attempt writes its start, a sign of life each few milliseconds, and its end, to a
file opened for appending: one `write` a line, so that lines of many processes never
mix, and a killed process leaves what it had written. Times are monotonic nanoseconds,
which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backlane import Backlane, Context, Queue, Retry, Task

QUEUE = "load"
BEAT_SECONDS = 0.008

# No kill may be the last: what the campaign judges is that every job ends as succeeded.
PATIENT = Retry(attempts=1000, base=0.01, cap=0.05)


def in_thread(context: Context, milliseconds: int, diary: str) -> int:
    """Work in a thread; the result is the process that did it."""
    for _ in beats(context, milliseconds, diary):
        time.sleep(BEAT_SECONDS)
    return os.getpid()


async def in_loop(context: Context, milliseconds: int, diary: str) -> int:
    """Work as a coroutine."""
    for _ in beats(context, milliseconds, diary):
        await asyncio.sleep(BEAT_SECONDS)
    return os.getpid()


def in_process(context: Context, milliseconds: int, diary: str) -> int:
    """Work alone in a process."""
    for _ in beats(context, milliseconds, diary):
        time.sleep(BEAT_SECONDS)
    return os.getpid()


def beats(context: Context, milliseconds: float, diary: str) -> Iterator[None]:
    """Write the diary of an attempt; what happens between two signs is the caller's."""
    file = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = time.monotonic_ns()
    who = f"{context.id.hex} {os.getpid()} {began}"
    os.write(file, f"start {who} {began}\n".encode())
    while time.monotonic_ns() < began + milliseconds * 1_000_000:
        yield
        os.write(file, f"alive {who} {time.monotonic_ns()}\n".encode())
    os.write(file, f"end {who} {time.monotonic_ns()}\n".encode())
    os.close(file)


@dataclass(frozen=True, slots=True)
class Diarist:
    """An application on some store, and its tasks."""

    app: Backlane
    in_thread: Task[[int, str], Any, int]
    in_loop: Task[[int, str], Any, int]
    in_process: Task[[int, str], Any, int]


def diarist(url: str) -> Diarist:
    """Make the application on the store that `url` names."""
    app = Backlane(url, queues=[Queue(QUEUE, max_jobs=1_000_000)])
    return Diarist(
        app,
        app.task(queue=QUEUE, retry=PATIENT)(in_thread),
        app.task(queue=QUEUE, retry=PATIENT)(in_loop),
        app.task(queue=QUEUE, retry=PATIENT, runs_in="process")(in_process),
    )
