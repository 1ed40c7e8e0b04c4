"""The log is kept longer than what is written to it, and that changes nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from backlane.engine.protocol import Admission
from backlane.engine.selection import Selection
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.store.log import GROW_BYTES, IN_USE_BYTES
from backlane.model.ids import new_id
from backlane.model.job import Job

NOW_MS = 1_900_000_000_000


def append(engine: SqliteEngine, number: int) -> list[bytes]:
    jobs = [Job(id=new_id(NOW_MS), queue="q", task="t", body=b"{}") for _ in range(number)]
    for job in jobs:
        engine.run(engine.append([job], Admission()))
    return [job.id for job in jobs]


def log_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


def test_a_log_in_use_is_grown_ahead(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    engine = SqliteEngine(path)

    append(engine, 40)

    assert log_bytes(path) >= IN_USE_BYTES + GROW_BYTES
    engine.close()


def test_the_log_of_a_passing_process_is_not_grown(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    engine = SqliteEngine(path)

    append(engine, 1)

    assert log_bytes(path) < GROW_BYTES
    engine.close()


def test_a_grown_log_is_recovered_after_a_crash(tmp_path: Path) -> None:
    """What a killed process leaves: the log ends in zeros, and no index of it exists."""
    path, left = tmp_path / "jobs.db", tmp_path / "left.db"
    engine = SqliteEngine(path)
    jobs = append(engine, 40)
    shutil.copy(path, left)
    shutil.copy(f"{path}-wal", f"{left}-wal")

    found = SqliteEngine(left)
    page = found.run(found.find(Selection(ids=tuple(jobs)), limit=100))

    assert {record.id for record in page.records} == set(jobs)
    assert len(append(found, 40)) == 40
    engine.close()
    found.close()
