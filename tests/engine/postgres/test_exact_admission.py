"""Bounds are exact, whoever asks at the same moment, and nearly all of them is used."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Tune
from backlane.model.job import Job, Receipt, Refusal
from backlane.model.queue import Bounds

BOUND = 1_000
MAIL = Admission({"mail": Bounds(max_jobs=BOUND)})


def new_job(body: bytes = b"") -> Job:
    made_ms = int(time.time() * 1000)
    return Job(id=made_ms.to_bytes(6) + b"\x70" + os.urandom(9), queue="mail", task="t", body=body)


def depth(engine: PostgresEngine) -> int:
    return engine.run(engine.list_queues())[0].depth.jobs


def in_threads(number: int, work: Callable[[int], None]) -> None:
    faults: list[BaseException] = []

    def guarded(which: int) -> None:
        try:
            work(which)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]


@pytest.fixture
def engines(url: str) -> Iterator[list[PostgresEngine]]:
    """Five processes, as far as the server can tell."""
    made = [PostgresEngine(f"{url}&pool=4") for _ in range(5)]
    yield made
    for engine in made:
        engine.close()


def test_fifty_producers_fill_a_queue_to_its_bound(engines: list[PostgresEngine]) -> None:
    taken: list[int] = []

    def produce(which: int) -> None:
        engine = engines[which % len(engines)]
        while True:
            batch = [new_job() for _ in range(random.choice((1, 1, 1, 3)))]
            answer = engine.run(engine.append(batch, MAIL))
            if isinstance(answer, Refusal):
                assert answer.limit == "jobs"
                return
            taken.append(len(answer))

    in_threads(50, produce)

    assert BOUND - 2 <= sum(taken) <= BOUND  # a refused batch may have been one of three
    assert depth(engines[0]) == sum(taken)


def test_rolled_back_callers_leave_their_places_to_others(
    engines: list[PostgresEngine], url: str
) -> None:
    committed: list[bytes] = []
    refused: list[int] = []

    def produce(which: int) -> None:
        engine = engines[which % len(engines)]
        with psycopg.connect(url.partition("?")[0]) as connection:
            while len(refused) < 60:
                job = new_job()
                answer = engine.joined(connection).run(engine.append([job], MAIL))
                if isinstance(answer, Refusal):
                    connection.rollback()
                    refused.append(1)
                    time.sleep(0.01)
                elif which % 2:
                    connection.rollback()
                else:
                    connection.commit()
                    committed.append(job.id)

    in_threads(20, produce)

    assert 950 <= len(committed) <= BOUND
    assert depth(engines[0]) == len(committed)


def test_what_a_process_was_granted_counts_until_it_is_taken_back(
    engines: list[PostgresEngine],
) -> None:
    one, other = engines[:2]
    for _ in range(20):  # often enough to be granted some
        assert isinstance(one.run(one.append([new_job()], MAIL)), list)
    assert one._purse.lines([new_job()]) is not None

    answer = other.run(other.append([new_job() for _ in range(BOUND - 20)], MAIL))

    assert isinstance(answer, list)
    refusal = one.run(one.append([new_job()], MAIL))
    assert isinstance(refusal, Refusal)
    assert depth(one) == BOUND


def test_a_bound_by_bytes_is_exact_too(engines: list[PostgresEngine]) -> None:
    admission = Admission({"mail": Bounds(max_bytes=100_000)})

    def produce(which: int) -> None:
        engine = engines[which % len(engines)]
        while isinstance(engine.run(engine.append([new_job(b"x" * 100)], admission)), list):
            pass

    in_threads(20, produce)

    assert engines[0].run(engines[0].list_queues())[0].depth.bytes == 100_000


def test_a_bound_that_was_tuned_down_holds_for_all_at_once(
    engines: list[PostgresEngine],
) -> None:
    one, other = engines[:2]
    for _ in range(20):
        one.run(one.append([new_job()], MAIL))

    other.run(other.tune("mail", Tune(max_jobs=20)))

    refusal = one.run(one.append([new_job()], MAIL))
    assert isinstance(refusal, Refusal)
    assert refusal.bound == 20


def test_the_quick_way_knows_jobs_that_came_before(engines: list[PostgresEngine]) -> None:
    engine = engines[0]
    jobs = [new_job() for _ in range(10)]
    for job in jobs:
        engine.run(engine.append([job], MAIL))

    answer = engine.run(engine.append([*jobs, new_job()], MAIL))

    assert isinstance(answer, list)
    firsts = [receipt.first for receipt in answer]
    assert firsts == [*(job.id for job in jobs), None]
    assert depth(engine) == 11


def test_receipts_of_the_quick_way_tell_the_servers_time(engines: list[PostgresEngine]) -> None:
    engine = engines[0]
    for _ in range(5):
        answer = engine.run(engine.append([new_job()], MAIL))

    assert isinstance(answer, list)
    (receipt,) = answer
    assert isinstance(receipt, Receipt)
    assert abs(receipt.enqueued_ms - time.time() * 1000) < 5_000
    assert receipt.due_ms == receipt.enqueued_ms
    assert receipt.pressure == 5 / BOUND
