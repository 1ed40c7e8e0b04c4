"""A producer: enqueues jobs at a steady rate and keeps its side of the history."""

from __future__ import annotations

import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.diarist import QUEUE, Diarist
from tests.faults.history import Calls

from backlane import EngineUnavailable, OutcomeUnknown, Refused, State
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import JobRecord

SHORTEST, LONGEST = 20, 200  # milliseconds that a job works


@dataclass(slots=True)
class Producer:
    """Calls of `enqueue`, each with an id of its own, so that none is ever in doubt for us."""

    work: Diarist
    diary: Path
    chance: random.Random
    rate: float  # jobs a second
    calls: Calls = field(default_factory=Calls)
    shortest: int = SHORTEST
    longest: int = LONGEST
    longest_call: float = 0.0  # seconds
    surprise: BaseException | None = None  # no call may end otherwise than `Calls` knows
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Enqueue in a thread of its own until told to stop."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the call that is under way."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "a call does not end"
        if self.surprise is not None:
            raise self.surprise

    def enqueue(self) -> None:
        """Make one call and write down how it ended."""
        job = new_id(SystemClock().wall_ms())
        task = self.chance.choices(
            [self.work.in_loop, self.work.in_thread, self.work.in_process], [5, 5, 1]
        )[0]
        milliseconds = self.chance.randint(self.shortest, self.longest)
        began = time.monotonic()
        try:
            task.using(id=uuid.UUID(bytes=job)).enqueue(milliseconds, str(self.diary))
        except OutcomeUnknown:
            self.calls.unknown.add(job.hex())
        except (Refused, EngineUnavailable):
            self.calls.refused.add(job.hex())
        else:
            self.calls.acknowledged[job.hex()] = time.monotonic_ns()
        self.longest_call = max(self.longest_call, time.monotonic() - began)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due += 1 / self.rate
            try:
                self.enqueue()
            except BaseException as error:
                self.surprise = error
                return

    # -- what the store says --

    def is_drained(self) -> bool:
        """Say whether nothing waits or runs any more."""
        engine = self.work.app.engine
        records = engine.run(engine.list_queues())
        return all(record.depth.jobs == 0 for record in records if record.name == QUEUE)

    def records(self) -> list[JobRecord]:
        """Return what the store knows of every job that may be there."""
        engine = self.work.app.engine
        ids = [bytes.fromhex(job) for job in {*self.calls.acknowledged, *self.calls.unknown}]
        found: list[JobRecord] = []
        for first in range(0, len(ids), 100):
            selection = Selection(ids=tuple(ids[first : first + 100]))
            found += engine.run(engine.find(selection, limit=100)).records
        return found

    def finished(self) -> set[str]:
        """Return the jobs that the store says have succeeded."""
        return {it.id.hex() for it in self.records() if it.state is State.SUCCEEDED}
