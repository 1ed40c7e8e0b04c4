"""A fleet: real workers on one store, which the tests kill, pause and start again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.history import Kill

ROOT = Path(__file__).parent.parent.parent
LONGEST_END = 30.0  # seconds that a worker may take to end when asked to


@dataclass(slots=True)
class Fleet:
    """Workers, each a supervisor with its executors, and whom we have killed."""

    directory: Path
    store: str = ""  # a URL; a file in the directory unless given
    processes: int = 2
    concurrency: int = 4
    grace: float = 25.0
    lease: float | None = None  # seconds, where a test waits for one to lapse
    target: str = "tests.faults.served:app"
    program: str = "backlane"  # the module that is run
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    _surroundings: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.store or f"sqlite:///{self.directory / 'jobs.db'}"

    @property
    def diary(self) -> Path:
        return self.directory / "diary"

    @property
    def log(self) -> Path:
        return self.directory / "workers.log"

    def environment(self) -> dict[str, str]:
        """Return what a worker needs to know; it is also what its processes are known by."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "FAULTS_URL": self.url,
            "FAULTS_DIARY": str(self.diary),
            "PYTHONPATH": os.pathsep.join(paths),
        }

    # -- starting and ending --

    def start(self, **surroundings: str) -> subprocess.Popen[bytes]:
        """Start one more worker, in an environment of its own, and return its supervisor."""
        environment = {**self.environment(), **surroundings}
        with self.log.open("ab") as log:
            worker = subprocess.Popen(self._command(), env=environment, stdout=log, stderr=log)
        self.workers.append(worker)
        self._surroundings[worker.pid] = surroundings
        return worker

    def _command(self) -> list[str]:
        numbers = (str(self.processes), str(self.concurrency))
        if self.lease is not None:
            given = (self.target, str(self.lease), *numbers)
            return [sys.executable, "-m", "tests.faults.short_lease", *given]
        return [
            *(sys.executable, "-m", self.program, "worker", self.target),
            *("--processes", numbers[0], "--concurrency", numbers[1]),
            *("--grace", str(self.grace)),
        ]

    def mend(self) -> int:
        """Start a worker for each whose supervisor has died, in its place; return how many."""
        dead = [worker for worker in self.workers if worker.poll() is not None]
        for worker in dead:
            self.workers.remove(worker)
            self.start(**self._surroundings.pop(worker.pid))
        return len(dead)

    def stop(self) -> list[int]:
        """End all workers as a deploy does; return their exit statuses."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        return [worker.wait(LONGEST_END) for worker in self.workers]

    def end(self) -> None:
        """Leave nothing behind, whatever state a test left the fleet in."""
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for worker in self.workers:
            worker.wait()

    # -- who there is --

    def living(self) -> list[int]:
        """Return every live process of this fleet, known by its environment."""
        mark = f"FAULTS_URL={self.url}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                if pid != os.getpid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    def executors(self, supervisor: int) -> list[int]:
        """Return the children of a supervisor."""
        found: list[int] = []
        for children in Path(f"/proc/{supervisor}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
        return found

    # -- faults --

    def kill_one(self, chance: random.Random) -> Kill:
        """SIGKILL a random process of the fleet, supervisors and executors alike."""
        supervisors = [worker.pid for worker in self.workers if worker.poll() is None]
        everyone = [*supervisors, *(it for pid in supervisors for it in self.executors(pid))]
        victim = chance.choice(everyone)
        return self.kill(victim, is_supervisor=victim in supervisors)

    def kill(self, victim: int, *, is_supervisor: bool) -> Kill:
        """SIGKILL a process and write down who dies with it."""
        doomed = {victim}
        if is_supervisor:
            # Stopped first, so that it cannot start another child while we look.
            os.kill(victim, signal.SIGSTOP)
            doomed |= set(self.executors(victim))
        kill = Kill(time.monotonic_ns(), victim, frozenset(doomed))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        self.kills.append(kill)
        return kill


@contextlib.contextmanager
def fleet(directory: Path, workers: int, **options: float | str | None) -> Iterator[Fleet]:
    """Start a fleet and end it, leaving no process behind."""
    made = Fleet(directory, **options)  # type: ignore[arg-type]
    try:
        for _ in range(workers):
            made.start()
        yield made
    except BaseException as error:
        if made.log.exists():
            error.add_note(f"the workers said:\n{made.log.read_text()[-3000:]}")
        raise
    finally:
        made.end()


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Wait for `condition()`; say what did not happen within `seconds`."""
    assert callable(condition)
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"within {seconds} s not so: {what}")
        time.sleep(0.02)


def until_jobs_start(workers: Fleet, already: float = 0.5) -> float:
    """Wait until jobs are started again; return the seconds that it took.

    What a worker had claimed before may still start: only those count that begin `already`
    seconds later. The caller keeps enqueueing meanwhile.
    """
    began = time.monotonic_ns()
    earliest = began + int(already * 1e9)
    # All that was written before is left unread: after an hour of load, reading it again and
    # again would take a core from those who are waited for.
    end = workers.diary.stat().st_size
    starts: list[int] = []

    def is_consuming() -> bool:
        with workers.diary.open("rb") as diary:
            diary.seek(end)
            lines = diary.read().rpartition(b"\n")[0].splitlines()
        told = [line.split() for line in lines if line.startswith(b"start ")]
        starts[:] = [at for at in (int(it[3]) for it in told if len(it) == 5) if at > earliest]
        return bool(starts)

    wait_until(is_consuming, 40, "jobs are started again")
    return max(0.0, (min(starts) - began) / 1e9 - already)
