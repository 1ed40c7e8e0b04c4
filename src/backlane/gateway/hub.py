"""The hub: follows jobs for all streams and long polls of one gateway.

Each of them registers as a follower. One watch listens for the jobs of all, and a ring
wakes only those that follow the job. Since polling alone is the truth, jobs that nobody
rang for are read in batches too, about once a second where something happened lately and
every two seconds elsewhere. A follower that is slow misses records, never the newest.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heappop, heappush

from backlane.engine.hearing import Watch
from backlane.engine.protocol import Engine
from backlane.engine.selection import Selection
from backlane.errors import BacklaneError, JobNotFound
from backlane.model.job import JobRecord

log = logging.getLogger("backlane.gateway")

# A batch of 100 holds the interpreter for about 1 ms, which is what others wait for it.
BATCH = 100
LIVELY_SECONDS = 10.0  # after a change a job is looked at more often
LIVELY_POLL_SECONDS = 1.0
IDLE_POLL_SECONDS = 2.0
# How long a store that does not answer is left alone.
PATIENCE_SECONDS = 1.0
UNTOLD = -1  # a revision that no job has


class Follower:
    """Who follows one job."""

    __slots__ = ("_hub", "_newest", "_waker", "is_gone", "job", "revision")

    def __init__(self, hub: Hub, job: bytes, revision: int) -> None:
        self.job = job
        self.revision = revision  # the last one told
        self.is_gone = False
        self._hub = hub
        self._newest: JobRecord | None = None
        self._waker: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever come: the job is gone, or the gateway stops."""
        return self.is_gone or self._hub.is_stopped

    async def newer(self, seconds: float) -> JobRecord | None:
        """Wait for a record of a later revision; None when none came, or `wake` was called.

        Raises:
            JobNotFound: it is not stored, or is no more.
        """
        if self._newest is None and not self.is_over and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waker = loop.create_future()
            timer = loop.call_later(seconds, self.wake)
            try:
                await self._waker
            finally:
                timer.cancel()
                self._waker = None
        newest, self._newest = self._newest, None
        if newest is None and self.is_gone:
            raise JobNotFound(f"job {uuid.UUID(bytes=self.job)} is not stored any more")
        return newest

    def tell(self, record: JobRecord) -> None:
        """Give it a record, in place of one it has not taken."""
        if record.revision != self.revision:
            self.revision = record.revision
            self._newest = record
            self.wake()

    def lose(self) -> None:
        """Tell it that there is no such job."""
        self.is_gone = True
        self.wake()

    def wake(self) -> None:
        """End its wait."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def close(self) -> None:
        """Follow no longer."""
        self._hub.leave(self)


class Followed:
    """A job that is followed."""

    __slots__ = ("changed", "due", "followers", "revision")

    def __init__(self, now: float) -> None:
        self.followers: list[Follower] = []
        self.revision = UNTOLD
        self.changed = now
        self.due = 0.0  # when it is to be read though nobody rang


class Hub:
    """Follows the jobs of one event loop.

    Args:
        engine: returns the store that has them.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self.is_stopped = False
        self._engine = engine
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._followed: dict[bytes, Followed] = {}
        self._urgent: dict[bytes, None] = {}  # to be read at once, in order
        self._polls: list[tuple[float, bytes]] = []  # a heap: to be read by then
        self._watch: Watch | None = None
        self._waker: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many followers there are."""
        return self._number

    def follow(self, job: bytes, revision: int = UNTOLD) -> Follower:
        """Begin to follow a job, of which `revision` is known; close the follower later."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # of a server that ended; the same one never has two
            self._loop, self._number = loop, 0
            self._begin_anew()
        follower = Follower(self, job, revision)
        followed = self._followed.get(job)
        if followed is None:
            followed = self._followed[job] = Followed(loop.time())
            if self._watch is not None:
                self._watch.add((job,))
        followed.followers.append(follower)
        self._number += 1
        # What happened before it listened is found by reading now; where a revision is
        # known, its number alone tells whether that is needed.
        if revision == UNTOLD:
            self._urgent[job] = None
        else:
            self._poll(job, followed, loop.time())
        self._rouse()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="backlane-hub")
        return follower

    def leave(self, follower: Follower) -> None:
        """Take a follower off; called once or more."""
        followed = self._followed.get(follower.job)
        if followed is None or follower not in followed.followers:
            return
        followed.followers.remove(follower)
        self._number -= 1
        if not followed.followers:
            del self._followed[follower.job]
            self._urgent.pop(follower.job, None)
            if self._watch is not None:
                self._watch.discard((follower.job,))
        if not self._followed:
            self._rouse()

    def stop(self) -> None:
        """End all waits, now and later; called in the loop."""
        self.is_stopped = True
        for followed in self._followed.values():
            for follower in followed.followers:
                follower.wake()

    # -- following --

    async def _run(self) -> None:
        """Read what rang and what is due, until nobody follows anything."""
        listening: asyncio.Task[None] | None = None
        try:
            self._watch = self._hung()
            if self._watch is not None:
                listening = asyncio.create_task(self._listen(self._watch), name="backlane-hub-ear")
            while self._followed:
                try:
                    if not await self._read_urgent() and not await self._read_due():
                        await self._pause()
                except BacklaneError as error:
                    log.warning("jobs that are followed cannot be read (%s); trying again", error)
                    await asyncio.sleep(PATIENCE_SECONDS)
        finally:
            self._task = None
            watch, self._watch = self._watch, None
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            if watch is not None:
                watch.close()

    def _hung(self) -> Watch | None:
        try:
            return self._engine().watch(tuple(self._followed), starts=True)
        except (BacklaneError, OSError) as error:
            log.debug("no bell (%r); jobs are followed by polling", error)
            return None

    async def _listen(self, watch: Watch) -> None:
        while True:
            rang = await watch.arang(60.0)
            self._urgent.update((job, None) for job in rang if job in self._followed)
            self._rouse()
            if len(rang) > BATCH:
                # All of many: rings were lost, or only the whole store's change can be seen.
                await asyncio.sleep(LIVELY_POLL_SECONDS / 2)

    async def _read_urgent(self) -> bool:
        jobs = list(self._urgent)[:BATCH]
        for job in jobs:
            del self._urgent[job]
        if jobs:
            try:
                await self._read(jobs)
            except BaseException:
                self._urgent.update(dict.fromkeys(jobs))
                raise
        return bool(jobs)

    async def _read_due(self) -> bool:
        """Look at what nobody rang for: the records of what has changed are read next."""
        now = asyncio.get_running_loop().time()
        jobs: list[bytes] = []
        while self._polls and self._polls[0][0] <= now and len(jobs) < BATCH:
            due, job = heappop(self._polls)
            followed = self._followed.get(job)
            if followed is not None and followed.due == due and job not in self._urgent:
                jobs.append(job)
        if not jobs:
            return False
        try:
            await self._look(jobs)
        except BaseException:
            self._urgent.update(dict.fromkeys(jobs))
            raise
        return True

    async def _look(self, jobs: Sequence[bytes]) -> None:
        revisions = {one.id: one.revision for one in await self._found(jobs, brief=True)}
        now = asyncio.get_running_loop().time()
        for job in jobs:
            followed = self._followed.get(job)
            if followed is None:
                continue
            revision = revisions.get(job)
            if any(revision != follower.revision for follower in followed.followers):
                self._urgent[job] = None
            else:
                self._poll(job, followed, now + _patience(followed, now))

    async def _read(self, jobs: Sequence[bytes]) -> None:
        records = {one.id: one for one in await self._found(jobs, brief=False)}
        now = asyncio.get_running_loop().time()
        for job in jobs:
            followed = self._followed.get(job)
            if followed is None:
                continue
            record = records.get(job)
            if record is None:
                for follower in followed.followers:
                    follower.lose()
                continue
            if record.revision != followed.revision:
                followed.revision, followed.changed = record.revision, now
            for follower in followed.followers:
                follower.tell(record)
            self._poll(job, followed, now + _patience(followed, now))

    async def _found(self, jobs: Sequence[bytes], *, brief: bool) -> list[JobRecord]:
        engine = self._engine()
        selection = Selection(ids=tuple(jobs))
        page = await engine.arun(engine.find(selection, limit=len(jobs), brief=brief))
        return page.records

    # -- its own time --

    def _poll(self, job: bytes, followed: Followed, due: float) -> None:
        followed.due = due
        heappush(self._polls, (due, job))

    async def _pause(self) -> None:
        """Wait until something rings, or is due."""
        loop = asyncio.get_running_loop()
        self._waker = loop.create_future()
        due = self._polls[0][0] if self._polls else loop.time() + IDLE_POLL_SECONDS
        timer = loop.call_at(due, self._rouse)
        try:
            if not self._urgent and self._followed:
                await self._waker
        finally:
            timer.cancel()
            self._waker = None

    def _rouse(self) -> None:
        if self._waker is not None:
            with suppress(asyncio.InvalidStateError):
                self._waker.set_result(None)


def _patience(followed: Followed, now: float) -> float:
    is_lively = now - followed.changed < LIVELY_SECONDS
    return LIVELY_POLL_SECONDS if is_lively else IDLE_POLL_SECONDS
