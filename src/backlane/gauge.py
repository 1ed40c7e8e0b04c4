"""The gauge: what this process knows of the speed of the queues that it enqueues to.

It decides when a queue is to be measured again and keeps what was learned; whoever
enqueues carries the measuring out, inline, so that it needs no thread of its own and an
application that enqueues nothing measures nothing. One caller at a time does so, the
others go on with what is known. Where the store cannot be measured nothing breaks: after
a while nothing is known any more, and no wait is foretold.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine, Measured
from backlane.model.pressure.meter import Meter
from backlane.model.pressure.pace import Pace
from backlane.model.pressure.slots import SlotLine
from backlane.model.queue import QueueSample
from backlane.place import Place

# A promise is at most this old, and one caller a second pays for it.
EVERY_MS = 1_000
SOON_MS = 100  # while nothing is known of a speed: the first jobs that end tell it
STALE_MS = 10_000  # what is older foretells nothing
UNUSED_MS = 60_000  # a queue that nobody enqueued to is forgotten
MOST_LINES = 200  # measured together: they are read in one step, which others wait for


class Line:
    """A queue as this process knows it: its speed, and the clock of those it refused.

    `due_ms` is when it is to be measured again, `used_ms` when it was last asked for;
    `is_guarded` says that the door may have something against who comes. `apart` holds
    clocks of this process alone, for refusals that are no affair of the whole line: of
    one group, or of jobs in a hurry.
    """

    __slots__ = ("apart", "due_ms", "is_guarded", "lock", "meter", "slots", "used_ms")

    def __init__(self, now_ms: int) -> None:
        self.lock = threading.Lock()  # of the clocks
        self.meter = Meter()
        import random  # an import of us is to be quick

        self.slots = SlotLine(random.random)
        self.apart: dict[str, SlotLine] = {}
        self.due_ms = self.used_ms = now_ms
        self.is_guarded = False


class Measuring:
    """A measure that is due: run `plan`, then `end` with its answer, or None if it failed."""

    __slots__ = ("_gauge", "_lock", "plan")

    def __init__(self, plan: Plan[Measured], gauge: Gauge, lock: threading.Lock) -> None:
        self.plan = plan
        self._gauge = gauge
        self._lock = lock

    def end(self, measured: Measured | None) -> None:
        """Let the gauge learn from it, and the next caller measure when it is time."""
        try:
            self._gauge.took(measured, self._lock)
        finally:
            self._lock.release()


class Gauge:
    """Measures queues as they are enqueued to: ask `due` before an append."""

    __slots__ = ("_engine", "_lines", "_lock", "_pid", "_place", "_taken_ms", "paces", "secret")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._engine: Engine | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Know nothing: another store, or a forked child.

        The child has its parent's lock, perhaps held for ever, and the slots that its
        parent had in hand, which both would give out.
        """
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._taken_ms = 0
        self.paces: Mapping[str, Pace] = {}  # replaced, never changed
        self.secret: bytes | None = None  # that tickets are signed with

    def due(self, engine: Engine, queue: str) -> Measuring | None:
        """Return what is to be measured before an append, if it is time."""
        now_ms = self._place.clock.boot_ms()
        line = self.line(engine, queue)
        if line is not None:
            line.used_ms = now_ms
            if now_ms < line.due_ms:
                return None
        return self._due(engine, queue, now_ms)

    def line(self, engine: Engine, queue: str) -> Line | None:
        """Return what is known of a queue of this engine, in this process."""
        if engine is self._engine and self._pid == os.getpid():
            return self._lines.get(queue)
        return None

    def meter(self, engine: Engine, queue: str) -> Meter | None:
        """Return what is known of the speed of a queue."""
        line = self.line(engine, queue)
        return None if line is None or line.meter.sample is None else line.meter

    def known(self, engine: Engine) -> Mapping[str, Pace]:
        """Return the paces where nothing may be measured; none, if they are too old."""
        age_ms = self._place.clock.boot_ms() - self._taken_ms
        return self.paces if age_ms < STALE_MS and engine is self._engine else {}

    def took(self, measured: Measured | None, lock: threading.Lock) -> None:
        """Learn from what was measured under this lock; None: the store did not answer."""
        if lock is not self._lock:
            return  # of another store, or begun before a fork
        now_ms = self._place.clock.boot_ms()
        if measured is not None:
            self._learn(measured, now_ms)
        elif now_ms - self._taken_ms >= STALE_MS:
            self.paces = {}

    # -- steps of these --

    def _due(self, engine: Engine, queue: str, now_ms: int) -> Measuring | None:
        if engine is not self._engine or self._pid != os.getpid():
            self._begin_anew()
            self._engine = engine
        lock = self._lock
        if not lock.acquire(blocking=False):
            return None
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = Line(now_ms)
            self._forget(now_ms)
        # The others are read in the same step, so that each second has one. Those that the
        # store did not hold, or whose speed is looked for, are left to their own appends: who
        # enqueues to thousands of queues would read hundreds at each.
        old_ms = now_ms - EVERY_MS // 2
        wanted = [
            name
            for name, it in self._lines.items()
            if name == queue or (it.meter.sample is not None and it.meter.at_ms <= old_ms)
        ]
        for name in wanted:
            self._lines[name].due_ms = now_ms + EVERY_MS
        return Measuring(engine.measure(wanted), self, lock)

    def _forget(self, now_ms: int) -> None:
        """Drop the queues that nobody asks for, and the eldest of too many."""
        lines = {name: it for name, it in self._lines.items() if now_ms - it.used_ms < UNUSED_MS}
        while len(lines) > MOST_LINES:
            del lines[min(lines, key=lambda name: lines[name].used_ms)]
        self._lines = lines

    def _learn(self, measured: Measured, now_ms: int) -> None:
        wall_ms = self._place.clock.wall_ms()
        self.secret = measured.secret
        self._taken_ms = now_ms
        for sample in measured.queues:
            line = self._lines.get(sample.name)
            if line is not None:
                line.meter.took(sample, now_ms)
                line.slots.saw(sample, wall_ms)
                line.is_guarded = sample.reserved_ms > 0 or _is_deserted(sample)
        for line in self._lines.values():
            if line.meter.sample is None:  # its first append makes it, so look again soon
                line.due_ms = now_ms
            elif line.meter.mu is None:
                line.due_ms = now_ms + SOON_MS
        paces = ((name, line.meter.pace()) for name, line in self._lines.items())
        self.paces = {name: pace for name, pace in paces if pace is not None}


def _is_deserted(sample: QueueSample) -> bool:
    return sample.slots == 0 and sample.bounds.max_wait_ms is not None
