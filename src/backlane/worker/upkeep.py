"""The upkeep: what a worker does by the clock, beside its turns.

Renews leases, says that the worker is there, asks who is known dead, ends what runs
past its limits in exclusive executors, takes back what waits behind long jobs, and
recycles executors. Each is a loop of its own, so that none waits for another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

from backlane.engine.protocol import Presence
from backlane.engine.retention import Retention
from backlane.errors import BacklaneError
from backlane.model.job import Lane
from backlane.model.outcome import Cancelled
from backlane.worker.dispatcher import Dispatcher
from backlane.worker.janitor import Janitor
from backlane.worker.post import Held, Phase, Post
from backlane.worker.verdict import Stop, hard_ms, overran

log = logging.getLogger("backlane.worker")

BEAT_SECONDS = 5.0
DEPARTED_SECONDS = 0.25  # a killed worker's jobs are to run again within a second
LOOK_SECONDS = 0.1  # how exact limits of exclusive jobs are
IDLE_LOOK_SECONDS = 0.5
COOPERATE_SECONDS = 5.0  # for a cancelled job that can hear it; then its process is killed
RECYCLE_SECONDS = 2.0

Kill = Callable[[Post], None]
Replace = Callable[[Post, str], None]


class Upkeep:
    """Keeps one worker's leases and executors in order.

    Args:
        most: the slots that a queue's jobs can take, where that is fewer than all.
        kill: ends an executor's process.
        deaf: says whether a task cannot hear a request to stop.
        retention: how long the store's history is kept.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        slots: int,
        most: Mapping[str, int],
        kill: Kill,
        deaf: Callable[[str], bool],
        retention: Retention,
    ) -> None:
        self._dispatcher, self._engine = dispatcher, dispatcher.engine
        self._posts, self._wants = dispatcher.posts, dispatcher.wants
        self._slots, self._most, self._kill, self._deaf = slots, most, kill, deaf
        self._janitor = Janitor(self._engine, self._posts, dispatcher.pacing, retention)

    async def serve(self) -> None:
        """Do all of it until cancelled."""
        renewal = self._wants.lease_ms / 3000
        async with asyncio.TaskGroup() as group:
            group.create_task(_each(renewal, self.renew))
            group.create_task(_each(BEAT_SECONDS, self.announce))
            group.create_task(_each(DEPARTED_SECONDS, self.seek_departed))
            group.create_task(_each(LOOK_SECONDS, self.look, idle=IDLE_LOOK_SECONDS))
            group.create_task(self._janitor.serve())

    async def renew(self) -> None:
        """Extend the leases of all jobs that are with executors."""
        # A younger one is extended in good time by the next round.
        ripe = time.monotonic() - self._wants.lease_ms / 4000
        leases = [
            (held.lease.job, held.lease.token)
            for post in self._posts.all
            for held in post.held.values()
            if held.since < ripe
        ]
        if not leases:
            return
        extended = await self._engine.arun(self._engine.extend(leases, self._wants.lease_ms))
        tokens = dict(leases)
        self._posts.lose((job, tokens[job]) for job in extended.lost)
        self._posts.halt(extended.cancelled)

    async def announce(self, *, leaving: bool = False) -> None:
        """Say that this worker is there, or that it leaves."""
        presence = Presence(
            owner=self._wants.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._wants.names,
            slots=self._slots,
            running=self._posts.number_held,
            most=self._most,
            leaving=leaving,
        )
        await self._engine.arun(self._engine.announce(presence))

    async def seek_departed(self) -> None:
        """Ask for owners known dead: their jobs are claimed with the next turn."""
        departed = await self._engine.departed()
        if departed:
            self._dispatcher.departed = departed
            self._dispatcher.look_now()

    async def look(self) -> bool:
        """Look at all executors once; True when none holds a job."""
        now = time.monotonic()
        self._posts.take_back_stalled()
        for post in self._posts.all:
            post.check_silence(now)
            if post.lane is Lane.EXCLUSIVE and post.phase is not Phase.GONE:
                for held in list(post.held.values()):
                    self._limit(post, held, now)
        return not self._posts.number_held

    def _limit(self, post: Post, held: Held, now: float) -> None:
        """Ask a job alone in its process to stop, and end it when asking did not help."""
        if held.verdict is not None or not post.has_started(held, now):
            return
        lease, ran = held.lease, (now - held.started_at) * 1000
        soft, hard = lease.policy.soft_ms, hard_ms(lease)
        if soft is not None and ran >= soft:
            post.halt([lease.job], Stop.TIMEOUT)
        if held.stop is Stop.CANCELLED:
            patience = 0.0 if self._deaf(lease.task or "") else COOPERATE_SECONDS
            if now - held.asked_at >= patience:
                held.verdict = Cancelled()
        elif hard is not None and ran >= hard:
            held.verdict = overran(lease)
        if held.verdict is not None:
            self._kill(post)


async def _each(
    seconds: float, step: Callable[[], Awaitable[bool | None]], *, idle: float | None = None
) -> None:
    """Take a step about every `seconds`, or every `idle` when it says that all is quiet.

    An engine that is away is waited for: the dispatcher reports it.
    """
    while True:
        pause = seconds
        try:
            if await step() and idle is not None:
                pause = idle
        except BacklaneError as error:
            log.debug("not this time: %s", error)
            pause = min(seconds, 1.0)
        except Exception:
            log.exception("a part of the upkeep failed; it is tried again")
        await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - spread
