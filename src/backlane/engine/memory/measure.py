"""Measure: what the speed of a queue is known by. Reserve: its virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from backlane.engine.memory.line import Line
from backlane.engine.memory.record import oldest_ready_ms
from backlane.engine.memory.store import Store
from backlane.engine.protocol import Measured
from backlane.model.job import State
from backlane.model.queue import Kind, LineSample, QueueSample, in_line

# Further ahead no virtual clock is moved: one that is, was read by a clock since set back.
CLOCK_AHEAD_MS = 600_000
LIVE_MS = 30_000  # a worker whose last beat is older is not counted on


def measure(store: Store, queues: Sequence[str]) -> Measured:
    """Return samples of those of these queues that exist, by name."""
    lines = [store.lines[name] for name in sorted(set(queues)) if name in store.lines]
    return Measured([_sample(store, line) for line in lines], store.secret)


def reserve(store: Store, queue: str, after_ms: int, spacing_us: int, number: int) -> int:
    """Move the queue's virtual clock on; return when the first slot begins, from now."""
    after_ms = max(0, after_ms)
    line = store.lines.get(queue)
    if line is None:
        return after_ms
    begins = max(_ahead_us(store, line), after_ms * 1000)
    ahead = min(begins + number * spacing_us, CLOCK_AHEAD_MS * 1000)
    line.clock_us = store.clock.wall_ms() * 1000 + ahead
    return begins // 1000


def _ahead_us(store: Store, line: Line) -> int:
    """How far a virtual clock is ahead of now, as far as it is believed."""
    ahead = line.clock_us - store.clock.wall_ms() * 1000
    return ahead if 0 < ahead <= CLOCK_AHEAD_MS * 1000 else 0


def _sample(store: Store, line: Line) -> QueueSample:
    tallies = line.tallies.values()
    depth = line.depth
    return QueueSample(
        name=line.name,
        bounds=line.bounds(),
        is_paused=line.paused,
        lines=tuple(it for it in _lines(store, line) if it != LineSample(it.priority)),
        scheduled=depth.scheduled,
        bytes=depth.bytes,
        ended=sum(tally.ended for tally in tallies),
        ran_ms=sum(tally.ran_ms for tally in tallies),
        foretold=sum(tally.foretold for tally in tallies),
        foretold_ms=sum(tally.foretold_ms for tally in tallies),
        waited_ms=sum(tally.waited_ms for tally in tallies),
        oldest_ready_ms=oldest_ready_ms(store, line),
        slots=_slots(store, line),
        reserved_ms=_ahead_us(store, line) // 1000,
    )


def _lines(store: Store, line: Line) -> list[LineSample]:
    ready = store.in_state(State.READY) if store.are_some_down else []
    withheld = Counter(
        row.rank for row in ready if row.queue == line.name and store.is_withheld(row)
    )
    left = in_line({it: tally.ready for it, tally in line.tallies.items()}, withheld)
    return [
        LineSample(
            priority,
            left[priority],
            tally.running,
            tally.appended + tally.retried,
            tally.started,
        )
        for priority, tally in sorted(line.tallies.items())
    ]


def _slots(store: Store, line: Line) -> int | None:
    """The slots of live workers; None if there never was one, as far as is known."""
    serving = [it for it in store.workers.values() if line.name in it[0].queues]
    # A worker that left is forgotten, and what it did is not: then nobody is there now.
    was_served = line.kind is Kind.TASKS and any(it.started for it in line.tallies.values())
    if not serving and not was_served:
        return None
    latest = store.clock.boot_ms() - LIVE_MS
    return sum(
        min(presence.slots, presence.most.get(line.name, presence.slots))
        for presence, _, beat_ms in serving
        if beat_ms >= latest
    )
