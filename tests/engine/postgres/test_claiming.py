"""Claims at the same moment: each job is given once, none is passed by, nobody waits."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from msgspec.structs import replace
from tests.engine.postgres.test_exact_admission import MAIL, in_threads, new_job

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.model.job import Lease
from backlane.model.outcome import Released, Settlement, Succeeded
from backlane.model.queue import Bounds

ROOMY = Admission({name: Bounds(max_jobs=100_000) for name in ("mail", "video")})


@pytest.fixture
def engines(url: str) -> Iterator[list[PostgresEngine]]:
    """Three processes, as far as the server can tell."""
    made = [PostgresEngine(url) for _ in range(3)]
    yield made
    for engine in made:
        engine.close()


def claimed(engine: PostgresEngine, number: int, *queues: str, owner: str = "ann") -> list[Lease]:
    wanted = Wanted(owner, number, 30_000, queues=queues or ("mail",))
    return engine.run(engine.claim(wanted)).leases


def done(leases: list[Lease]) -> list[Settlement]:
    return [Settlement(lease.job, lease.token, Succeeded()) for lease in leases]


@pytest.mark.parametrize("queues", [("mail",), ("mail", "video")])
def test_each_job_is_given_once_and_none_is_left(
    engines: list[PostgresEngine], queues: tuple[str, ...]
) -> None:
    given: Counter[bytes] = Counter()
    expected = set()
    for _ in range(4):
        batch = [new_job() for _ in range(500)]
        expected |= {job.id for job in batch}
        engines[0].run(engines[0].append(batch, ROOMY))
    lock = threading.Lock()

    def work(which: int) -> None:
        engine = engines[which % len(engines)]
        settled: list[Settlement] = []
        wanted = Wanted(f"owner-{which}", 20, 30_000, queues=queues)
        while True:
            turn = engine.run(engine.turn(settled, [wanted]))
            assert turn.settled.lost == []
            leases = turn.claimed[0].leases
            settled = done(leases)
            with lock:
                given.update(lease.job for lease in leases)
                if len(given) == len(expected) and not leases:
                    return
            if not leases:
                time.sleep(0.01)

    in_threads(6, work)

    assert set(given) == expected
    assert set(given.values()) == {1}
    record = engines[0].run(engines[0].list_queues())[0]
    assert (record.depth.jobs, record.succeeded) == (0, 2_000)


def test_claims_do_not_wait_for_each_other(engines: list[PostgresEngine], url: str) -> None:
    engine = engines[0]
    jobs = [new_job() for _ in range(10)]
    engine.run(engine.append(jobs, MAIL))
    schema = url.rpartition("=")[2]
    with psycopg.connect(url.partition("?")[0]) as other:
        other.execute(f'select 1 from "{schema}".ready order by place, seq limit 3 for update')

        leases = claimed(engine, 10)  # while the lock is held

        assert [lease.job for lease in leases] == [job.id for job in jobs[3:]]
    # What a claim passed by lies below its floor: the next look before that finds it.
    passed: list[bytes] = []
    until = time.monotonic() + 10
    while time.monotonic() < until and len(passed) < 3:
        passed += [lease.job for lease in claimed(engine, 10)]
    assert passed == [job.id for job in jobs[:3]]


def test_what_is_committed_late_is_found_within_a_second(
    engines: list[PostgresEngine], url: str
) -> None:
    engine, late = engines[0], new_job()
    with psycopg.connect(url.partition("?")[0]) as connection:
        engine.joined(connection).run(engine.append([late], ROOMY))
        time.sleep(0.01)
        for _ in range(5):
            engine.run(engine.append([new_job() for _ in range(100)], ROOMY))
        claimed(engine, 50)  # a floor is known from now on
        connection.commit()
    until = time.monotonic() + 1.5
    seen = False

    while not seen and time.monotonic() < until:
        # Never short: only a look from the beginning can find it.
        seen = late.id in {lease.job for lease in claimed(engine, 1)}
        time.sleep(0.05)

    assert seen


def test_a_small_group_is_not_passed_by_where_it_commits_late(
    engines: list[PostgresEngine], url: str
) -> None:
    """Small groups waited for seconds beside a large one, behind where claims went on."""
    engine, late = engines[0], replace(new_job(), group="small")
    fair = Admission(ROOMY.declared, fair=frozenset({"mail"}))
    engine.run(engine.append([replace(new_job(), group="large") for _ in range(300)], fair))
    ahead: list[bytes] = []
    with psycopg.connect(url.partition("?")[0]) as connection:
        claimed(engine, 10)
        engine.joined(connection).run(engine.append([late], fair))
        while engines[1].run(engines[1].list_queues())[0].depth.ready > 100:
            ahead += [lease.job for lease in claimed(engine, 10)]
        connection.commit()

    (next_one,) = claimed(engine, 1)

    assert late.id not in ahead
    assert next_one.job == late.id


def test_what_was_given_back_goes_first_again(engines: list[PostgresEngine]) -> None:
    engine = engines[0]
    jobs = [new_job() for _ in range(10)]
    engine.run(engine.append(jobs, MAIL))
    first = claimed(engine, 3)

    engine.run(engine.settle([Settlement(it.job, it.token, Released()) for it in first]))

    assert [lease.job for lease in claimed(engine, 4)] == [job.id for job in jobs[:4]]


def test_a_settle_that_comes_twice_changes_nothing(engines: list[PostgresEngine]) -> None:
    engine = engines[0]
    engine.run(engine.append([new_job() for _ in range(3)], MAIL))
    settlements = done(claimed(engine, 3))

    first = engine.run(engine.settle(settlements))
    second = engine.run(engine.settle(settlements))

    assert first.lost == []
    assert sorted(second.lost) == sorted(it.job for it in settlements)


def test_opposite_settles_never_wait_in_a_circle(engines: list[PostgresEngine]) -> None:
    engine = engines[0]
    engine.run(engine.append([new_job() for _ in range(200)], MAIL))
    settlements = done(claimed(engine, 200))
    lost: list[int] = []

    def work(which: int) -> None:
        mine = settlements if which % 2 else settlements[::-1]
        lost.append(len(engines[which % 3].run(engines[which % 3].settle(mine)).lost))

    in_threads(6, work)

    assert sum(lost) == 5 * 200
