"""Slots: when those who are refused may come back, spaced by what the queue can take.

A refused caller gets the next slot of its queue's *virtual clock*:

    v <- max(v, now + excess / mu) + places / mu

where `excess` is what the line has to lose until it is back at its low mark. While the
clock is ahead of now, newcomers are refused too, or they would take the slots that were
promised; only a line at or below its open mark lets them in, so that callers who do not
come back never leave the workers idle. The marks were tuned with `python -m bench storm`.

The clock itself is shared by all processes, in the store. A process reserves a run of
slots there and hands them out; nothing here reads a clock or touches the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from backlane.model.pressure.meter import Meter
from backlane.model.pressure.ticket import Ticket
from backlane.model.queue import Bounds, QueueSample

LOW = 0.8  # of what the bounds allow: the line that refused callers come back to
OPEN = 0.5  # at or below it anyone may come in, whatever was promised
RUN_SECONDS = 0.25  # worth of slots that one process reserves at most at a time
# What a caller is told. HTTP rounds up to whole seconds; a caller in this process that
# waited a whole one for a queue of half a second would leave the workers idle.
LEAST_MS, MOST_MS = 20, 300_000
SET_BACK_MS = 1_000  # a clock that is earlier by more was set back
SPREAD = 0.1  # of the wait, so that callers of one moment do not come back as one
WIDE = 0.5  # of the wait, where no more slots are given out so early


class Room(msgspec.Struct, frozen=True):
    """How much of a queue is taken, as one arrival meets it."""

    mu: float
    excess: float  # jobs above the low mark, of the bound that is passed most
    is_open: bool  # at or below the open mark of every bound
    can_fit: bool = True  # False: not even an empty line would take the arrival
    furthest_ms: float = MOST_MS  # how far ahead a clock may be that knows no open mark


class Ask(msgspec.Struct, frozen=True):
    """A run of slots to reserve: what the engine's `reserve` takes."""

    after_ms: int
    spacing_us: int
    number: int


