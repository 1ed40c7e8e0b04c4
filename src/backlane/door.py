"""The door: who may come in, and when the others may come back.

While places are promised to callers who were refused, newcomers are refused at once,
without touching the store, unless the line is so short that the workers would soon be
idle. Whoever is refused gets a place on the queue's virtual clock, as a time to come
back and a signed ticket that keeps it. The hard bounds are the store's, and hold
whatever the door says.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from backlane.errors import QueueFull
from backlane.gauge import Line
from backlane.model.job import Job, Refusal
from backlane.model.pressure import ticket as tickets
from backlane.model.pressure.meter import Meter
from backlane.model.pressure.slots import LEAST_MS, LOW, MOST_MS, Ask, Room, SlotLine
from backlane.model.pressure.ticket import Ticket
from backlane.model.queue import DEFAULT_BOUNDS, Bounds

PROMISED = "promised"  # a refusal of the door itself: what room there is is kept for others
NO_WORKERS = "no_workers"

HURRIED = ""  # whose clock is apart, beside those of groups: jobs that would start too late
MOST_APART = 1_000  # clocks of groups a queue; of more the eldest go, and begin at now again


def turned_away(
    line: Line, jobs: Sequence[Job], ticket: str | None, secret: bytes | None, now_ms: int
) -> Refusal | None:
    """Refuse who would take a promised place, or whom nobody would serve. `now_ms` is wall time.

    Work born inside a job passes: it may be what makes room.
    """
    job, meter = jobs[0], line.meter
    sample = meter.sample
    if sample is None or job.parent is not None:
        return None
    bounds = sample.bounds
    if sample.slots == 0 and bounds.max_wait_ms and job.delay_ms <= 0:
        waited_ms = sample.oldest_ready_ms or 0
        if waited_ms > bounds.max_wait_ms:
            return Refusal(job.queue, NO_WORKERS, waited_ms, bounds.max_wait_ms, jobs=meter.depth)
    shown = _shown(ticket, job, secret, now_ms)
    # Without the lock, for this only reads: another coroutine of this very thread may hold
    # it while it waits for the store, and the loop would stand still for ever.
    room = line.slots.room(meter, bounds, job.priority, len(jobs), now_ms)
    if line.slots.may_enter(room, shown, len(jobs), now_ms):
        return None
    return Refusal(
        job.queue,
        PROMISED,
        meter.depth,
        _most(meter, bounds, job.priority),
        added=len(jobs),
        jobs=meter.depth,
        expected_ms=meter.expected_ms(job.priority),
    )


def _most(meter: Meter, bounds: Bounds, priority: int) -> int:
    """Return how many jobs the bounds come to: the longest line at the speed it has."""
    pace = meter.pace()
    if pace is None or bounds.max_wait_ms is None:
        return bounds.max_jobs
    return max(1, min(bounds.max_jobs, int(pace.starts[priority] * bounds.max_wait_ms / 1000)))


class Caller:
    """A caller who was refused, until it is told when to come back.

    Hold `lock` from `lacks` to `full`. What is lacking is reserved in the store and
    `granted`; where that cannot be, `full` goes by the clock of this process alone.
    """

    __slots__ = ("_clock", "_jobs", "_kept", "_line", "_now_ms", "_refusal", "_room", "_secret")

    def __init__(
        self,
        refusal: Refusal,
        jobs: Sequence[Job],
        line: Line | None,
        *,
        ticket: str | None,
        secret: bytes | None,
        now_ms: int,
    ) -> None:
        self._refusal, self._jobs, self._line = refusal, jobs, line
        self._secret, self._now_ms = secret, now_ms
        self._room = None if line is None else _room(line, refusal, jobs, now_ms)
        self._clock = None if line is None else _clock(line, refusal)
        shown = _shown(ticket, jobs[0], secret, now_ms)
        # One who came in time and met a full queue goes on before those who come later: its
        # ticket stays good for as long as it said, and no longer.
        self._kept = shown if shown is not None and shown.places >= len(jobs) else None

    @property
    def lock(self) -> threading.Lock | None:
        """What to hold; None where nothing is known that could be told."""
        return None if self._line is None or self._room is None else self._line.lock

    def lacks(self) -> Ask | None:
        """Return the slots to reserve in the store; None: those in hand will do."""
        if self._line is None or self._clock is not self._line.slots:
            return None
        return self._asked()

    def granted(self, ask: Ask, begins_ms: int) -> None:
        """Take the slots that the store has reserved."""
        if self._line is not None:
            self._line.slots.granted(ask, begins_ms, self._now_ms)

    def full(self, accepted: int, waited: timedelta) -> QueueFull:
        """Return what the caller is told."""
        refusal, meter = self._refusal, None if self._line is None else self._line.meter
        expected_ms = refusal.expected_ms
        if expected_ms is None and meter is not None:
            expected_ms = meter.expected_ms(self._jobs[0].priority)
        limit, depth, bound = self._told()
        place = self._place()
        retry_ms = refusal.retry_ms if place is None else self._after_ms(place)
        return QueueFull(
            refusal.queue,
            limit=limit,
            depth=depth,
            bound=bound,
            jobs=refusal.jobs,
            added=refusal.added,
            group=refusal.group,
            promised=refusal.limit == PROMISED,
            retry_after=None if retry_ms is None else timedelta(milliseconds=retry_ms),
            estimated_wait=None if expected_ms is None else timedelta(milliseconds=expected_ms),
            ticket=None if place is None else self._signed(place),
            can_fit=refusal.can_fit,
            accepted=accepted,
            waited=waited,
        )

    # -- steps of these --

    def _told(self) -> tuple[str, float, float]:
        """Return the limit as it is told, with depth and bound in its unit."""
        refusal = self._refusal
        match refusal.limit:
            case "wait" | "deadline" | "no_workers":
                return refusal.limit, refusal.depth / 1000, refusal.bound / 1000
            case "promised":
                sample = self._line.meter.sample if self._line else None
                bounds = sample.bounds if sample else DEFAULT_BOUNDS
                expected_ms, max_wait_ms = refusal.expected_ms or 0, bounds.max_wait_ms
                if max_wait_ms and expected_ms / max_wait_ms > refusal.depth / bounds.max_jobs:
                    return "wait", expected_ms / 1000, max_wait_ms / 1000
                return "jobs", refusal.depth, bounds.max_jobs
            case limit:
                return limit, refusal.depth, refusal.bound

    def _asked(self) -> Ask | None:
        """Return the slots that are missing for this caller, if it is to have some."""
        if self._room is None or self._clock is None or self._is_early:
            return None
        return self._clock.lacks(self._room, len(self._jobs), self._now_ms)

    def _place(self) -> Ticket | None:
        """Return the place that the caller gets, or keeps; None: nothing can be promised."""
        if self._room is None or self._line is None or self._clock is None:
            return None
        if self._kept is not None and self._is_early:
            return self._kept
        # One who came in time moves the clock all the same: it will take a place of those
        # that come up, and who comes later is to be told so.
        ask, places = self._asked(), len(self._jobs)
        if ask is not None:
            self._clock.alone(ask, self._now_ms)
        self._line.is_guarded = self._line.is_guarded or self._clock is self._line.slots
        slot_ms = self._clock.hand_out(places, self._now_ms)
        return self._kept or tickets.ticket(slot_ms, places, self._now_ms)

    @property
    def _is_early(self) -> bool:
        return self._kept is not None and not self._kept.is_due(self._now_ms)

    def _after_ms(self, place: Ticket) -> int:
        clock, room, now = self._clock, self._room, self._now_ms
        if clock is None or room is None:
            return LEAST_MS
        if self._kept is None:
            return clock.retry_after_ms(place.slot_ms, now)
        if not place.is_due(now):  # it was spread when it was given
            return max(LEAST_MS, place.slot_ms - now)
        back_ms = int(min(MOST_MS, max(1.0, room.excess) / room.mu * 1000))
        return clock.retry_after_ms(now + back_ms, now)

    def _signed(self, place: Ticket) -> str | None:
        if self._secret is None:
            return None
        return tickets.signed(place, self._secret, self._refusal.queue, self._refusal.group)


def _shown(text: str | None, job: Job, secret: bytes | None, now_ms: int) -> Ticket | None:
    """Return the ticket that was shown: one of the queue, or of the job's group in it."""
    if text is None or secret is None:
        return None
    found = tickets.checked(text, secret, job.queue, now_ms)
    if found is None and job.group is not None:
        found = tickets.checked(text, secret, job.queue, now_ms, job.group)
    return found


