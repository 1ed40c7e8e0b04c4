"""The posts of one worker: where there is room, who gets which job, who holds what."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from backlane.model.breaker import ResourceRecord, Standing
from backlane.model.job import Lane, Lease
from backlane.worker.channel import Buried, Changed, Lost, Turned
from backlane.worker.pacing import Pacing
from backlane.worker.post import Phase, Post
from backlane.worker.verdict import Stop

# Where no task runs in processes, only jobs that took one down do, and asking for them in
# each turn would cost every job of the other lane.
LOOK_EXCLUSIVE_SECONDS = 0.25

SHARED = int(Lane.SHARED)  # comparing with a member of an enum costs ten times as much

log = logging.getLogger("backlane.worker")


class Posts:
    """All executors of one worker.

    Args:
        pacing: says how much to hold ahead of the slots.
        limits: the most jobs to hold of a queue that has a limit of its own.
        exclusive_slots: the most jobs in exclusive executors at a time.
        hire: starts one more exclusive executor, adds its post here and returns it.
    """

    def __init__(
        self,
        pacing: Pacing,
        limits: Mapping[str, int],
        exclusive_slots: int,
        hire: Callable[[], Post],
    ) -> None:
        self.all: list[Post] = []
        self.held_of = dict.fromkeys(limits, 0)  # jobs held, of each queue that has a limit
        self.expects_exclusive = False  # some task asks for a process of its own
        self.look_exclusive_at = 0.0  # else: when to ask for jobs that crashed elsewhere
        self.no_exclusive_until = 0.0  # exclusive executors die at their start: wait
        self.is_observed = False  # somebody in the application listens to events
        self._pacing, self._exclusive_slots, self._hire = pacing, exclusive_slots, hire
        self._standing: dict[str, tuple[str, int]] = {}  # of resources, as told, and since when

    def of(self, lane: Lane) -> list[Post]:
        return [post for post in self.all if post.lane is lane]

    @property
    def number_held(self) -> int:
        return sum(len(post.held) for post in self.all)

    # -- room --

    def free(self, now: float) -> dict[Lane, int]:
        """Return how many jobs of each lane there is room for."""
        shared = self.of(Lane.SHARED)
        ahead = self._ahead(shared, now)
        is_asked = self.expects_exclusive or now >= self.look_exclusive_at
        is_able = now >= self.no_exclusive_until
        alone = self._exclusive_slots if is_asked and is_able else 0
        busy = sum(len(post.held) + len(post.ghosts) for post in self.of(Lane.EXCLUSIVE))
        return {
            Lane.SHARED: sum(post.room(ahead, now) for post in shared),
            Lane.EXCLUSIVE: max(0, alone - busy),
        }

    def has_room(self, now: float) -> bool:
        return any(self.free(now).values())

    def _ahead(self, shared: Sequence[Post], now: float) -> int:
        return self._pacing.ahead(now) // max(1, len(shared))

    def count_down(self, leases: Sequence[Lease]) -> None:
        """These are no longer held."""
        if self.held_of:
            for lease in leases:
                if lease.queue in self.held_of:
                    self.held_of[lease.queue] -= 1

    # -- who gets what --

    def give(self, leases: Sequence[Lease], now: float) -> list[Lease]:
        """Hand leases to executors; return those that nobody is there for."""
        if self.held_of:
            for lease in leases:
                if lease.queue in self.held_of:
                    self.held_of[lease.queue] += 1
        if now >= self.look_exclusive_at:
            self.look_exclusive_at = now + LOOK_EXCLUSIVE_SECONDS
        shared = [lease for lease in leases if lease.lane == SHARED]
        left = self._share_out(shared, now) if shared else []
        if len(shared) < len(leases):
            for lease in leases:
                if lease.lane != SHARED:
                    self._free_exclusive().give([lease], now)
        self.halt([lease.job for lease in leases if lease.cancelled])
        return left

    def _share_out(self, leases: list[Lease], now: float) -> list[Lease]:
        """Share leases out over the shared executors by the room they have."""
        posts = self.of(Lane.SHARED)
        ready = [post for post in posts if post.phase is Phase.READY]
        if not ready:  # all left or died during this turn: the next one to come gets them
            ready = [post for post in posts if post.phase is Phase.STARTING][:1]
        if not ready:
            return leases
        if len(ready) > 1:
            ready.sort(key=lambda post: len(post.held))
            ahead = self._ahead(posts, now)
            rooms = [post.room(ahead, now) for post in ready]
            total, number = max(1, sum(rooms)), len(leases)
            for post, room in zip(ready, rooms, strict=True):
                share = min(-(-number * room // total), len(leases))
                if share:
                    post.give(leases[:share], now)
                    leases = leases[share:]
        if leases:
            ready[0].give(leases, now)
        return []

    def _free_exclusive(self) -> Post:
        for post in self.of(Lane.EXCLUSIVE):
            if post.is_idle and post.phase in (Phase.STARTING, Phase.READY):
                return post
        return self._hire()

    # -- what is asked of those who hold --

    def halt(self, jobs: Iterable[bytes]) -> None:
        """These jobs were cancelled: ask their attempts to stop."""
        asked = list(jobs)
        if asked:
            for post in self.all:
                post.halt(asked, Stop.CANCELLED)

    def lose(self, leases: Iterable[tuple[bytes, int]]) -> None:
        """These leases (job, token) have gone to others: stop what runs under them."""
        for job, token in leases:
            for post in self.all:
                held = post.lose(job, token)
                if held is not None:
                    self.count_down([held.lease])
                    self.tell_lost(held.lease)

    def heed(self, resources: Iterable[ResourceRecord]) -> list[Lease]:
        """Resources stand so now: tell it, and take back what has not started of an open one.

        Returns leases that no executor has heard of yet; the others come back released.
        """
        unheard = []
        for record in resources:
            if record.state == Standing.OPEN:
                for post in self.all:
                    unheard += post.take_back(record.name)
            # By its time too: closed by hand meanwhile, and open again, it is news.
            stands = (record.state, record.since_ms)
            if self._standing.get(record.name) != stands:
                self._standing[record.name] = stands
                self._tell_turned(record)
        return unheard

    # -- what is told --

    def tell_lost(self, lease: Lease) -> None:
        log.warning(
            "job %s (task %s): its lease was lost; what it writes is refused",
            uuid.UUID(bytes=lease.job),
            lease.task,
        )
        self._to_observers(Lost(lease.job, lease.task, lease.queue))

    def tell_buried(self, job: bytes, task: str | None, queue: str, reason: str) -> None:
        log.warning("job %s (task %s) is a dead letter: %s", uuid.UUID(bytes=job), task, reason)
        self._to_observers(Buried(job, task, queue, reason))

    def tell_changed(self, owner: str, change: str) -> None:
        self._to_observers(Changed(owner, change))

    def _tell_turned(self, record: ResourceRecord) -> None:
        match record.state:
            case Standing.OPEN:
                log.warning("resource %s: its jobs wait: %s", record.name, record.reason)
            case Standing.TRYING:
                log.info("resource %s: trying whether it is well again", record.name)
            case _:
                log.warning("resource %s is well again: its jobs run", record.name)
        self._to_observers(Turned(record.name, record.state, record.reason))

    def _to_observers(self, frame: Lost | Buried | Changed | Turned) -> None:
        if self.is_observed:
            for post in self.of(Lane.SHARED):
                if post.phase is Phase.READY:
                    post.send(frame)
                    return

    def take_back_stalled(self) -> None:
        """Take back what waits unstarted behind long jobs."""
        now = time.monotonic()
        for post in self.of(Lane.SHARED):
            post.take_back_if_stalled(now)
