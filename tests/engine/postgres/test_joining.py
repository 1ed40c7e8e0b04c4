"""A psycopg connection takes a job along: committed it runs, rolled back it never was."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.engine.postgres.shop import ORDER, Shop, opened

from backlane import Backlane, QueueFull, WrongUse
from backlane.engine.postgres.store.opener import LOCK_SECONDS
from backlane.worker import Worker


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with opened() as made:
        yield made


@pytest.fixture
def connection(shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.url) as made:
        yield made


def test_committed_it_is_there(shop: Shop, connection: psycopg.Connection[Any]):
    number = shop.number()
    connection.execute(ORDER, [number])
    job = shop.confirm.using(connection=connection).enqueue(number)
    seen_before = shop.exists(job)

    connection.commit()

    assert (seen_before, shop.exists(job), shop.has(number)) == (False, True, True)


def test_rolled_back_it_never_was(shop: Shop, connection: psycopg.Connection[Any]):
    number, depth = shop.number(), shop.depth()
    job = shop.confirm.using(connection=connection).enqueue(number)
    connection.execute(ORDER, [number])

    connection.rollback()

    assert (shop.exists(job), shop.has(number), shop.depth()) == (False, False, depth)


def test_the_first_statement_may_be_the_enqueue(shop: Shop, connection: psycopg.Connection[Any]):
    job = shop.confirm.using(connection=connection).enqueue(1)
    connection.rollback()

    assert not shop.exists(job)


def test_a_savepoint_that_is_rolled_back_takes_its_job_with_it(shop: Shop):
    with psycopg.connect(shop.url, autocommit=True) as connection, connection.transaction():
        kept = shop.confirm.using(connection=connection).enqueue(1)
        with connection.transaction():
            gone = shop.confirm.using(connection=connection).enqueue(2)
            raise psycopg.Rollback
        kept_too = shop.confirm.using(connection=connection).enqueue(3)

    assert [shop.exists(job) for job in (kept, gone, kept_too)] == [True, False, True]


def test_a_coroutine_joins_its_async_connection(shop: Shop):
    async def work(*, commit: bool) -> Any:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            await connection.execute(ORDER, [shop.number()])
            job = await shop.confirm.using(connection=connection).aenqueue(1)
            await (connection.commit() if commit else connection.rollback())
        return job

    jobs = asyncio.run(work(commit=True)), asyncio.run(work(commit=False))

    assert [shop.exists(job) for job in jobs] == [True, False]


def test_a_coroutine_may_join_a_plain_connection(shop: Shop, connection: psycopg.Connection[Any]):
    async def work() -> Any:
        return await shop.confirm.using(connection=connection).aenqueue(1)

    job = asyncio.run(work())
    connection.commit()

    assert shop.exists(job)


def test_many_come_and_go_together(shop: Shop, connection: psycopg.Connection[Any]):
    calls = [((number,), {}) for number in range(1_500)]
    depth = shop.depth()
    gone = shop.confirm.using(connection=connection).enqueue_many(calls)
    connection.rollback()
    kept = shop.confirm.using(connection=connection).enqueue_many(calls)
    connection.commit()

    assert not shop.exists(gone[0])
    assert not shop.exists(gone[-1])
    assert shop.exists(kept[0])
    assert shop.exists(kept[-1])
    assert shop.depth() == depth + 1_500


def test_a_delayed_job_keeps_its_delay(shop: Shop, connection: psycopg.Connection[Any]):
    job = shop.confirm.using(connection=connection, delay=3600).enqueue(1)
    connection.commit()

    assert shop.app.job(job.id).state == "scheduled"


def test_an_id_sent_again_after_a_rollback_is_new(shop: Shop, connection: psycopg.Connection[Any]):
    first = shop.confirm.using(connection=connection).enqueue(1)
    connection.rollback()
    again = shop.confirm.using(connection=connection, id=first.id).enqueue(1)
    connection.commit()
    third = shop.confirm.using(connection=connection, id=first.id).enqueue(1)
    connection.commit()

    assert first.id == again.id == third.id
    assert shop.exists(again)


def test_a_full_queue_refuses_within_the_transaction(
    shop: Shop, connection: psycopg.Connection[Any]
):
    many = shop.confirm.using(connection=connection, queue="few")
    for number in range(3):
        many.enqueue(number)
    with pytest.raises(QueueFull):
        many.enqueue(4)
    connection.execute("select 1")  # the transaction goes on
    connection.rollback()

    assert shop.depth("few") == 0
    for number in range(3):
        many.enqueue(number)
    connection.rollback()


def test_who_waits_for_a_key_gets_it_when_the_first_is_rolled_back(shop: Shop):
    with psycopg.connect(shop.url) as first, psycopg.connect(shop.url) as second:
        one = shop.confirm.using(connection=first, key="k1").enqueue(1)
        got: list[Any] = []
        thread = threading.Thread(
            target=lambda: got.append(shop.confirm.using(connection=second, key="k1").enqueue(1))
        )
        thread.start()
        time.sleep(0.2)
        waited = not got
        first.rollback()
        thread.join(10)
        second.commit()

    assert waited
    assert got[0].id != one.id
    assert shop.exists(got[0])


def test_who_waits_for_a_key_is_given_the_first_when_that_commits(shop: Shop):
    with psycopg.connect(shop.url) as first, psycopg.connect(shop.url) as second:
        one = shop.confirm.using(connection=first, key="k2").enqueue(1)
        got: list[Any] = []
        thread = threading.Thread(
            target=lambda: got.append(shop.confirm.using(connection=second, key="k2").enqueue(1))
        )
        thread.start()
        time.sleep(0.2)
        waited = not got
        first.commit()
        thread.join(10)
        second.commit()

    assert waited
    assert got[0].id == one.id


def test_an_open_transaction_keeps_nobody_else_out(shop: Shop, connection: psycopg.Connection[Any]):
    shop.confirm.using(connection=connection).enqueue(1)

    began = time.monotonic()
    for number in range(5):
        shop.confirm.enqueue(number)
        with psycopg.connect(shop.url) as other:
            shop.confirm.using(connection=other).enqueue(number)

    assert time.monotonic() - began < LOCK_SECONDS  # as long as a lock is waited for


def test_a_worker_is_told_of_the_commit(shop: Shop, connection: psycopg.Connection[Any]):
    took: list[float] = []

    with Worker(shop.app):
        shop.confirm.enqueue(0).result(timeout=10)
        for number in range(10):
            job = shop.confirm.using(connection=connection).enqueue(number)
            time.sleep(0.05)
            connection.commit()
            began = time.monotonic()
            job.result(timeout=10)
            took.append(time.monotonic() - began)

    assert sorted(took)[5] < 0.4, took  # polling alone: half a second on average


# -- what is refused --


def _autocommit(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    connection.autocommit = True
    return connection


def _failed(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    with pytest.raises(psycopg.Error):
        connection.execute("select nonsense")
    return connection


def _closed(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    connection.close()
    return connection


def _cursor(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    return connection.cursor()


def _pool(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    return ConnectionPool(shop.url, open=False)


def _elsewhere(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    return psycopg.connect(shop.url.rpartition("/")[0] + "/template1")


def _text(shop: Shop, connection: psycopg.Connection[Any]) -> object:
    return shop.url


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_autocommit, r"autocommit.*connection\.transaction\(\)"),
        (_failed, "roll it back"),
        (_closed, "closed"),
        (_cursor, r"cursor\.connection"),
        (_pool, r"pool\.connection\(\)"),
        (_elsewhere, "use one to that database"),
        (_text, "pass a connection of psycopg"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_the_remedy(
    shop: Shop,
    connection: psycopg.Connection[Any],
    spoil: Callable[[Shop, Any], object],
    words: str,
):
    given = spoil(shop, connection)

    with pytest.raises(WrongUse, match=words):
        shop.confirm.using(connection=given).enqueue(1)


def test_an_async_connection_is_not_joined_without_await(shop: Shop):
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            shop.confirm.using(connection=connection).enqueue(1)

    with pytest.raises(WrongUse, match="aenqueue"), pytest.warns(RuntimeWarning):
        asyncio.run(work())


def test_a_store_without_tables_is_told(shop: Shop, connection: psycopg.Connection[Any]):
    app = Backlane(f"{shop.url}?schema=elsewhere")
    task = app.task(name="nothing")(_nothing)

    with pytest.raises(WrongUse, match="backlane migrate"):
        task.using(connection=connection).enqueue()
    app.close()


def _nothing() -> None: ...


def test_a_foreign_error_reaches_the_caller_as_it_is(
    shop: Shop, connection: psycopg.Connection[Any]
):
    connection.execute("set transaction read only")

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        shop.confirm.using(connection=connection).enqueue(1)


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_a_transaction_that_looks_back_joins_too(
    shop: Shop, connection: psycopg.Connection[Any], level: str
):
    connection.isolation_level = psycopg.IsolationLevel[level]
    connection.execute("select 1")
    jobs = [shop.confirm.using(connection=connection).enqueue(number) for number in range(3)]
    connection.commit()
    few = shop.confirm.using(connection=connection, queue="few")
    for number in range(3):
        few.enqueue(number)
    with pytest.raises(QueueFull):
        few.enqueue(4)
    connection.rollback()

    assert all(shop.exists(job) for job in jobs)
    assert shop.depth("few") == 0
