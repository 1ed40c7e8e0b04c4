"""Meter: how fast one queue moves, learned from samples of it.

The service rate is counted only while a line stands: what an idle queue takes in a
second is what came in, and says nothing about what it could. A line that starts anew
is judged by its workers' slots and their mean run time; where that is not known
either, nothing is foretold. It reads no clock: the caller says when a sample was taken.
"""

from __future__ import annotations

from backlane.model.pressure.pace import Pace
from backlane.model.pressure.rate import Rate
from backlane.model.queue import Bounds, QueueSample

FAST, SLOW = 10.0, 60.0  # seconds; promises are made by the slower of the two rates
KNOWN_STARTS = 20  # counted while a line stood, before that count is believed
LONGEST_GAP_MS = 300_000  # samples further apart tell nothing of the present
# Younger than this, the next job in line may just be on its way to a free worker.
LINE_MS = 100
LEAST_KAPPA, MOST_KAPPA = 0.5, 4.0
KAPPA_SECONDS = 30.0
# Added to both sides of the comparison: without it the milliseconds that every claim
# takes would pass for a promise of zero that was broken.
FORGIVEN_MS = 250
LEVELS = 10
DEFAULT_PRIORITY = 5


class Meter:
    """What is known of the speed of one queue, in one process."""

    def __init__(self) -> None:
        self.sample: QueueSample | None = None  # the last one
        self.at_ms = 0  # when it was taken
        self.calibration = 1.0  # by what the rates alone are multiplied to come true
        # Of the last sample, worked out once: each arrival at a full queue asks for them.
        self.mu: float | None = None  # jobs a second taken while a line stands
        self.ready = 0
        self.depth = 0  # what `max_jobs` bounds
        self._pace: Pace | None = None
        self._ahead = (0,) * LEVELS
        self._forget()

    def _forget(self) -> None:
        self._fast, self._slow = Rate(FAST), Rate(SLOW)
        self._starting = Rate(FAST)
        self._arriving = tuple(Rate(FAST) for _ in range(LEVELS))
        self._lasting = Rate(SLOW)  # milliseconds run a second, beside jobs ended a second
        self._ending = Rate(SLOW)
        self._known_starts = 0
        self.calibration = 1.0

    def took(self, sample: QueueSample, at_ms: int) -> None:
        """Fold a sample in. One with lower counters is of another store: all starts anew."""
        before, self.sample = self.sample, sample
        apart_ms, self.at_ms = at_ms - self.at_ms, at_ms
        if before is None:
            pass  # one sample tells no rate
        elif _is_another(before, sample):
            self._forget()
        elif 0 < apart_ms <= LONGEST_GAP_MS:
            self._fold(before, sample, apart_ms)
        self.mu = self._speed()
        self.ready, self.depth = _ready(sample), _depth(sample)
        self._ahead = tuple(ahead(sample, priority) for priority in range(LEVELS))
        self._pace = self._paced()

    def _fold(self, before: QueueSample, sample: QueueSample, apart_ms: int) -> None:
        seconds = apart_ms / 1000
        old = {line.priority: line.appended for line in before.lines}
        new = {line.priority: line.appended for line in sample.lines}
        for priority, rate in enumerate(self._arriving):
            rate.fold(new.get(priority, 0) - old.get(priority, 0), seconds)
        started = _started(sample) - _started(before)
        self._starting.fold(started, seconds)
        if sample.ended > before.ended:
            self._lasting.fold(sample.ran_ms - before.ran_ms, seconds)
            self._ending.fold(sample.ended - before.ended, seconds)
        self._fold_service(before, sample, started, apart_ms)
        self._calibrate(before, sample, seconds)

    def _fold_service(
        self, before: QueueSample, sample: QueueSample, started: int, apart_ms: int
    ) -> None:
        if any(one.is_paused or one.slots == 0 for one in (before, sample)):
            return  # nobody was to take anything
        seconds = apart_ms / 1000
        # Jobs that run for minutes start in bursts: the memory has to span some of them.
        stretch = max(1.0, self.service_ms / 1000 * 3 / FAST)
        if all(_is_standing(one, started, apart_ms) for one in (before, sample)):
            self._known_starts += started
        else:
            # What was taken beyond the slots that were free shows what can be, at least.
            free = max(0, (before.slots or started) - _running(before))
            started = max(0, started - free)
            known = self._measured
            if known is None or started / seconds <= known:
                return
        self._fast.fold(started, seconds, stretch)
        self._slow.fold(started, seconds, stretch)

    def _calibrate(self, before: QueueSample, sample: QueueSample, seconds: float) -> None:
        jobs = sample.foretold - before.foretold
        if not jobs:
            return
        forgiven = jobs * FORGIVEN_MS
        waited = sample.waited_ms - before.waited_ms
        ratio = (waited + forgiven) / (sample.foretold_ms - before.foretold_ms + forgiven)
        # What is learned now was promised a wait ago, by an older calibration: to correct
        # it faster than that would overshoot, and swing.
        span = max(KAPPA_SECONDS, 4 * waited / jobs / 1000)
        share = min(1.0, seconds / span)
        learned = self.calibration * ratio**share
        self.calibration = min(MOST_KAPPA, max(LEAST_KAPPA, learned))

    # -- what is known --

    @property
    def _measured(self) -> float | None:
        fast, slow = self._fast.per_second, self._slow.per_second
        return None if fast is None or slow is None else min(fast, slow)

    def _speed(self) -> float | None:
        if self._known_starts >= KNOWN_STARTS:
            return self._measured
        slots = self.sample.slots if self.sample else None
        if slots and self.service_ms > 0:
            return slots * 1000 / self.service_ms
        return None

    @property
    def service_ms(self) -> float:
        """The mean run time of an attempt, or 0.0 while none is known."""
        lasting, ending = self._lasting.per_second, self._ending.per_second
        if lasting is not None and ending:
            return lasting / ending
        sample = self.sample
        return sample.ran_ms / sample.ended if sample and sample.ended else 0.0

    @property
    def arrivals(self) -> float | None:
        """Jobs a second that came in over about the last 10 s; None: not known."""
        rates = [rate.per_second for rate in self._arriving]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    @property
    def starting(self) -> float | None:
        """Jobs a second that workers took over about the last 10 s, line or no line."""
        return self._starting.per_second

    def ahead(self, priority: int) -> int:
        """Return how many ready jobs went before a new one of this priority."""
        return self._ahead[priority]

    def pace(self) -> Pace | None:
        """Return the speed of the line, calibrated; None: paused, or nothing is known."""
        return self._pace

    def _paced(self) -> Pace | None:
        mu, sample = self.mu, self.sample
        if mu is None or sample is None or sample.is_paused:
            return None
        starts, above = [0.0] * LEVELS, 0.0
        for priority in reversed(range(LEVELS)):
            starts[priority] = max(0.0, mu - above) / self.calibration
            above += self._arriving[priority].per_second or 0.0
        return Pace(tuple(starts), sample.slots or 0, self.service_ms)

    def expected_ms(self, priority: int = DEFAULT_PRIORITY) -> int | None:
        """Return what a job enqueued at the last sample would have waited; None: not known."""
        pace, sample = self.pace(), self.sample
        if pace is None or sample is None:
            return None
        return pace.expected_ms(priority, ahead(sample, priority), _running(sample))

    def pressure(self, bounds: Bounds) -> float:
        """Return how full the queue is, 0..1: the fullest of its bounds."""
        sample = self.sample
        if sample is None:
            return 0.0
        fullest = max(_depth(sample) / bounds.max_jobs, sample.bytes / bounds.max_bytes)
        expected = self.expected_ms()
        if bounds.max_wait_ms and expected is not None:
            fullest = max(fullest, expected / bounds.max_wait_ms)
        return min(1.0, fullest)