class SlotLine:
    """The virtual clock of one queue, as one process knows it. `now_ms` is the wall clock.

    `chance` returns a random number in [0, 1).
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._until_ms = 0.0  # where the clock stands, as far as this process knows
        self._alone_ms = 0.0  # where this process alone has moved it to
        self._first_ms = 0.0  # the run in hand: its next slot, their spacing, how many
        self._spacing_ms = 0.0
        self._left = 0
        self._asked_ms = 0
        self._asked = 0
        self._furthest_ms = float(MOST_MS)
        self._entered = 0  # jobs that this process let in since the last sample
        self._others = 0.0  # jobs a second that other processes let in, between the last two
        self._appended: int | None = None
        self._sampled_ms = 0

    # -- what this process sees and does --

    def saw(self, sample: QueueSample, at_ms: int) -> None:
        """Take note of where the clock stands for all processes."""
        self._follow(at_ms, self._sampled_ms)
        self._until_ms = max(self._alone_ms, at_ms + float(sample.reserved_ms))
        appended = sum(line.appended for line in sample.lines)
        others, seconds = 0.0, (at_ms - self._sampled_ms) / 1000
        if self._appended is not None and seconds > 0:
            others = max(0, appended - self._appended - self._entered) / seconds
        self._appended, self._others = appended, others
        self._entered = 0
        self._sampled_ms = at_ms

    def entered(self, places: int) -> None:
        """Count jobs that this process has put into the line since the last sample."""
        self._entered += places

    def room(
        self, meter: Meter, bounds: Bounds, priority: int, places: int, now_ms: int
    ) -> Room | None:
        """Return how `places` jobs of this priority meet the queue; None: no pace is known."""
        mu, pace, sample = meter.mu, meter.pace(), meter.sample
        if not mu or pace is None or sample is None:
            return None
        # Each bound by itself, without lists: all that is refused in an overload comes by here.
        moved = max(self._moved(meter, now_ms), -meter.ready)
        depth, most = meter.depth + moved, bounds.max_jobs
        excess, is_open = _excess(depth, most, places), depth <= OPEN * most
        if bounds.max_wait_ms:
            line = max(0.0, meter.ahead(priority) + moved)
            longest = pace.starts[priority] * bounds.max_wait_ms / 1000
            excess = max(excess, _excess(line, longest, 1))
            is_open = is_open and line <= OPEN * longest
        if meter.depth:
            fitting = bounds.max_bytes / max(1.0, sample.bytes / meter.depth)
            excess = max(excess, _excess(depth, fitting, places))
            is_open = is_open and depth <= OPEN * fitting
        return Room(mu, max(0.0, excess), is_open, places <= bounds.max_jobs)

    # -- who may come in --

    def is_ahead(self, now_ms: int) -> bool:
        """Say whether slots are promised that have not come up yet."""
        return self._clock(now_ms) > now_ms

    def may_enter(self, room: Room | None, ticket: Ticket | None, places: int, now_ms: int) -> bool:
        """Say whether an arrival may try the store, whose hard bounds hold all the same."""
        if room is None or not self.is_ahead(now_ms) or room.is_open:
            return True
        return ticket is not None and ticket.places >= places and ticket.is_due(now_ms)

    # -- when the others may come back --

    def lacks(self, room: Room, places: int, now_ms: int) -> Ask | None:
        """Return the run to reserve before `hand_out`; None: the one in hand will do."""
        self._follow(now_ms, self._asked_ms)
        self._skip(now_ms + room.excess / room.mu * 1000)
        self._furthest_ms = room.furthest_ms
        if self._left >= places or self._clock(now_ms) >= now_ms + room.furthest_ms:
            return None
        # Runs double while they are used up at once: a lone refusal is to move the clock
        # by its own place alone.
        is_rush = now_ms - self._asked_ms < RUN_SECONDS * 2000
        number = min(2 * self._asked if is_rush else 1, int(room.mu * RUN_SECONDS))
        self._asked, self._asked_ms = max(1, number), now_ms
        return Ask(
            after_ms=int(min(MOST_MS, room.excess / room.mu * 1000)),
            # A line that has all but stopped may go on again: no slot is hours away.
            spacing_us=max(1, int(min(MOST_MS * 1000, 1_000_000 / room.mu))),
            number=max(places, number),
        )

    def granted(self, ask: Ask, begins_ms: int, now_ms: int) -> None:
        """Take the run in hand that begins in `begins_ms`, as `reserve` answered."""
        self._first_ms = float(now_ms + begins_ms)
        self._spacing_ms = ask.spacing_us / 1000
        self._left = ask.number
        self._until_ms = max(self._until_ms, self._first_ms + self._left * self._spacing_ms)

    def alone(self, ask: Ask, now_ms: int) -> None:
        """Take a run of this process's own clock, where the store is not to be asked."""
        begins = max(self._clock(now_ms), now_ms + ask.after_ms) - now_ms
        self.granted(ask, math.ceil(begins), now_ms)
        self._alone_ms = self._until_ms

    def hand_out(self, places: int, now_ms: int) -> int:
        """Return when the slot of a refused caller is: the last of its places."""
        if self._left < places:
            # The clock is as far ahead as anyone is told to wait. Later callers share the
            # end of it, spread out: the shorter it is, the wider.
            spread = SPREAD if self._furthest_ms >= MOST_MS else WIDE
            return now_ms + int(self._furthest_ms * (1 - spread * self._chance()))
        self._left -= places
        self._first_ms += places * self._spacing_ms
        return int(self._first_ms)

    def retry_after_ms(self, slot_ms: int, now_ms: int) -> int:
        """Return what to tell the caller: its wait, spread a little, up to 300 s."""
        wait = (slot_ms - now_ms) * (1 + SPREAD * self._chance())
        return int(min(MOST_MS, max(LEAST_MS, wait)))

    def _moved(self, meter: Meter, now_ms: int) -> float:
        """Return how much longer the line is than sampled, as far as this process can tell."""
        went = max(0.0, (meter.mu or 0.0) - self._others)
        return self._entered - went * self._passed(now_ms)

    def _passed(self, now_ms: int) -> float:
        """Return the seconds since the last sample; what is older than one is not guessed."""
        return min(1.0, max(0, now_ms - self._sampled_ms) / 1000)

    def _clock(self, now_ms: int) -> float:
        # Further ahead than anyone is told, it was this machine's clock that was set back.
        return min(self._until_ms, now_ms + float(MOST_MS))

    def _follow(self, now_ms: int, before_ms: int) -> None:
        """Forget what was promised where this machine's clock was set back since."""
        if now_ms < before_ms - SET_BACK_MS:
            self._until_ms = self._alone_ms = 0.0
            self._left = 0
            self._asked_ms = now_ms

    def _skip(self, least_ms: float) -> None:
        """Leave out slots in hand that come before the line is back at its low mark."""
        late = least_ms - self._first_ms
        if self._left and late > 0:
            skipped = int(min(self._left, late / self._spacing_ms))
            self._left -= skipped
            self._first_ms += skipped * self._spacing_ms


def _excess(line: float, most: float, places: int) -> float:
    """Return how many jobs have to go: to the low mark, or further for a large batch."""
    return max(line - LOW * most, min(line, line + places - most))
