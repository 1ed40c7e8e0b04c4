"""Keys of jobs that are moved to another store: held there by the same rules."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import dumped, move, restore
from tests.engine.contract.desk import Desk, firsts, retry
from tests.engine.contract.test_key_rules import HOLDING, HOUR, KEY, RULES, is_free

from backlane.engine.memory import MemoryEngine
from backlane.model.clock import FakeClock
from backlane.model.job import FINAL, Key, State


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


@pytest.mark.parametrize("until", RULES)
@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY, *sorted(FINAL)])
def test_a_moved_job_holds_its_key_as_before(
    pair: tuple[Desk, Desk], state: State, until: str
) -> None:
    source, target = pair
    job = source.in_state(state, key=KEY, rule=RULES[until])
    holds = state in HOLDING[until]
    retried = source.add_one(key=Key("send", "8"), rule=RULES[until])
    source.settle(source.lease(ids=(retried,)), retry(60))

    move(pair, final=tuple(FINAL))

    assert target.record(job).rule == RULES[until]
    assert is_free(target) is not holds
    again = target.job(key=Key("send", "8"))
    assert firsts(target.append(again)) == [(again.id, None if until == "started" else retried)]


def test_a_key_that_is_held_already_stays_where_it_is(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    source.add_one(key=KEY, rule=HOUR)
    holder = target.add_one(key=KEY)

    (whole,) = dumped(source)
    assert restore(target, [whole]) == [whole.record.id]

    newcomer = target.job(key=KEY)
    assert firsts(target.append(newcomer)) == [(newcomer.id, holder)]
