"""The simulated queue: bounds, slots that run jobs, and what a store tells of both."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from backlane.model.pressure.pace import Pace
from backlane.model.pressure.slots import Ask
from backlane.model.queue import Bounds, LineSample, QueueSample

PRIORITY = 5


@dataclass(slots=True)
class Line:
    """One queue and its workers. Times are milliseconds from the beginning."""

    bounds: Bounds
    slots: int
    service_ms: float
    ready: deque[tuple[float, int | None]] = field(default_factory=deque)  # since when, foretold
    running: int = 0
    appended: int = 0
    started: int = 0
    ended: int = 0
    ran_ms: float = 0.0
    foretold: int = 0
    foretold_ms: int = 0
    waited_ms: float = 0.0
    clock_us: int = 0
    deepest: int = 0
    waits: list[tuple[float, int | None, float]] = field(default_factory=list)  # and waited ms

    @property
    def depth(self) -> int:
        return len(self.ready) + self.running

    def append(self, now: float, pace: Pace | None) -> bool:
        """Take one job, or refuse it for the bounds, as an engine does."""
        if self.depth >= self.bounds.max_jobs:
            return False
        expected = pace.expected_ms(PRIORITY, len(self.ready), self.running) if pace else None
        most = self.bounds.max_wait_ms
        if most is not None and expected is not None and expected > most:
            return False
        self.appended += 1
        self.ready.append((now, expected))
        self.deepest = max(self.deepest, self.depth)
        return True

    def take(self, now: float) -> bool:
        """Start the next job if a slot is free."""
        if not self.ready or self.running == self.slots:
            return False
        since, expected = self.ready.popleft()
        self.running += 1
        self.started += 1
        self.waits.append((since, expected, now - since))
        if expected is not None:
            self.foretold += 1
            self.foretold_ms += expected
            self.waited_ms += now - since
        return True

    def end(self, ran_ms: float) -> None:
        """Count a job that has run."""
        self.running -= 1
        self.ended += 1
        self.ran_ms += ran_ms

    def measured(self, now: float) -> QueueSample:
        """Return what the verb `measure` would."""
        line = LineSample(PRIORITY, len(self.ready), self.running, self.appended, self.started)
        return QueueSample(
            name="storm",
            bounds=self.bounds,
            lines=(line,),
            ended=self.ended,
            ran_ms=int(self.ran_ms),
            foretold=self.foretold,
            foretold_ms=self.foretold_ms,
            waited_ms=int(self.waited_ms),
            oldest_ready_ms=int(now - self.ready[0][0]) if self.ready else None,
            slots=self.slots,
            reserved_ms=max(0, self.clock_us // 1000 - int(now)),
        )

    def reserved(self, ask: Ask, now: int) -> int:
        """Do what the verb `reserve` does."""
        begins = max(self.clock_us, (now + ask.after_ms) * 1000)
        self.clock_us = begins + ask.number * ask.spacing_us
        return begins // 1000 - now
