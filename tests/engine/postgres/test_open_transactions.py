"""Callers' transactions that stay open: what others may do meanwhile, and what they may not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from backlane.cli.mover import stubborn
from backlane.engine.moving import Seal
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.store.opener import LOCK_SECONDS
from backlane.engine.protocol import Admission
from backlane.model.job import Idempotency, Job, Key, Receipt, Refusal
from backlane.model.queue import Bounds

ASKED = Idempotency("ann:send", "order-7", b"print")
OTHER = Idempotency("ann:send", "order-7", b"another print")
ROOMY = Admission({"mail": Bounds(max_jobs=10_000)})
SHARED = Admission({"mail": Bounds(max_jobs=10, group_share=0.5)})
SOON = LOCK_SECONDS  # as long as a lock is waited for


def new_job(**fields: Any) -> Job:
    made_ms = int(time.time() * 1000)
    job_id = made_ms.to_bytes(6) + b"\x70" + os.urandom(9)
    return Job(**{"id": job_id, "queue": "mail", "task": "t", "body": b""} | fields)


class Later:
    """What is done in a thread, and its answer."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._answer: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._answer.append(work()))
        self._thread.start()

    @property
    def is_waiting(self) -> bool:
        self._thread.join(0.3)
        return self._thread.is_alive()

    def answer(self) -> Any:
        self._thread.join()
        return self._answer[0]


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url.partition("?")[0]) as made:
        yield made


@pytest.fixture
def other(url: str) -> Iterator[PostgresEngine]:
    """Another process, as far as the server can tell."""
    made = PostgresEngine(url)
    yield made
    made.close()


def append(engine: PostgresEngine, *jobs: Job, admission: Admission = ROOMY) -> Any:
    return engine.run(engine.append(jobs, admission))


def join(
    engine: PostgresEngine,
    connection: psycopg.Connection[Any],
    *jobs: Job,
    admission: Admission = ROOMY,
) -> Any:
    return engine.joined(connection).run(engine.append(jobs, admission))


def depth(engine: PostgresEngine) -> int:
    return sum(queue.depth.jobs for queue in engine.run(engine.list_queues()))


@pytest.mark.parametrize("commits", [True, False])
def test_a_request_of_an_open_transaction_is_waited_for_and_is_one_job(
    engine: PostgresEngine,
    other: PostgresEngine,
    connection: psycopg.Connection[Any],
    commits: bool,
) -> None:
    first, again = new_job(idempotency=ASKED), new_job(idempotency=ASKED)
    join(engine, connection, first)
    asking = Later(lambda: append(other, again))
    assert asking.is_waiting

    (connection.commit if commits else connection.rollback)()

    (receipt,) = asking.answer()
    assert receipt.first == (first.id if commits else None)
    assert depth(engine) == 1
    (receipt,) = append(engine, new_job(idempotency=ASKED))
    assert receipt.first == (first.id if commits else again.id)


def test_two_open_transactions_with_one_request_are_one_job(
    engine: PostgresEngine, connection: psycopg.Connection[Any], url: str
) -> None:
    first, again = new_job(idempotency=ASKED), new_job(idempotency=ASKED)
    with psycopg.connect(url.partition("?")[0]) as second:
        join(engine, connection, first)
        asking = Later(lambda: join(engine, second, again))
        assert asking.is_waiting
        connection.commit()
        (receipt,) = asking.answer()

    assert receipt.first == first.id
    assert depth(engine) == 1


