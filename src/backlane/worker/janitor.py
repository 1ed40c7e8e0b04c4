"""The janitor: sweeps the store a little, about each second.

Every worker sweeps, so there is none that has to live. A sweep is bounded, comes at a
random time so that workers do not meet, and waits while the store is busy with jobs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from backlane.engine.protocol import Engine
from backlane.engine.retention import Retention
from backlane.errors import BacklaneError
from backlane.worker.pacing import Pacing
from backlane.worker.posts import Posts

log = logging.getLogger("backlane.worker")

SWEEP_SECONDS = 1.0
SWEEP_ROWS = 500  # some 5 ms of the store's writer
MORE_SECONDS = 0.1
BUSY_TURN_SECONDS = 0.02  # turns take that long when many share the store
PATIENCE_SECONDS = 5.0  # then it sweeps beside the load


class Janitor:
    """Sweeps one engine for as long as its worker runs."""

    def __init__(self, engine: Engine, posts: Posts, pacing: Pacing, retention: Retention) -> None:
        self._engine, self._posts, self._pacing = engine, posts, pacing
        self._retention = retention

    async def serve(self) -> None:
        """Sweep until cancelled."""
        swept_at = time.monotonic()
        pause = SWEEP_SECONDS
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spread
            is_busy = self._pacing.turn_seconds > BUSY_TURN_SECONDS
            if is_busy and time.monotonic() - swept_at < PATIENCE_SECONDS:
                continue
            pause = MORE_SECONDS if await self.sweep() else SWEEP_SECONDS
            swept_at = time.monotonic()

    async def sweep(self) -> bool:
        """Sweep once; True when more was left to do."""
        try:
            swept = await self._engine.arun(self._engine.sweep(SWEEP_ROWS, self._retention))
        except BacklaneError as error:
            log.debug("no sweep this time: %s", error)
            return False
        for job in swept.buried:
            self._posts.tell_buried(job, None, "", "crashed")
        return swept.more
