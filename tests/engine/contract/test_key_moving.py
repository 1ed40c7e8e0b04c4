"""Keys of jobs that are moved to another store: held there by the same rules."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import dumped, move, restore
from tests.engine.contract.desk import Desk, firsts, retry
from tests.engine.contract.test_key_rules import HOLDING, HOUR, KEY, RULES, is_free

from backlane.engine.memory import MemoryEngine
from backlane.model.clock import FakeClock
from backlane.model.job import FINAL, Key, KeyRule, State


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


def test_a_window_ends_when_it_would_have_ended_where_its_job_came_from(
    pair: tuple[Desk, Desk],
) -> None:
    source, target = pair
    source.add_one(key=KEY, rule=HOUR)
    source.clock.advance(minutes=40)

    move(pair)

    source.clock.advance(minutes=19)
    assert not is_free(target)
    source.clock.advance(minutes=2)
    assert is_free(target)


def test_a_burst_is_waited_for_no_longer_because_its_job_was_moved(
    pair: tuple[Desk, Desk],
) -> None:
    """`most_ms` counts from the first append, wherever that was."""
    source, target = pair
    rule = KeyRule("started", conflict="debounce", most_ms=60_000)
    job = source.add_one(key=KEY, rule=rule, delay_ms=30_000)
    until = source.clock.wall_ms() + 60_000
    source.clock.advance(seconds=20)

    move(pair)
    source.clock.advance(seconds=5)
    receipts = target.append(target.job(key=KEY, rule=rule, delay_ms=50_000, body=b"new"))

    assert isinstance(receipts, list)
    assert (receipts[0].first, receipts[0].replaced) == (job, True)
    assert target.record(job).due_ms == until
    assert target.record(job).body == b"new"