def ahead(sample: QueueSample, priority: int) -> int:
    """Return how many ready jobs go before a new one of this priority."""
    return sum(line.ready for line in sample.lines if line.priority >= priority)


def _ready(sample: QueueSample) -> int:
    return sum(line.ready for line in sample.lines)


def _running(sample: QueueSample) -> int:
    return sum(line.running for line in sample.lines)


def _started(sample: QueueSample) -> int:
    return sum(line.started for line in sample.lines)


def _depth(sample: QueueSample) -> int:
    return sample.scheduled + sum(line.ready + line.running for line in sample.lines)


def _is_standing(sample: QueueSample, started: int, apart_ms: int) -> bool:
    """Say whether a line stood at this end of an interval in which `started` were taken."""
    least_ms = max(LINE_MS, apart_ms // 10)
    if (sample.oldest_ready_ms or 0) >= least_ms:
        return True
    # The next job is young where urgent work goes first, however long the line behind it.
    enough = max(KNOWN_STARTS, 2 * (sample.slots or 0), started * least_ms / apart_ms)
    return _ready(sample) >= enough


def _is_another(before: QueueSample, sample: QueueSample) -> bool:
    lines = {line.priority: line for line in sample.lines}
    for old in before.lines:
        new = lines.get(old.priority)
        if new is None:
            if old.appended or old.started:
                return True
        elif new.appended < old.appended or new.started < old.started:
            return True
    counters = ("ended", "ran_ms", "foretold", "foretold_ms", "waited_ms")
    return any(getattr(sample, name) < getattr(before, name) for name in counters)
