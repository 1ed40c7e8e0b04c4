"""A post: one executor as its dispatcher sees it, and what it holds there.

Knows which job sits at which place, and, from the marks, which of them have started:
so that when the executor dies, each of its jobs gets the outcome it deserves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from enum import Enum, auto

import msgspec

from backlane.model.job import Lane, Lease
from backlane.model.outcome import Outcome, Released, Settlement
from backlane.worker.channel import Channel, Drain, Frame, Halt, Ping, Run, TakeBack
from backlane.worker.crew import STARTED, UNSTARTED, Marks
from backlane.worker.pacing import AHEAD_MOST
from backlane.worker.verdict import Stop, crashed

log = logging.getLogger("backlane.worker")

SILENT_SECONDS = 5.0
STALLED_SECONDS = 0.1  # held ahead and nothing ended for so long: others may be faster


class Phase(Enum):
    """Where an executor is in its life."""

    STARTING = auto()
    READY = auto()
    LEAVING = auto()  # finishes what it runs, starts nothing more
    GONE = auto()


class Held(msgspec.Struct, gc=False):
    """A lease that an executor holds. In no cycle, so the collector need not look at it."""

    lease: Lease
    place: int
    since: float
    started_at: float = 0.0  # when it was first seen to have started
    is_overdue: bool = False  # it cannot be ended, and holds no slot any more
    stop: Stop | None = None  # what its executor was told
    asked_at: float = 0.0
    verdict: Outcome | None = None  # what becomes of it once its executor is dead


class Post:
    """One executor: its channel, its slots, and the leases it holds.

    Args:
        lane: which jobs it runs.
        slots: how many of them at a time.
        marks: memory shared with it, one byte a place.
    """

    def __init__(self, name: str, lane: Lane, slots: int, marks: Marks) -> None:
        self.name, self.lane, self.slots, self.marks = name, lane, slots, marks
        self.phase = Phase.STARTING
        self.held: dict[bytes, Held] = {}
        self.ghosts: dict[tuple[bytes, int], Held] = {}  # lost or settled while they run
        self.ran = 0  # jobs ended since it started
        self.born_at = self.heard_at = self.ended_at = time.monotonic()
        self.pinged_at = 0.0
        self.is_silent = False
        self.is_being_replaced = False
        self.rss_kib = 0
        self._no_ahead_until = 0.0
        self._overdue = 0
        self._channel: Channel | None = None
        self._unsent: list[Held] = []
        self._free = list(range(places(slots) - 1, -1, -1))

    # -- what it has room for --

    def room(self, ahead: int, now: float) -> int:
        """Return how many more jobs to give it, holding up to `ahead` beyond its slots."""
        if self.phase is not Phase.READY:
            return 0
        if self.lane is Lane.EXCLUSIVE or now < self._no_ahead_until:
            ahead = 0
        busy = len(self.held) + len(self.ghosts) - self._overdue
        return max(0, self.slots + ahead - busy)

    @property
    def is_idle(self) -> bool:
        return not self.held and not self.ghosts

    # -- what it is told --

    def open(self, channel: Channel) -> None:
        """Start to talk: the executor is ready for jobs."""
        self._channel = channel
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY
        waiting, self._unsent = self._unsent, []
        self._run(waiting)
        if self.phase is Phase.LEAVING:  # told to before it could hear
            self.send(Drain())

    def send(self, frame: Frame) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def give(self, leases: Iterable[Lease], now: float) -> None:
        """Hand jobs over; kept here until the executor is ready."""
        free = self._free
        given = [Held(lease, free.pop(), now) for lease in leases]
        self.held.update({held.lease.job: held for held in given})
        if self._channel is None:
            self._unsent += given
        else:
            self._run(given)

    def _run(self, given: Sequence[Held]) -> None:
        if given:
            for held in given:
                self.marks[held.place] = UNSTARTED
            self.send(Run([held.lease for held in given], [held.place for held in given]))

    def halt(self, jobs: Iterable[bytes], why: Stop) -> list[Held]:
        """Ask attempts to stop; those asked before are not asked again."""
        asked = []
        for job in jobs:
            held = self.held.get(job)
            if held is not None and held.stop is None:
                held.stop, held.asked_at = why, time.monotonic()
                asked.append(held)
        if asked:
            self.send(Halt([(held.place, held.lease.token) for held in asked], why))
        return asked

    def lose(self, job: bytes, token: int) -> Held | None:
        """The lease is another's: have its attempt stopped, and forget it."""
        held = self.complete(job, token)
        if held is not None:
            self.send(Halt([(held.place, token)], Stop.LOST))
        return held

    def complete(self, job: bytes, token: int) -> Held | None:
        """The attempt has settled its job, and runs on: only its place is still taken."""
        held = self.held.get(job)
        if held is None or held.lease.token != token:
            return None
        del self.held[job]
        self.ghosts[job, token] = held
        return held

    def leave(self) -> None:
        """Have it give back what it has not started, finish the rest, and end."""
        if self.phase in (Phase.STARTING, Phase.READY):
            self.phase = Phase.LEAVING
            self.send(Drain())

    def take_back_if_stalled(self, now: float) -> None:
        """Take back what waits behind long jobs: another worker may have a free slot."""
        if len(self.held) <= self.slots or now - self.ended_at < STALLED_SECONDS:
            return
        self._no_ahead_until = now + 1.0
        self.ended_at = now
        marks = self.marks
        waiting = [held.place for held in self.held.values() if marks[held.place] == UNSTARTED]
        if waiting:
            self.send(TakeBack(waiting))

    def take_back(self, resource: str) -> list[Lease]:
        """Take back the jobs of a resource that have not started; return those unsent."""
        unsent = [held for held in self._unsent if held.lease.resource == resource]
        for held in unsent:
            self._unsent.remove(held)
            del self.held[held.lease.job]
            self._free.append(held.place)
        waiting = [
            held.place
            for held in self.held.values()
            if held.lease.resource == resource and self.marks[held.place] == UNSTARTED
        ]
        if waiting:
            self.send(TakeBack(waiting))
        return [held.lease for held in unsent]

    # -- what it says --

    def has_spoken(self) -> None:
        self.heard_at = time.monotonic()
        if self.is_silent:
            self.is_silent = False
            log.warning("executor %s answers again", self.name)

    def has_started(self, held: Held, now: float) -> bool:
        """Say whether a job was seen to have started; `held.started_at` is when."""
        if not held.started_at and self.marks[held.place] == STARTED:
            held.started_at = now
        return held.started_at > 0

    def check_silence(self, now: float) -> None:
        """Ask an executor that is long silent for a sign of life; report it if none comes."""
        if self.is_idle or now - self.heard_at < SILENT_SECONDS:
            return
        if self.pinged_at < self.heard_at:
            self.pinged_at = now
            self.send(Ping())
        elif now - self.pinged_at > SILENT_SECONDS and not self.is_silent:
            self.is_silent = True
            log.warning(
                "executor %s has not answered for %.0f s (blocked or stopped); it holds %d jobs",
                self.name,
                now - self.heard_at,
                len(self.held),
            )

    def settled(
        self, settlements: Sequence[Settlement], now: float
    ) -> list[tuple[Settlement, Lease]]:
        """Take outcomes in; return those whose leases are still ours, as far as we know."""
        self.heard_at = self.ended_at = now
        self.ran += len(settlements)
        held_by_job, free = self.held, self._free
        ended = []
        for settlement in settlements:
            held = held_by_job.get(settlement.job)
            if held is not None and held.lease.token == settlement.token:
                del held_by_job[settlement.job]
                ended.append((settlement, held.lease))
            else:
                held = self.ghosts.pop((settlement.job, settlement.token), None)
                if held is None:
                    continue
            free.append(held.place)
            self._overdue -= held.is_overdue
        return ended

    def has_overdue(self, place: int) -> None:
        """An attempt cannot be ended: its executor goes on with its slot, and so do we."""
        for held in [*self.held.values(), *self.ghosts.values()]:
            if held.place == place and not held.is_overdue:
                held.is_overdue = True
                self._overdue += 1

    def bequeath(self, will: Iterable[Settlement]) -> None:
        """Remember what becomes of attempts once this executor is gone."""
        for settlement in will:
            held = self.held.get(settlement.job)
            if held is not None and held.lease.token == settlement.token:
                held.verdict = held.verdict or settlement.outcome

    def die(self, how: str) -> list[tuple[Lease, Outcome]]:
        """The executor is gone: return what becomes of each job it held."""
        self.phase = Phase.GONE
        if self._channel is not None:
            self._channel.close()
        last = [(held.lease, self._last_outcome(held, how)) for held in self.held.values()]
        self.held.clear()
        self.ghosts.clear()
        return last

    def _last_outcome(self, held: Held, how: str) -> Outcome:
        if held.verdict is not None:
            return held.verdict
        if self._channel is not None and self.marks[held.place] == STARTED:
            return crashed(held.lease, alone=self.lane is Lane.EXCLUSIVE, how=how)
        return Released()  # not started; or ended, and its outcome died with the process


def places(slots: int) -> int:
    """Return how many jobs a post of `slots` slots can hold at most."""
    return slots + AHEAD_MOST