def _clock(line: Line, refusal: Refusal) -> SlotLine:
    """Return the virtual clock that a refusal moves.

    One that is no affair of the whole line moves a clock of this process alone, and
    nobody else is refused for it.
    """
    if refusal.limit not in ("group", "deadline"):
        return line.slots
    whose = refusal.group or HURRIED
    while len(line.apart) >= MOST_APART and whose not in line.apart:
        line.apart.pop(next(iter(line.apart)))
    import random  # an import of us is to be quick

    return line.apart.setdefault(whose, SlotLine(random.random))


def _room(line: Line, refusal: Refusal, jobs: Sequence[Job], now_ms: int) -> Room | None:
    """Return how far the queue is above its low mark; None: nothing is known of its speed."""
    sample, priority = line.meter.sample, jobs[0].priority
    if sample is None or not refusal.can_fit or sample.slots == 0:
        return None  # it moves as fast as it did once somebody serves it, and who knows when
    room = line.slots.room(line.meter, sample.bounds, priority, len(jobs), now_ms)
    pace = line.meter.pace()
    if room is None or pace is None:
        return None
    depth, bound, added = refusal.depth, refusal.bound, refusal.added
    # A clock apart keeps nobody out, so it may not run away from the line: when all that is
    # in it now has been done, whoever comes has as good a chance as later.
    whole_ms = min(float(MOST_MS), max(1.0, refusal.jobs) / room.mu * 1000)
    # What the store said is of now, the sample perhaps a second old.
    match refusal.limit:
        case "jobs":
            excess = max(depth - LOW * bound, min(depth, depth + added - bound))
        case "bytes":
            a_job = max(1.0, depth / max(1, refusal.jobs))
            excess = max(depth - LOW * bound, min(depth, depth + added - bound)) / a_job
        case "wait":
            excess = (depth - LOW * bound) / 1000 * pace.starts[priority]
        case "deadline":
            excess = max(0.0, depth - bound) / 1000 * room.mu
            return Room(room.mu, excess, is_open=False, furthest_ms=whole_ms)
        case "group":
            # Of the jobs that are done in a second so many are the group's, about.
            share = min(1.0, depth / max(1, refusal.jobs))
            excess = max(depth - LOW * bound, min(depth, depth + added - bound))
            mu = max(room.mu * share, 1e-3)
            return Room(mu, max(0.0, excess), is_open=False, furthest_ms=whole_ms)
        case _:
            return room
    return replace(room, excess=max(room.excess, excess))
