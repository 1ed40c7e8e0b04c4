"""The account: what was acknowledged, against what the store says and what was started."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from backlane.demo.application import QUEUE
from backlane.engine.protocol import Engine
from backlane.engine.selection import Selection
from backlane.model.job import JobRecord, State

IDS_A_CALL = 1_000


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one demonstration, and whether they add up.

    `lost` counts acknowledged jobs that the store does not show as succeeded; `repeated`
    those whose function began more than once. `faults` says in words what else is wrong:
    it is empty exactly if every acknowledged job finished exactly once.
    """

    files: int
    jobs: int
    done: int
    lost: int
    repeated: int
    workers_killed: int
    seconds: float
    faults: list[str] = []

    @property
    def holds(self) -> bool:
        return self.lost == 0 and self.done == self.jobs == self.files and not self.faults

    def line(self) -> str:
        """Return the last line of the demonstration."""
        return (
            f"demo: files={self.files} jobs={self.jobs} done={self.done} lost={self.lost} "
            f"repeated={self.repeated} workers_killed={self.workers_killed} "
            f"seconds={self.seconds:.1f}"
        )


class Starts:
    """The log of starts: which job's function began in which worker, in order."""

    def __init__(self, log: Path) -> None:
        self.of: dict[bytes, list[int]] = defaultdict(list)
        lines = log.read_text().splitlines() if log.exists() else []
        for line in lines:
            job, worker = line.split()
            self.of[uuid.UUID(job).bytes].append(int(worker))

    def repeated(self) -> list[bytes]:
        """Return the jobs that were started more than once."""
        return [job for job, workers in self.of.items() if len(workers) > 1]

    def unexplained(self, killed: Sequence[int]) -> list[bytes]:
        """Return jobs started again although no start before died with a killed worker."""
        return [
            job for job in self.repeated() if any(each not in killed for each in self.of[job][:-1])
        ]


def succeeded(engine: Engine, ids: Sequence[bytes]) -> Iterator[JobRecord]:
    """Yield the jobs that the store shows as done, with their results."""
    for start in range(0, len(ids), IDS_A_CALL):
        part = tuple(ids[start : start + IDS_A_CALL])
        for record in engine.run(engine.find(Selection(ids=part), len(part))).records:
            if record.state is State.SUCCEEDED and record.result is not None:
                yield record


def faults(
    engine: Engine, ids: Sequence[bytes], jobs: int, starts: Starts, killed: Sequence[int]
) -> list[str]:
    """Say what contradicts `every acknowledged job finished exactly once`.

    `jobs` are all that were acknowledged: those of files (`ids`), and those that gather.
    """
    expected = (jobs, jobs)
    found = [
        f"{jobs} jobs were acknowledged; the store counts {queue.appended} appended and "
        f"{queue.succeeded} succeeded"
        for queue in engine.run(engine.list_queues())
        if queue.name == QUEUE and (queue.appended, queue.succeeded) != expected
    ]
    if never := [job for job in ids if job not in starts.of]:
        found.append(f"{len(never)} jobs were never started")
    if strange := starts.unexplained(killed):
        found.append(f"{len(strange)} jobs ran again though their worker was not killed")
    return found
