"""A SQLite engine in a folder of its own, at a desk with a fake clock."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what is tried there syncs thousands of times."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(path: Path, clock: FakeClock) -> Iterator[SqliteEngine]:
    made = SqliteEngine(path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def desk(engine: SqliteEngine, clock: FakeClock) -> Desk:
    return Desk(engine, clock)
