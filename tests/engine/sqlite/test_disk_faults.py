"""Failing disks: a clear error, nothing acknowledged lost, and work goes on afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement
from tests.engine.sqlite.disk import FailingDisk

from backlane.engine.sqlite import SqliteEngine
from backlane.errors import BacklaneError, EngineUnavailable, OutcomeUnknown, StoreFull
from backlane.model.clock import FakeClock
from backlane.model.job import Job, State

IS_PROOF = os.environ.get("BACKLANE_PROVE") == "1"
CODES = {
    "a write fails": apsw.SQLITE_IOERR_WRITE,
    "a sync fails": apsw.SQLITE_IOERR_FSYNC,
    "the disk is full": apsw.SQLITE_FULL,
    "the disk is read-only": apsw.SQLITE_READONLY,
}


class Story:
    """Jobs are sent, claimed and settled on a disk that fails somewhere."""

    def __init__(self, path: Path, disk: FailingDisk) -> None:
        self.disk = disk
        self.clock = FakeClock()
        self.engine = SqliteEngine(path, clock=self.clock, vfs=disk.name)
        self.desk = Desk(self.engine, self.clock)
        self.jobs = [self.desk.job(body=b"x" * 3_000) for _ in range(4)]
        self.acknowledged: list[bytes] = []
        self.finished: list[bytes] = []
        self.errors: list[BaseException] = []

    def tell(self) -> None:
        for job in self.jobs:
            self._try(lambda job=job: self._send(job))
        self._try(self._work)
        self._try(lambda: self.engine._process.opened().checkpointer.copy())

    def _send(self, job: Job) -> None:
        self.desk.append(job)
        self.acknowledged.append(job.id)

    def _work(self) -> None:
        leases = self.desk.claim(2).leases
        self.engine.run(self.engine.settle([settlement(one, SUCCEEDED) for one in leases]))
        self.finished += [lease.job for lease in leases]

    def _try(self, step) -> None:
        try:
            step()
        except (BacklaneError, apsw.Error) as error:
            self.errors.append(error)

    def end_well(self) -> None:
        """After the fault: all is there, and all can be done, each job once."""
        self.disk.mend()
        for job in self.acknowledged:
            assert self.desk.is_known(job)
        for job in self.finished:
            assert self.desk.state(job) is State.SUCCEEDED
        for job in self.jobs:
            self.desk.append(job)  # the same ids again
        self.clock.advance(seconds=60)  # a claim may have been stored and not answered
        ran: list[bytes] = []
        while leases := self.desk.claim().leases:
            self.engine.run(self.engine.settle([settlement(one, SUCCEEDED) for one in leases]))
            ran += [lease.job for lease in leases]
        assert len(ran) == len(set(ran))
        assert not set(ran) & set(self.finished)
        assert set(self.desk.states([job.id for job in self.jobs])) == {State.SUCCEEDED}
        assert self.desk.depth().jobs == 0
        self.engine.close()


every_fault = pytest.mark.parametrize("fault", CODES)
once_or_longer = pytest.mark.parametrize("lasting", [False, True], ids=["once", "for a while"])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store in which nothing was done yet but to make it."""
    path = tmp_path_factory.mktemp("empty") / "jobs.db"
    engine = SqliteEngine(path, clock=FakeClock())
    engine.run(engine.list_queues())
    engine.close()
    assert not path.with_name("jobs.db-wal").exists()
    return path.read_bytes()


@once_or_longer
@every_fault
def test_a_disk_may_fail_at_any_write(
    quick_folder: Path, empty_store: bytes, fault: str, lasting: bool
):
    number = 1
    while told(quick_folder / str(number), FailingDisk(CODES[fault]), number, lasting, empty_store):
        number += 1
    assert number > 20


@once_or_longer
@every_fault
def test_a_disk_may_fail_while_a_store_is_made(quick_folder: Path, fault: str, lasting: bool):
    number = 1
    while told(quick_folder / str(number), FailingDisk(CODES[fault]), number, lasting):
        # Each commit of a migration is of many writes, that of the last one of most.
        number += 1 if IS_PROOF or number < 20 else 13
    assert number > 200


def told(folder: Path, disk: FailingDisk, number: int, lasting: bool, store: bytes = b"") -> bool:
    """Tell the story on a disk that fails at that write; return whether it came to it."""
    folder.mkdir()
    if store:
        (folder / "jobs.db").write_bytes(store)
    story = Story(folder / "jobs.db", disk)
    disk.arm(number, lasting=lasting)

    story.tell()

    if disk.has_failed:
        for error in story.errors:
            assert isinstance(error, EngineUnavailable | OutcomeUnknown | apsw.Error)
        story.end_well()
    return disk.has_failed


def test_a_full_disk_is_called_by_its_name(tmp_path: Path):
    disk = FailingDisk(apsw.SQLITE_FULL)
    story = Story(tmp_path / "jobs.db", disk)
    story.desk.add()
    disk.arm(1, lasting=True)

    with pytest.raises(StoreFull, match="Free some space"):
        story.desk.add()

    story.end_well()


def test_a_commit_in_doubt_names_the_jobs(tmp_path: Path):
    disk = FailingDisk(apsw.SQLITE_IOERR_FSYNC)
    story = Story(tmp_path / "jobs.db", disk)
    story.desk.add()
    disk.arm(1, lasting=True)

    with pytest.raises(OutcomeUnknown, match="send the same ids again") as caught:
        story.desk.append(story.jobs[0])

    assert [job.bytes for job in caught.value.jobs] == [story.jobs[0].id]
    story.end_well()
