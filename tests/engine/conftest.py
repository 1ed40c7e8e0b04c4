"""What all tests of engines share: each engine of the contract, on a fake clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Engine
from backlane.model.clock import FakeClock

PARAMETERS = [
    *engines.MAKERS,
    *(pytest.param(maker, marks=pytest.mark.variant) for maker in engines.VARIANTS),
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=PARAMETERS, ids=lambda maker: maker.name)
def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Engine]:
    with request.param.opened(tmp_path, clock) as made:
        yield made


@pytest.fixture
def desk(engine: Engine, clock: FakeClock) -> Desk:
    return Desk(engine, clock)
