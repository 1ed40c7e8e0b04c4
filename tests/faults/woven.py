"""Workflows under kills: leaves and callbacks that keep a diary, and jobs of steps."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from tests.faults.diarist import BEAT_SECONDS, PATIENT, beats

from backlane import Backlane, Context, Queue, Task

SMALL = "small"
SMALL_BOUND = 300
LEAF_SECONDS = 0.03
GATHER_MILLISECONDS = 25
STEPS = 5
STEP_SECONDS = 0.015


async def leaf(number: int) -> int:
    """Take long enough that a kill finds some at work."""
    await asyncio.sleep(LEAF_SECONDS)
    return number


async def gather(context: Context, numbers: list[int], diary: str) -> list[int]:
    """Take what the leaves resulted in, and a while."""
    for _ in beats(context, GATHER_MILLISECONDS, diary):
        await asyncio.sleep(BEAT_SECONDS)
    return [len(numbers), sum(numbers)]


def stride(context: Context, diary: str) -> list[int]:
    """Do one step behind the other; each writes that it is done, and again when it is kept."""
    file = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def walk(number: int) -> int:
        os.write(file, f"{context.id.hex} done {number}\n".encode())
        time.sleep(STEP_SECONDS)
        return 10 * number

    found = []
    try:
        for number in range(STEPS):
            found.append(context.step(f"step {number}", walk, number))
            os.write(file, f"{context.id.hex} kept {number}\n".encode())
            time.sleep(STEP_SECONDS)
    finally:
        os.close(file)
    return found


@dataclass(frozen=True, slots=True)
class Woven:
    """An application on some store, and its tasks."""

    app: Backlane
    leaf: Task[[int], Any, int]
    small: Task[[int], Any, int]
    gather: Task[..., Any, list[int]]  # a chord gives the numbers
    stride: Task[[str], Any, list[int]]


def woven(url: str) -> Woven:
    """Make the application on the store that `url` names."""
    app = Backlane(
        url,
        queues=[
            Queue("default", max_jobs=1_000_000),
            Queue(SMALL, max_jobs=SMALL_BOUND),
            Queue("strides"),
        ],
    )
    return Woven(
        app,
        app.task(name="leaf", retry=PATIENT)(leaf),
        app.task(name="small", retry=PATIENT, queue=SMALL)(leaf),
        app.task(name="gather", retry=PATIENT)(gather),
        app.task(name="stride", retry=PATIENT, queue="strides")(stride),
    )


app = woven(os.environ["FAULTS_URL"]).app if "FAULTS_URL" in os.environ else None
"""What the workers of a fleet serve."""
