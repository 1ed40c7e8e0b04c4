"""What all tests of engines share: each engine of the contract, on a fake clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Engine
from backlane.model.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=engines.MAKERS, ids=lambda maker: maker.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Engine]:
    made = engines.make(request.param, tmp_path, clock)
    yield made
    made.close()


@pytest.fixture
def desk(engine: Engine, clock: FakeClock) -> Desk:
    return Desk(engine, clock)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, why in sorted(engines.missing.items()):
        terminalreporter.write_line(f"engine not tested: {name} ({why})", yellow=True)
