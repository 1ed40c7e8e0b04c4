"""Health: up, and ready; and what does not count as failing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.live import Live, live
from tests.hand import take

from backlane import Backlane
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Presence
from backlane.gateway.readiness import STALLED_MS, Readiness
from backlane.gateway.speed import Speeds
from backlane.model.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Backlane]:
    made = Backlane("memory://")
    made.task(double)
    with made.replaced(MemoryEngine(clock), clock):
        yield made


def double(number: int) -> int:
    return 2 * number


def enqueue(app: Backlane) -> None:
    next(iter(app.tasks.values())).enqueue(1)


def announce(app: Backlane, queue: str = "default", running: int = 0) -> None:
    present = Presence(owner="a", host="h", pid=1, queues=(queue,), slots=2, running=running)
    app.engine.run(app.engine.announce(present))


class Probe:
    """Looks as `/readyz` does, when told to."""

    def __init__(self, app: Backlane, clock: FakeClock) -> None:
        self.app, self.clock = app, clock
        self.speeds = Speeds(lambda: app.engine, lambda: clock)
        self.readiness = Readiness()

    def look(self) -> list[str]:
        async def stalled() -> list[str]:
            speeds = await self.speeds.read(anew=True)
            return await self.readiness.stalled(self.app.engine, speeds, self.clock.boot_ms())

        return asyncio.run(stalled())

    def stalled_later(self) -> list[str]:
        """Look, then again when a queue that stands has stood too long."""
        self.clock.advance(milliseconds=STALLED_MS)
        self.look()
        self.clock.advance(milliseconds=STALLED_MS)
        return self.look()


@pytest.fixture
def probe(app: Backlane, clock: FakeClock) -> Probe:
    return Probe(app, clock)


def test_jobs_that_free_workers_leave_alone_are_a_failure(app, probe):
    enqueue(app)
    announce(app)

    assert probe.stalled_later() == ["default"]


def test_one_look_is_not_enough_to_tell(app, probe, clock):
    enqueue(app)
    announce(app)
    clock.advance(milliseconds=10 * STALLED_MS)
    announce(app)

    assert probe.look() == []


def test_a_queue_from_which_anything_was_claimed_moves(app, probe, clock):
    for _ in range(3):
        enqueue(app)
    announce(app)
    clock.advance(milliseconds=STALLED_MS)
    probe.look()
    take(app)
    clock.advance(milliseconds=STALLED_MS)

    assert probe.look() == []


@pytest.mark.parametrize(
    "case",
    ["paused", "no worker", "another queue's worker", "busy worker", "silent worker", "nothing"],
)
def test_what_is_no_failure(app, probe, clock, case):
    if case != "nothing":
        enqueue(app)
    match case:
        case "paused":
            announce(app)
            app.queue("default").pause()
        case "another queue's worker":
            announce(app, "mail")
        case "busy worker":
            announce(app, running=2)
        case "silent worker":
            announce(app)
            clock.advance(seconds=40)

    assert probe.stalled_later() == []


# -- over HTTP --


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with Backlane(f"sqlite:///{tmp_path}/jobs.db") as app, live(app) as made:
        yield made


def test_a_process_that_answers_is_healthy(served):
    status, _, told = served.get("/healthz")

    assert (status, told) == (200, {"status": "ok"})


def test_a_store_that_answers_is_ready(served):
    status, _, told = served.get("/readyz")

    assert status == 200
    assert told == {
        "status": "ready",
        "checks": {"stopping": "no", "store": "ok", "claims": "ok"},
    }


def test_a_gateway_that_stops_is_not_ready(served):
    served.gateway.stop()

    status, headers, told = served.get("/readyz")

    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert (told["type"], told["checks"]["stopping"]) == ("urn:backlane:not-ready", "yes")


def test_a_store_that_is_silent_is_not_ready(served, monkeypatch):
    async def silent(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("backlane.gateway.health.STORE_SECONDS", 0.05)
    monkeypatch.setattr(served.app.engine, "arun", silent)

    status, headers, told = served.get("/readyz")

    assert (status, headers["retry-after"], told["checks"]["store"]) == (503, "1", "silent")
