"""Appends of many callers at once: few statements, and to each the answer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.ids import new_id
from backlane.model.job import Job, Receipt, Refusal
from backlane.model.queue import Bounds

CALLERS = 60


def job(queue: str = "mail", made: bytes | None = None) -> Job:
    return Job(id=made or new_id(time.time_ns() // 1_000_000), queue=queue, task="send", body=b"{}")


@pytest.fixture
def hold(server: postgres.Shared, url: str) -> Iterator[contextlib.ExitStack]:
    """Holds up all appends until it is closed."""
    schema = url.partition("schema=")[2]
    with contextlib.ExitStack() as held:
        connection = held.enter_context(psycopg.connect(server.url))
        connection.execute(f'lock table "{schema}".job in exclusive mode'.encode())
        yield held


async def appended(
    engine: PostgresEngine, batches: list[list[Job]], admission: Admission, hold
) -> list[list[Receipt] | Refusal | BaseException]:
    """Append all batches at the same moment, while two others are under way."""
    first = [asyncio.create_task(engine.arun(engine.append([job()], admission))) for _ in "12"]
    await asyncio.sleep(0.2)
    rest = [asyncio.create_task(engine.arun(engine.append(each, admission))) for each in batches]
    await asyncio.sleep(0.1)
    hold.close()
    await asyncio.gather(*first)
    return await asyncio.gather(*rest, return_exceptions=True)


def test_each_caller_gets_the_receipt_of_its_own_job(engine: PostgresEngine, hold):
    jobs = [job() for _ in range(CALLERS)]

    answers = asyncio.run(appended(engine, [[one] for one in jobs], Admission(), hold))

    assert [answer[0].job for answer in answers] == [one.id for one in jobs]
    (queue,) = engine.run(engine.list_queues())
    assert queue.depth.jobs == CALLERS + 2


def test_the_bound_refuses_those_that_do_not_fit(engine: PostgresEngine, hold):
    admission = Admission(declared={"mail": Bounds(max_jobs=20)})

    answers = asyncio.run(appended(engine, [[job()] for _ in range(CALLERS)], admission, hold))

    kinds = Counter(type(answer).__name__ for answer in answers)
    assert kinds == {"list": 18, "Refusal": CALLERS - 18}


def test_the_same_id_twice_is_one_job(engine: PostgresEngine, hold):
    made = job()

    answers = asyncio.run(appended(engine, [[made] for _ in range(10)], Admission(), hold))

    assert Counter(answer[0].is_new for answer in answers) == {True: 1, False: 9}


def test_one_that_cannot_be_stored_harms_no_other(engine: PostgresEngine, hold):
    batches: list[list[Job]] = [[job()] for _ in range(10)]
    batches[5] = [None]  # type: ignore[list-item]

    answers = asyncio.run(appended(engine, batches, Admission(), hold))

    assert isinstance(answers.pop(5), AttributeError | TypeError)
    assert all(isinstance(answer, list) for answer in answers)


def test_a_lost_connection_is_told_to_all_whose_jobs_were_on_it(
    engine: PostgresEngine, server: postgres.Shared, url: str
):
    """Sent again, each is found to be stored already, or is stored now: none is lost."""
    jobs = [job() for _ in range(40)]

    async def work() -> list[object]:
        tasks = [
            asyncio.create_task(engine.arun(engine.append([one], Admission()))) for one in jobs
        ]
        with psycopg.connect(server.url, autocommit=True) as admin:
            for _ in range(10):
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where "
                    "application_name = 'backlane'"
                )
                await asyncio.sleep(0.003)
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(work())
    for one, answer in zip(jobs, answers, strict=True):
        if isinstance(answer, OutcomeUnknown | EngineUnavailable):
            engine.run(engine.append([one], Admission()))
        else:
            assert isinstance(answer, list)

    (queue,) = engine.run(engine.list_queues())
    assert queue.depth.jobs == len(jobs)


def test_threads_go_together_too(engine: PostgresEngine, hold):
    answers: list[object] = []

    def work() -> None:
        answers.append(engine.run(engine.append([job()], Admission())))

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    hold.close()
    for thread in threads:
        thread.join()

    assert len(answers) == CALLERS
    assert all(isinstance(answer, list) for answer in answers)


def test_a_cancelled_caller_holds_nobody_up(engine: PostgresEngine, hold):
    async def work() -> None:
        first = [
            asyncio.create_task(engine.arun(engine.append([job()], Admission()))) for _ in "12"
        ]
        await asyncio.sleep(0.2)
        rest = [
            asyncio.create_task(engine.arun(engine.append([job()], Admission()))) for _ in range(20)
        ]
        await asyncio.sleep(0)
        for task in rest[::2]:
            task.cancel()
        hold.close()
        await asyncio.gather(*first)
        answers = await asyncio.gather(*rest, return_exceptions=True)
        assert all(isinstance(answer, list) for answer in answers[1::2])

    asyncio.run(work())
