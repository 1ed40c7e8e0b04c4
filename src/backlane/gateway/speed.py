"""Speed: queues as the store has them, with what is known of how fast they move.

Samples are taken when somebody asks, at most once a second: two of them give a rate. So
the first answer of a gateway tells no rates, and who asks every few seconds gets good ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from backlane.engine.protocol import Engine
from backlane.model.clock import Clock
from backlane.model.pressure.meter import Meter
from backlane.model.queue import QueueRecord

EVERY_MS = 1_000
MEASURED = 200  # queues a read: a writer may wait for it


class Speed(msgspec.Struct, frozen=True):
    """A queue, and the meter that has been watching it."""

    record: QueueRecord
    meter: Meter

    @property
    def pressure(self) -> float:
        """How full it is, 0 to 1: the fullest of its bounds."""
        return self.meter.pressure(self.record.bounds)

    @property
    def expected_wait(self) -> float | None:
        """Seconds that a job of the usual priority would wait; None: not known."""
        expected_ms = self.meter.expected_ms()
        return None if expected_ms is None else expected_ms / 1000


class Speeds:
    """The queues of one store."""

    def __init__(self, engine: Callable[[], Engine], clock: Callable[[], Clock]) -> None:
        self._engine, self._clock = engine, clock
        self._meters: dict[str, Meter] = {}
        self._known: Sequence[Speed] = ()
        self._read_ms: int | None = None
        self._reading: asyncio.Task[None] | None = None

    async def read(self, *, anew: bool = False) -> Sequence[Speed]:
        """Return all queues by name, as they were within the last second, or `anew`."""
        now_ms = self._clock().boot_ms()
        if anew or self._read_ms is None or now_ms - self._read_ms >= EVERY_MS:
            reading = self._reading
            if reading is None or reading.done() or anew:
                reading = self._reading = asyncio.ensure_future(self._read())
            # All who ask meanwhile share one reading, which goes on if one of them leaves.
            await asyncio.shield(reading)
        return self._known

    async def _read(self) -> None:
        engine = self._engine()
        records = await engine.arun(engine.list_queues())
        names = [record.name for record in records]
        meters = {name: self._meters.get(name) or Meter() for name in names}
        for start in range(0, len(names), MEASURED):
            plan = engine.measure(names[start : start + MEASURED])
            samples = (await engine.arun(plan)).queues
            now_ms = self._clock().boot_ms()
            for sample in samples:
                if now_ms - meters[sample.name].at_ms >= EVERY_MS // 2:
                    meters[sample.name].took(sample, now_ms)
        self._meters = meters
        self._known = [Speed(record, meters[record.name]) for record in records]
        self._read_ms = self._clock().boot_ms()
