"""Processes of the benchmarks: a real worker, as its command starts it, and what it uses."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.figure import Nothing
from bench.store import Store

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 15.0


class WorkerProcess:
    """`backlane worker bench.served:app`, with one executor unless said, on a store.

    Args:
        target: another application, which runs `noop` too.
        name: of the log, where several work on a store.
    """

    def __init__(
        self,
        store: Store,
        *,
        concurrency: int = 50,
        processes: int = 1,
        target: str = "bench.served:app",
        name: str = "worker",
    ) -> None:
        self._store = store
        self._command = [
            *(sys.executable, "-m", "backlane", "worker", target),
            *("--processes", str(processes), "--concurrency", str(concurrency)),
        ]
        self.log = store.path.with_suffix(f".{name}.log")

    def __enter__(self) -> Self:
        self.start()
        # A job done says that the executor is up, so that no figure holds its start.
        try:
            self._store.work.noop.enqueue(0, "").result(timeout=30)
        except BaseException as error:
            error.add_note(f"the worker said:\n{self.log.read_text()[-2000:]}")
            self._end_session()
            raise
        return self

    def start(self) -> None:
        """Start the command and return at once."""
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self._command,
                env=environment(self._store),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None and (told := self.log.read_text()[-2000:]):
            error.add_note(f"the worker said:\n{told}")

    def stop(self) -> None:
        """End the worker as a deploy does, and whatever it left behind by force."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        self._end_session()
        if status != 0:
            raise Nothing(f"the worker ended with {status} on SIGTERM; see {self.log}")

    def _end_session(self) -> None:
        # The session is this worker's own: it was started above.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def family(self) -> list[int]:
        """Return the pids of the supervisor and of all that descend from it."""
        found = [self.process.pid]
        for pid in found:
            found += children(pid)
        return found


def environment(store: Store) -> dict[str, str]:
    """Return what a child process needs to import this package and to find the store."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "BENCH_URL": store.url,
        "BENCH_BOUND": str(store.bound),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        # Fields 14 and 15, counted behind the name, which may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pids: list[int]) -> float:
    """Return the memory of these processes, what they share counted for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def proportional_mib(pids: list[int]) -> float:
    """Return the memory of these processes, what they share counted once."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib / 1024
