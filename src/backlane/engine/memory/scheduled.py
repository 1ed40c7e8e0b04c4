"""A schedule of the memory engine."""

from __future__ import annotations

from dataclasses import dataclass

from backlane.engine.scheduling import ScheduleRecord


@dataclass(slots=True)
class Scheduled:
    """A schedule, and when it was declared last."""

    record: ScheduleRecord
    declared_ms: int  # boot clock