def test_another_request_under_the_key_of_an_open_transaction_is_refused(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    join(engine, connection, new_job(idempotency=ASKED))
    asking = Later(lambda: append(other, new_job(idempotency=OTHER)))
    assert asking.is_waiting

    connection.commit()

    assert asking.answer().limit == "reused"
    assert depth(engine) == 1


@pytest.mark.parametrize("fields", [{"key": Key("t", "one")}, {"idempotency": ASKED}])
def test_who_waits_for_an_open_transaction_holds_nobody_else_up(
    engine: PostgresEngine,
    other: PostgresEngine,
    connection: psycopg.Connection[Any],
    fields: dict[str, Any],
) -> None:
    join(engine, connection, new_job(**fields))
    waiting = Later(lambda: append(engine, new_job(**fields)))
    assert waiting.is_waiting

    began = time.monotonic()
    answer = append(other, new_job())
    took = time.monotonic() - began

    connection.rollback()
    waiting.answer()
    assert isinstance(answer, list)
    assert took < SOON


def test_resources_and_queues_of_an_open_transaction_are_there_for_others(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    join(engine, connection, new_job(resource="smtp", queue="new"))

    began = time.monotonic()
    answer = append(other, new_job(resource="smtp", queue="new"))
    took = time.monotonic() - began
    connection.rollback()

    assert isinstance(answer, list)
    assert took < SOON
    assert isinstance(append(engine, new_job(resource="smtp", queue="new")), list)


def test_open_transactions_together_do_not_pass_the_share_of_a_group(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    four = [new_job(group="ann") for _ in range(4)]
    assert isinstance(join(engine, connection, *four, admission=SHARED), list)

    two = [new_job(group="ann") for _ in range(2)]
    refusal = append(other, *two, admission=SHARED)
    one = append(other, new_job(group="ann"), admission=SHARED)
    connection.rollback()

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.depth) == ("group", 4)
    assert isinstance(one, list)
    assert isinstance(append(other, *four, admission=SHARED), list), "places of ann were lost"


def test_a_prepared_transaction_holds_its_places_until_it_ends(
    engine: PostgresEngine, other: PostgresEngine, url: str
) -> None:
    few = Admission({"mail": Bounds(max_jobs=3)})
    with psycopg.connect(url.partition("?")[0]) as connection:
        connection.tpc_begin("backlane-test")
        join(engine, connection, new_job(), new_job(), new_job(), admission=few)
        connection.tpc_prepare()
        refusal = append(other, new_job(), admission=few)
        connection.tpc_rollback()

    assert isinstance(refusal, Refusal)
    assert isinstance(append(other, new_job(), new_job(), new_job(), admission=few), list)


def test_first_jobs_of_a_queue_in_two_open_transactions_wait_for_nobody(
    engine: PostgresEngine, connection: psycopg.Connection[Any], url: str
) -> None:
    with psycopg.connect(url.partition("?")[0]) as second:
        began = time.monotonic()
        receipts: list[Receipt] = join(engine, connection, new_job())
        receipts += join(engine, second, new_job())
        took = time.monotonic() - began
        second.commit()
        connection.commit()

    assert took < SOON
    assert all(receipt.is_new for receipt in receipts)
    assert depth(engine) == 2


def test_a_request_that_was_refused_late_is_not_remembered(
    engine: PostgresEngine, connection: psycopg.Connection[Any], url: str
) -> None:
    """The caller commits all the same: what it asks for again is then done, and not thought
    to have been."""
    fresh = Idempotency("ann:send", "order-8", b"print")
    with psycopg.connect(url.partition("?")[0]) as second:
        join(engine, connection, new_job(idempotency=ASKED))
        asking = Later(
            lambda: join(engine, second, new_job(idempotency=fresh), new_job(idempotency=OTHER))
        )
        assert asking.is_waiting
        connection.commit()
        refusal = asking.answer()
        second.commit()

    assert refusal.limit == "reused"
    (receipt,) = append(engine, new_job(idempotency=fresh))
    assert receipt.is_new


def test_of_many_that_go_together_only_who_needs_the_key_waits(
    engine: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    key = Key("t", "one")
    join(engine, connection, new_job(key=key))
    jobs = [new_job(key=key)] + [new_job() for _ in range(30)]

    async def work() -> tuple[float, Any]:
        began = time.monotonic()
        tasks = [asyncio.create_task(engine.arun(engine.append([it], ROOMY))) for it in jobs]
        await asyncio.gather(*tasks[1:])
        took = time.monotonic() - began
        connection.rollback()
        return took, await tasks[0]

    took, (receipt,) = asyncio.run(work())

    assert took < SOON
    assert receipt.is_new
    assert depth(engine) == len(jobs)


def test_a_seal_is_not_passed_by_the_first_job_of_a_queue(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any], url: str
) -> None:
    schema = url.partition("schema=")[2]
    append(engine, new_job(queue="known"))
    connection.execute(f'lock table "{schema}".queue in exclusive mode'.encode())
    asking = Later(lambda: append(other, new_job()))  # judged, and now about to make the queue
    assert asking.is_waiting

    engine.run(engine.seal(Seal("elsewhere")))
    connection.rollback()

    refusal = asking.answer()
    assert isinstance(refusal, Refusal)
    assert refusal.limit == "moving"


def test_a_seal_finds_its_way_between_transactions_that_append_again_and_again(
    engine: PostgresEngine, other: PostgresEngine, url: str
) -> None:
    """What waits for a seal that waits for it: neither the producers nor the mover fail."""
    is_over = threading.Event()
    kept: list[bytes] = []

    def produce() -> None:
        with psycopg.connect(url.partition("?")[0]) as connection:
            while not is_over.is_set():
                jobs = [new_job(), new_job()]
                answers = []
                for one in jobs:
                    answers.append(join(engine, connection, one))
                    time.sleep(0.01)
                connection.commit()
                time.sleep(0.03)
                kept.extend(
                    one.id
                    for one, answer in zip(jobs, answers, strict=True)
                    if isinstance(answer, list)
                )

    producers = [Later(produce) for _ in range(3)]
    while len(kept) < 40:
        time.sleep(0.01)
    began = time.monotonic()
    stubborn(other, other.seal(Seal("elsewhere")))
    took = time.monotonic() - began
    held = depth(other)
    is_over.set()
    assert [producer.answer() for producer in producers] == [None] * 3

    assert took < 10
    assert held == depth(engine) == len(kept)
