"""What all tests of engines share: each engine of the contract, on a fake clock."""

from __future__ import annotations

import os
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

# What differs by the age of a server, or by what stands before it, shows in these. The rest
# of the contract is run on variants by `make prove`: three more of it take two minutes.
TELLING = {
    *("test_append", "test_bells", "test_claim", "test_joined", "test_running", "test_seal"),
    *("test_settle", "test_sweep", "test_turn"),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("BACKLANE_PROVE") == "1":
        return
    left_out = [
        item
        for item in items
        if item.get_closest_marker("variant") and item.path.stem not in TELLING
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


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
