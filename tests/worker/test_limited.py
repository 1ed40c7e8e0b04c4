"""Limits over several real workers: never passed, well used, also while workers are killed."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.worker.conftest import Command, wait_until

from backlane import Backlane
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock
from backlane.model.job import State

APPLICATION = """
import time
from pathlib import Path
from backlane import Backlane, Limit, Queue

app = Backlane(
    {url!r},
    queues=[Queue("slow", limit=Limit(concurrency=3)), Queue("ledger", ordering="group")],
    limits={{"fast": Limit(rate="40/s", burst=4)}},
)


def note(*words):
    with (Path({directory!r}) / "runs").open("a") as file:
        file.write(" ".join(map(str, words)) + chr(10))


@app.task(name="work", queue="slow")
def work(number: int) -> None:
    time.sleep(0.03)


@app.task(name="call", limits=["fast"])
async def call(number: int) -> None:
    note("call", time.time())


@app.task(name="book", queue="ledger")
def book(number: int, group: str) -> None:
    note("begin", group, number)
    time.sleep(0.01)
    note("end", group, number)
"""


class Fleet:
    """An application with limits, and the workers that serve it."""

    def __init__(self, directory: Path, url: str, engine: str) -> None:
        self.directory = directory
        # What was killed is missed at once on the others; there the lease has to lapse.
        self._options = "concurrency=8" + (", lease=2.5" if engine == "redis" else "")
        path = directory / "application.py"
        path.write_text(APPLICATION.format(directory=str(directory), url=url))
        (directory / "runs").touch()
        spec = importlib.util.spec_from_file_location("limited", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.app: Backlane = module.app
        self.workers: list[Command] = []

    def start(self, number: int = 1) -> None:
        for _ in range(number):
            self.workers.append(Command(self.directory, self._options, "application:app"))

    def kill_one(self) -> None:
        """Kill the eldest worker; another takes its place."""
        self.workers.pop(0).end()
        self.start()

    def running(self, queue: str) -> int:
        engine = self.app.engine
        found = Selection(queue=queue, states=(State.RUNNING,))
        return len(engine.run(engine.find(found, 100)).records)

    def notes(self, word: str) -> list[list[str]]:
        lines = (self.directory / "runs").read_text().splitlines()
        return [line.split()[1:] for line in lines if line.startswith(word)]

    def is_done(self, queue: str) -> bool:
        return self.app.queue(queue).record().depth.jobs == 0

    def watched(self, queue: str, seconds: float, look: Callable[[], None]) -> None:
        def holds() -> bool:
            look()
            return self.is_done(queue)

        wait_until(holds, seconds, lambda: str(self.app.queue(queue).record().depth))

    def close(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.end()
        self.app.close()


@pytest.fixture(params=engines.SHARED, ids=lambda maker: maker.name)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with request.param.place(tmp_path, SystemClock()) as url:
        made = Fleet(tmp_path, url, request.param.name)
        yield made
        made.close()


@pytest.mark.timeout(120)
def test_never_more_run_than_the_limit_allows_also_while_workers_are_killed(fleet: Fleet):
    fleet.app.tasks["work"].enqueue_many([((number,), {}) for number in range(150)])
    fleet.start(2)
    most, looks = 0, 0

    def look() -> None:
        nonlocal most, looks
        most, looks = max(most, fleet.running("slow")), looks + 1
        if looks in (60, 120):
            fleet.kill_one()

    fleet.watched("slow", 90, look)

    record = fleet.app.queue("slow").record()
    assert most == 3
    assert record.succeeded == 150


@pytest.mark.timeout(120)
def test_a_rate_over_two_workers_is_kept_and_used(fleet: Fleet):
    fleet.start(2)
    fleet.app.tasks["call"].enqueue_many([((number,), {}) for number in range(120)])

    fleet.watched("default", 60, lambda: None)

    begun = sorted(float(at) for (at,) in fleet.notes("call"))
    assert len(begun) == 120
    # A lease is given at the rate; the job begins a little later, by as much as the machine
    # is busy, so that begins may bunch up by that.
    slack = 8
    for i, first in enumerate(begun):
        within = sum(at < first + 1 for at in begun[i:])
        assert within <= 40 + 4 + slack, f"{within} began within a second"
    assert begun[-1] - begun[0] < (120 - 4) / 40 * 1.25  # seconds: at least 80 % of it used


@pytest.mark.timeout(120)
def test_the_jobs_of_groups_run_in_order_over_two_workers(fleet: Fleet):
    book = fleet.app.tasks["book"]
    groups = [f"account-{number}" for number in range(5)]
    for number in range(12):
        for group in groups:
            book.using(group=group).enqueue(number, group)
    fleet.start(2)

    fleet.watched("ledger", 60, lambda: None)

    for group in groups:
        begun = [int(number) for its, number in fleet.notes("begin") if its == group]
        assert begun == list(range(12))
    lines = (fleet.directory / "runs").read_text().splitlines()
    for group in groups:
        mine = [line.split()[0] for line in lines if line.split()[1] == group]
        assert mine == ["begin", "end"] * 12
