"""What all tests of engines share: each engine of the contract, on a fake clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engine.contract import brokers, engines
from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Engine
from backlane.model.clock import FakeClock

PARAMETERS = [
    *engines.MAKERS,
    *brokers.MAKERS,
    *(
        pytest.param(maker, marks=pytest.mark.variant)
        for maker in (*engines.VARIANTS, *brokers.REAL)
    ),
]

# What differs by the age of a server, or by what stands before it, shows in these. The rest
# of the contract is run on variants by `make prove`: three more of it take two minutes.
TELLING = {
    *("test_append", "test_bells", "test_claim", "test_joined", "test_running", "test_seal"),
    *("test_sweep", "test_turn"),
}
# The same of what stands behind a real broker; each broker and each ledger once.
CARRIED = {"test_bells", "test_claim", "test_limited_queues", "test_tune", "test_turn"}
CARRIERS = {"rabbitmq+postgresql", "sqs+sqlite"}

# What a claim by queues says, and one of the jobs that have arrived cannot say.
NOT_BROKERED = {
    # The relay looks as often as there is something to bring in.
    "test_a_claim_brings_in_a_thousand_due_jobs_at_most",
    "test_a_claim_wakes_a_thousand_jobs_at_most",
    # The relay waits for the tokens of queues of which nothing has arrived.
    "test_tokens_that_another_queue_took_are_waited_for",
    # PostgreSQL looks no further than 30 s where nothing is to be taken.
    "test_a_claim_says_when_what_waits_is_to_be_tried",
    # Where a job has to wait after all, the next one is offered then, for the next claim.
    "test_leases_of_several_queues_are_in_line_though_some_had_to_wait",
    "test_who_goes_instead_of_one_that_has_to_wait_goes_before_those_behind",
}
# The bell of a server rings once when it is hung, and is passed on a moment later.
NOT_ON_SERVERS = {"test_nobody_rings_where_nothing_happened", "test_a_fake_clock_ends_a_wait"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_out(config, items, _is_not_brokered)
    if os.environ.get("BACKLANE_PROVE") == "1":
        return
    _leave_out(config, items, _tells_nothing)


def _tells_nothing(item: pytest.Item) -> bool:
    if not item.get_closest_marker("variant"):
        return False
    maker = _maker(item)
    if isinstance(maker, brokers.BrokeredMaker):
        return item.path.stem not in CARRIED or maker.name not in CARRIERS
    return item.path.stem not in TELLING


def _is_not_brokered(item: pytest.Item) -> bool:
    name, maker = getattr(item, "originalname", None), _maker(item)
    left_out = NOT_BROKERED | (NOT_ON_SERVERS if maker in brokers.REAL else set())
    return name in left_out and isinstance(maker, brokers.BrokeredMaker)


def _maker(item: pytest.Item) -> object:
    called = getattr(item, "callspec", None)
    return called.params.get("engine") if called else None


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], is_out: Callable[[pytest.Item], bool]
) -> None:
    left_out = {item for item in items if is_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


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
