"""A queue of the memory engine: its settings and its counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from backlane.engine.memory.fairness import Fairness
from backlane.model.job import FINAL, State
from backlane.model.queue import Bounds, Depth, Kind

NOT_TUNED = (None, None, None, None)


@dataclass(slots=True)
class Tally:
    """What is counted of one priority of a queue. All but the first two only ever grow."""

    ready: int = 0
    running: int = 0
    appended: int = 0
    retried: int = 0
    started: int = 0
    ended: int = 0
    ran_ms: int = 0
    foretold: int = 0
    foretold_ms: int = 0
    waited_ms: int = 0

    def start(self, predicted_ms: int | None, waited_ms: int) -> None:
        """Count a lease, and how true the wait was that its job had been told."""
        self.started += 1
        if predicted_ms is not None:
            self.foretold += 1
            self.foretold_ms += predicted_ms
            self.waited_ms += max(0, waited_ms)

    def end(self, ran_ms: int) -> None:
        """Count an attempt that ended."""
        self.ended += 1
        self.ran_ms += ran_ms


@dataclass(slots=True)
class Line:
    """A queue."""

    name: str
    kind: Kind
    declared: Bounds
    paused: bool = False
    tuned_max_jobs: int | None = None
    tuned_max_bytes: int | None = None
    tuned_max_wait_ms: int | None = None  # 0: lifted
    tuned_group_share: float | None = None
    held: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    bytes: int = 0
    finished: dict[State, int] = field(default_factory=lambda: dict.fromkeys(FINAL, 0))
    tallies: dict[int, Tally] = field(default_factory=dict)  # by priority
    groups: Counter[str] = field(default_factory=Counter)  # jobs not finished, by group
    is_fair: bool = False
    fairness: Fairness = field(default_factory=Fairness)
    clock_us: int = 0  # the virtual clock: wall time

    @property
    def jobs(self) -> int:
        """What `max_jobs` bounds."""
        held = self.held
        return held[State.SCHEDULED] + held[State.READY] + held[State.RUNNING] + held[State.BLOCKED]

    @property
    def depth(self) -> Depth:
        return Depth(
            self.held[State.SCHEDULED],
            self.held[State.READY],
            self.held[State.RUNNING],
            self.held[State.BLOCKED],
            self.bytes,
        )

    def bounds(self, declared: Bounds | None = None) -> Bounds:
        """What is in force: tuned, else declared (by the caller, else by a worker)."""
        tuned = (
            self.tuned_max_jobs,
            self.tuned_max_bytes,
            self.tuned_max_wait_ms,
            self.tuned_group_share,
        )
        declared = declared or self.declared
        return declared if tuned == NOT_TUNED else declared.tuned(*tuned)

    def tally(self, priority: int) -> Tally:
        """The counters of one priority, made if they are new."""
        tally = self.tallies.get(priority)
        if tally is None:
            tally = self.tallies[priority] = Tally()
        return tally

    def count(self, state: State, priority: int, size: int, by: int) -> None:
        """Count a row that is in this state from now on (by +1), or no more (by -1)."""
        self.held[state] += by
        if state not in FINAL:
            self.bytes += by * size
        if state is State.READY:
            self.tally(priority).ready += by
        elif state is State.RUNNING:
            self.tally(priority).running += by

    def gather(self, group: str, by: int) -> None:
        """Count a job of a group; one that has none left is forgotten."""
        self.groups[group] += by
        if not self.groups[group]:
            del self.groups[group]
