"""Real workers for tests: started, signalled, and none of their processes left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.worker.yard import make

from backlane import Backlane
from backlane.engine.selection import Selection
from backlane.handle import JobHandle
from backlane.model.clock import SystemClock

ROOT = Path(__file__).resolve().parents[2]
START = """
import logging, sys
from backlane.worker.recycling import Recycling
from backlane.worker.supervisor import Supervisor
logging.basicConfig(level="INFO", format="%(message)s")
sys.exit(Supervisor({target!r}, {options}).run())
"""
APPLICATION = """
from pathlib import Path
from tests.worker.yard import make
app = make(Path({directory!r}), {url!r})
"""


class Command:
    """A worker process, its output, and the processes below it."""

    def __init__(self, directory: Path, options: str, target: str) -> None:
        self._log = (directory / f"log-{time.monotonic_ns()}").open("w+")
        self._popen = subprocess.Popen(
            [sys.executable, "-c", START.format(target=target, options=options)],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    def executors(self) -> list[int]:
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        return self._popen.wait(seconds)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def saw(self, text: str, seconds: float = 5.0) -> str:
        """Wait until the log contains a text, and return the log."""
        wait_until(lambda: text in self.log, seconds, lambda: f"no {text!r} in:\n{self.log}")
        return self.log

    def end(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        self._log.close()


def wait_until(
    holds: Callable[[], object],
    seconds: float = 5.0,
    why: Callable[[], str] = lambda: "it never came true",
) -> None:
    """Wait for what another process does."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, why()
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes_in(directory: Path) -> list[int]:
    """Return the processes that work in a directory: a worker and all that it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == directory:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Yard:
    """An application over a store of its own, and the workers that serve it."""

    def __init__(self, directory: Path, url: str, engine: str) -> None:
        self.directory, self.engine = directory, engine
        self.app: Backlane = make(directory, url)
        source = APPLICATION.format(directory=str(directory), url=url)
        (directory / "application.py").write_text(source)
        (directory / "runs").touch()
        self._workers: list[Command] = []

    def worker(self, options: str = "", target: str = "application:app") -> Command:
        worker = Command(self.directory, options, target)
        self._workers.append(worker)
        return worker

    def enqueue(self, task: str, *args: object) -> JobHandle[object]:
        return self.app.tasks[task].enqueue(*args)

    def runs(self, task: str) -> list[int]:
        """Return the process ids in which a task ran, one for each time it started."""
        lines = (self.directory / "runs").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == task]

    def has_run(self, task: str, times: int = 1) -> None:
        wait_until(lambda: len(self.runs(task)) >= times, 10, lambda: f"{task} did not run")

    def ended(self, job: JobHandle[object], seconds: float = 10.0) -> None:
        wait_until(lambda: job.state.is_final, seconds, lambda: f"{job} is {job.record()}")

    def reason(self, job: JobHandle[object]) -> str:
        self.ended(job)
        return str(job.record().reason)

    def number_of_jobs(self) -> int:
        engine = self.app.engine
        return len(engine.run(engine.find(Selection(), limit=1_000)).records)

    def end(self) -> None:
        for worker in self._workers:
            worker.end()
        self.app.close()


# A worker's own doings are tested on a file; what the store has a part in, on each.
on_every_store = pytest.mark.parametrize(
    "yard", engines.SHARED, indirect=True, ids=lambda maker: maker.name
)


@pytest.fixture
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Yard]:
    """An application and its workers; fails when one of their processes outlives them."""
    maker = getattr(request, "param", engines.SQLITE)
    with maker.place(tmp_path, SystemClock()) as url:
        made = Yard(tmp_path, url, maker.name)
        yield made
        made.end()
    wait_until(
        lambda: not processes_in(tmp_path),
        2,
        lambda: f"processes were left behind: {processes_in(tmp_path)}",
    )
