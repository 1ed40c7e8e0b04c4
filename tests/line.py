"""A line that moves by hand: a queue with a worker whose speed a test decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from backlane import Backlane, Context, Queue, Task
from backlane.context import current
from backlane.engine.protocol import Presence, Wanted
from backlane.model.clock import FakeClock
from backlane.model.job import Lease
from backlane.model.outcome import Settlement, Succeeded

RUN_MS = 100
SLOTS = 2  # so that a standing line moves at 20 jobs a second


def greet(name: str) -> str:
    return name


class Line:
    """The application, its task on queue "mail", and its worker. Time passes by `work`."""

    def __init__(self, url: str = "memory://", *, queue: Queue | None = None) -> None:
        self.clock = FakeClock()
        self.app = Backlane(url, clock=self.clock, queues=[queue or Queue("mail")])
        self.task: Task[[str], str, str] = self.app.task(queue="mail", name="greet")(greet)
        self.started: list[Lease] = []

    def announce(self, *, leaving: bool = False) -> None:
        engine = self.app.engine
        presence = Presence(
            owner="worker",
            host="here",
            pid=1,
            queues=("mail",),
            slots=SLOTS,
            running=0,
            leaving=leaving,
        )
        engine.run(engine.announce(presence))

    def work(self, jobs: int) -> int:
        """Run up to so many jobs, two at a time, 100 ms each; return how many ran."""
        engine, ran = self.app.engine, 0
        while ran < jobs:
            self.announce()
            number = min(SLOTS, jobs - ran)
            leases = engine.run(engine.claim(self.wanted(number))).leases
            if not leases:
                break
            self.started += leases
            self.clock.advance(milliseconds=RUN_MS)
            done = [Settlement(it.job, it.token, Succeeded(None), RUN_MS) for it in leases]
            engine.run(engine.settle(done))
            ran += len(leases)
        return ran

    def wanted(self, number: int) -> Wanted:
        return Wanted("worker", number, 30_000, queues=("mail",), lane=None)

    @contextmanager
    def inside(self, lease: Lease) -> Iterator[None]:
        """Be inside of a job."""
        running = Context(lease, note=lambda _: None, is_cancelled=lambda: False)
        before = current.set(running)
        try:
            yield
        finally:
            current.reset(before)

    def warm(self) -> None:
        """Let the gauge learn the speed: 20 jobs a second."""
        for _ in range(20):
            self.task.enqueue("ada")
        self.work(20)
        self.pass_time(1.1)
        self.task.enqueue("ada")
        self.work(1)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(milliseconds=round(seconds * 1000))

    def fill(self, jobs: int) -> None:
        for _ in range(jobs):
            self.task.enqueue("ada")

    def wait_out(self, wait: timedelta | None) -> None:
        """Let the time pass that a refusal told, the worker working meanwhile."""
        assert wait is not None
        until = self.clock.boot_ms() + wait / timedelta(milliseconds=1)
        while self.clock.boot_ms() < until:
            if not self.work(SLOTS):
                self.pass_time(0.05)
