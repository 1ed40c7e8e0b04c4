"""Fairness: places by virtual time, so that no group waits for the mass of another.

Start-time fair queueing (Goyal, Vin, Cheng 1996). What a job costs is not known when it
gets in line, so it is charged what its group's jobs took of late, and the difference is
made good when it has run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# What a job costs while none of its queue has ended. Of the powers of ten in the middle: jobs
# that wait already are placed by it, and those that come once more is known are not.
UNKNOWN_MS = 100


@dataclass(slots=True)
class Flow:
    """The jobs of one group."""

    finish_ms: int | None = None  # F: the virtual time at which its work so far is done
    latest_ms: int = 0  # the latest place it got
    mean_us: int | None = None  # of what its attempts ran


@dataclass(slots=True)
class Fairness:
    """The virtual time of one queue."""

    virtual_ms: int | None = None  # V: the greatest place that was taken
    mean_us: int | None = None
    flows: dict[str | None, Flow] = field(default_factory=dict)  # by group

    def place_ms(self, group: str | None, now_ms: int, *, is_idle: bool) -> int:
        """Return the place of a job of this group that gets in line now."""
        if self.virtual_ms is None or is_idle:
            self.virtual_ms = max(self.virtual_ms or 0, now_ms)
        flow = self.flows.setdefault(group, Flow())
        start_ms = max(self.virtual_ms, flow.finish_ms or 0)
        flow.finish_ms = start_ms + self._cost_ms(flow)
        flow.latest_ms = max(flow.latest_ms, start_ms)
        return flow.latest_ms

    def take(self, place_ms: int) -> None:
        """A claim took the job at this place."""
        self.virtual_ms = max(self.virtual_ms or 0, place_ms)

    def end(self, group: str | None, ran_ms: int) -> None:
        """An attempt ended that ran so long."""
        flow = self.flows.setdefault(group, Flow())
        if flow.finish_ms is not None:
            flow.finish_ms += max(1, ran_ms) - self._cost_ms(flow)
        flow.mean_us = _moved(flow.mean_us, ran_ms)
        self.mean_us = _moved(self.mean_us, ran_ms)

    def _cost_ms(self, flow: Flow) -> int:
        mean_us = self.mean_us if flow.mean_us is None else flow.mean_us
        return UNKNOWN_MS if mean_us is None else max(1, mean_us // 1000)


def _moved(mean_us: int | None, ran_ms: int) -> int:
    """A mean with one more attempt, which counts for a fifth."""
    return 1000 * ran_ms if mean_us is None else (4 * mean_us + 1000 * ran_ms) // 5
