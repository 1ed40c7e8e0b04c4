"""Standing: what can be said of a queue that only the broker counts."""

from __future__ import annotations

from backlane.engine.bare.core import Core
from backlane.model.job import Lane
from backlane.model.queue import DEFAULT_BOUNDS, Depth, Kind, LineSample, QueueRecord, QueueSample


async def queue_record(core: Core, queue: str) -> QueueRecord:
    """Return a queue as the broker has it now: what waits, and what is in hand here.

    Nothing is counted of jobs that ended, nor of what other processes hold.
    """
    bounds = core.bounds.get(queue, DEFAULT_BOUNDS)
    ready = 0
    for lane in Lane:
        if lane is Lane.SHARED or core.is_declared(queue, lane):
            ready += (await core.transport.standing(core.name(queue, lane))).ready
    running = sum(held.lease.queue == queue for held in core.held.values())
    return QueueRecord(
        name=queue,
        kind=Kind.TASKS,
        paused=False,
        bounds=bounds,
        declared=bounds,
        depth=Depth(ready=ready, running=running),
    )


def sample(core: Core, queue: str) -> QueueSample:
    """Return what can be said without asking the broker. No speed comes of it."""
    ready = core.depths.known(core.name(queue))
    return QueueSample(
        name=queue,
        bounds=core.bounds.get(queue, DEFAULT_BOUNDS),
        lines=(LineSample(priority=5, ready=ready),),
    )
