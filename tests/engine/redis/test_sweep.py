"""sweep on Redis: bounded whatever there is, and an audit that finds what nothing else would."""

from __future__ import annotations

import pytest
import redis
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, settlement
from tests.engine.redis.ledger import Ledger

from backlane.engine.selection import Cancel
from backlane.model.job import Key, State


@pytest.fixture
def prefix(namespace: str) -> str:
    return f"backlane:1:{{{namespace}}}:"


@pytest.fixture
def client(url: str):
    with redis.Redis.from_url(url) as made:
        yield made


# -- the audit --


@pytest.mark.parametrize("state", [State.READY, State.SCHEDULED, State.RUNNING, State.FAILED])
def test_a_job_that_is_in_no_set_is_put_back(
    desk: Desk, ledger: Ledger, client: redis.Redis, prefix: str, state: State
) -> None:
    job = desk.in_state(state)
    (place,) = [name for name in ledger.places() if name != "dead"]
    client.delete(prefix + place)

    desk.sweep()

    ledger.check()
    assert desk.state(job) is state


def test_a_job_at_the_wrong_place_is_put_right(
    desk: Desk, ledger: Ledger, client: redis.Redis, prefix: str
) -> None:
    first, second = desk.add(2)
    (place,) = ledger.places()
    client.zadd(prefix + place, {next(iter(ledger.places()[place])): 2**52})

    desk.sweep()

    ledger.check()
    assert desk.claimed_ids() == [first, second]


def test_every_job_is_looked_at_in_time(
    desk: Desk, ledger: Ledger, client: redis.Redis, prefix: str
) -> None:
    jobs = desk.add(2_500)
    (place,) = ledger.places()
    client.delete(prefix + place)

    for _ in range(2_500 // 200 + 4):
        desk.sweep()

    assert desk.claimed_ids(3_000) == jobs


def test_a_member_without_a_job_is_dropped(
    desk: Desk, ledger: Ledger, client: redis.Redis, prefix: str
) -> None:
    stranger = (7).to_bytes(6) + b"x" * 16
    desk.add()
    for name in ("leases", "deadlines", "unaged", "done:1", "failed:1"):
        client.zadd(prefix + name, {stranger: 1})

    desk.sweep()

    ledger.check()


# -- ageing --


def test_levels_are_reached_one_by_one_however_often_it_sweeps(desk: Desk, ledger: Ledger) -> None:
    jobs = [desk.add_one(priority=priority) for priority in range(10)]
    levels = []
    for _ in range(50):
        desk.clock.advance(seconds=61)
        desk.sweep()
        levels.append(sorted(row.rank for row in ledger.rows().values()))

    waited = [min(9, 50 * 61 // 300 + priority) for priority in range(10)]
    assert levels[-1] == sorted(waited)
    assert len(jobs) == 10
    ledger.check()


def test_jobs_of_different_times_and_limits_age_to_where_they_belong(
    desk: Desk, ledger: Ledger
) -> None:
    for number in range(60):
        desk.add(3, priority=number % 10, delay_ms=1_000 * (number % 3))
        desk.clock.advance(seconds=37)
        if number % 7 == 0:
            desk.claim(0)
            desk.sweep(limit=5)
    desk.claim(0)
    while desk.sweep(limit=20).more:
        pass

    now = desk.clock.wall_ms()
    for row in ledger.rows().values():
        assert row.rank == min(9, row.priority + (now - row.place) // 300_000)


def test_what_ages_within_one_millisecond_is_no_more_a_sweep_than_its_limit(desk: Desk) -> None:
    desk.add(500, priority=1)
    desk.clock.advance(minutes=5)

    assert [desk.sweep(limit=100).aged for _ in range(5)] == [100] * 5
    assert desk.sweep(limit=100).aged == 0


def test_a_clock_set_back_stops_ageing_for_no_longer_than_it_was_set_back(desk: Desk) -> None:
    desk.add(priority=1)
    desk.clock.jump(hours=-1)
    desk.sweep()
    desk.clock.advance(minutes=66)

    assert desk.sweep().aged == 1


# -- what is bounded --


def test_a_sweep_reads_no_history_that_is_to_stay(desk: Desk, client: redis.Redis) -> None:
    desk.add(1_000)
    leases = desk.claim(1_000).leases
    desk.run(desk.engine.settle([settlement(lease, SUCCEEDED) for lease in leases]))
    desk.sweep()
    before = reads(client)

    for _ in range(10):
        desk.sweep()

    assert reads(client) - before <= 10 * 3  # the audit, and a look at each state


def reads(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"])


# -- find looks where there are few --


@pytest.mark.parametrize(
    "selection",
    [
        {"states": (State.FAILED,)},
        {"states": (State.FAILED,), "queue": "video"},
        {"states": (State.READY,)},
        {"states": (State.RUNNING,)},
        {"states": (State.SCHEDULED,)},
        {"queue": "video"},
        {"group": "acme"},
        {"key": "welcome"},
    ],
    ids=str,
)
def test_common_questions_read_no_history(
    desk: Desk, client: redis.Redis, selection: dict[str, object]
) -> None:
    wanted = {
        "failed": desk.finished(FAILED, queue="video"),
        "ready": desk.add_one("video", group="acme", key=Key("send", "welcome")),
        "scheduled": desk.add_one("video", delay_ms=60_000),
        "running": desk.in_state(State.RUNNING, queue="video"),
    }
    for _ in range(6):
        desk.add(1_000)
        leases = desk.claim(1_000).leases
        desk.run(desk.engine.settle([settlement(lease, SUCCEEDED) for lease in leases]))
    before = reads(client)

    found = desk.found_ids(**selection)

    assert set(found) <= set(wanted.values())
    assert found
    assert reads(client) - before <= 8


def test_a_cancelled_backlog_is_found_by_its_state(desk: Desk) -> None:
    jobs = desk.add(1_200)
    while desk.amend(Cancel(), states=(State.READY,)).cursor:
        pass

    assert set(desk.found_ids(states=(State.CANCELLED,))) == set(jobs)
