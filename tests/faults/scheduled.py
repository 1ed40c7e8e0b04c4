"""Three schedules that fire each second, one for each way to catch up, and their diary."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from tests.faults.diarist import BEAT_SECONDS, PATIENT, beats

from backlane import Backlane, Context, Queue, Retention
from backlane.model.schedule import CatchUp

SECOND = timedelta(seconds=1)
WAYS: tuple[CatchUp, ...] = ("none", "latest", "all")
MOST = 100  # that "all" catches up with
MILLISECONDS = 60  # of work, so that some kills hit a job


async def write(context: Context, diary: str) -> str:
    """Work for a while; the result is the moment that the job was made for."""
    for _ in beats(context, MILLISECONDS, diary):
        await asyncio.sleep(BEAT_SECONDS)
    return context.headers["due"]


def scheduled(url: str, diary: str) -> Backlane:
    """Make the application on the store that `url` names."""
    app = Backlane(
        url,
        queues=[Queue("default", max_jobs=100_000)],
        retention=Retention(done="forever"),  # days pass within a minute
    )
    task = app.task(name="write", retry=PATIENT)(write)
    for way in WAYS:
        app.schedule(SECOND, name=way, args=(diary,), catch_up=way, most=MOST)(task)
    return app


if "FAULTS_DIARY" in os.environ:  # what the workers of a fleet serve
    app = scheduled(os.environ["FAULTS_URL"], os.environ["FAULTS_DIARY"])
