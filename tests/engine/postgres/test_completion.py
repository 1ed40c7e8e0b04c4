"""A job's writes and its completion are one transaction on PostgreSQL, whosever it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tests.engine.postgres.shop import ORDER, Shop, opened
from tests.engine.postgres.site import django_on

from backlane import Context, EngineBusy, JobFailed, Retry
from backlane.engine.protocol import Wanted
from backlane.errors import LeaseLost, WrongUse
from backlane.model.job import State
from backlane.model.outcome import Released, RetryAfter, Settlement
from backlane.worker import Worker
from backlane.worker.attempt import Attempts

ONCE = Retry(attempts=1)
INSERT = "insert into shop_order values (:number)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    other = tmp_path_factory.mktemp("django") / "other.db"
    with opened() as made, django_on(made.url, other):
        yield made


@pytest.fixture
def shop(server: Shop) -> Iterator[Shop]:
    """The same database, with tasks of one test's own."""
    made = Shop(server.url)
    yield made
    made.close()


def test_a_lent_connection_commits_with_the_job(shop: Shop):
    @shop.app.task(name="pay", retry=ONCE)
    def pay(context: Context, number: int) -> str:
        with context.transaction() as tx:
            tx.connection.execute(ORDER, [number])
            tx.complete("paid")
            if context.headers:
                raise ValueError(number)
        return "not looked at"

    good, bad = shop.number(), shop.number()
    with Worker(shop.app):
        assert pay.enqueue(good).result(timeout=10) == "paid"
        with pytest.raises(JobFailed):
            pay.using(headers={"fail": "yes"}).enqueue(bad).result(timeout=10)

    assert (shop.has(good), shop.has(bad)) == (True, False)


def test_a_block_that_is_entered_within_itself_keeps_nothing(shop: Shop):
    @shop.app.task(name="pay-twice", retry=ONCE)
    def pay_twice(context: Context, number: int) -> None:
        with context.transaction() as tx:
            tx.connection.execute(ORDER, [number])
            with tx:
                tx.connection.execute(ORDER, [number + 1_000_000])

    number = shop.number()
    with Worker(shop.app), pytest.raises(JobFailed, match="entered before"):
        pay_twice.enqueue(number).result(timeout=10)

    assert (shop.has(number), shop.has(number + 1_000_000)) == (False, False)


def test_coroutines_are_lent_connections_of_their_loop(shop: Shop):
    @shop.app.task(name="pay", retry=ONCE)
    async def pay(context: Context, number: int) -> str:
        async with context.transaction() as tx:
            await tx.connection.execute(ORDER, [number])
            tx.complete("paid")
            if context.headers:
                raise ValueError(number)
        return "not looked at"

    numbers = [shop.number() for _ in range(20)]
    bad = shop.number()
    with Worker(shop.app):
        jobs = [pay.enqueue(number) for number in numbers]
        assert {job.result(timeout=10) for job in jobs} == {"paid"}
        with pytest.raises(JobFailed):
            pay.using(headers={"fail": "yes"}).enqueue(bad).result(timeout=10)

    assert all(shop.has(number) for number in numbers)
    assert not shop.has(bad)


def test_who_lost_its_lease_commits_nothing(shop: Shop):
    @shop.app.task(name="pay", queue="few")
    def pay(context: Context, number: int) -> None:
        with context.transaction() as tx:
            tx.connection.execute(ORDER, [number])

    engine = shop.app.engine
    wanted = Wanted(owner="paused", number=1, lease_ms=60_000, queues=("few",))
    job = pay.enqueue(number := shop.number())
    (stale,) = engine.run(engine.claim(wanted)).leases
    engine.run(engine.settle([Settlement(stale.job, stale.token, Released())]))
    (current,) = engine.run(engine.claim(wanted)).leases

    attempts = Attempts(shop.app)
    lost = attempts.run_inline(stale).outcome
    seen_between = shop.has(number)
    attempts.run_inline(current)

    assert isinstance(lost, RetryAfter)
    assert lost.error.kind == f"{LeaseLost.__module__}.LeaseLost"
    assert (seen_between, shop.has(number), job.state) == (False, True, State.SUCCEEDED)


def test_two_holders_of_one_lease_commit_once(shop: Shop):
    """Two attempts under one token would both find it current, were it not locked."""

    @shop.app.task(name="pay", queue="few")
    def pay(context: Context, number: int) -> None:
        with context.transaction() as tx:
            tx.connection.execute(ORDER, [shop.number()])
            both.wait(5)

    both = threading.Barrier(2)
    engine = shop.app.engine
    pay.enqueue(1)
    wanted = Wanted(owner="paused", number=1, lease_ms=60_000, queues=("few",))
    (lease,) = engine.run(engine.claim(wanted)).leases
    (before,) = shop.watcher.execute("select count(*) from shop_order").fetchone() or (0,)

    threads = [
        threading.Thread(target=Attempts(shop.app).run_inline, args=(lease,)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    (after,) = shop.watcher.execute("select count(*) from shop_order").fetchone() or (0,)
    assert after == before + 1


def test_a_connection_of_ones_own_commits_with_the_job(shop: Shop):
    @shop.app.task(name="pay")
    def pay(context: Context, number: int, *, autocommit: bool) -> None:
        with (
            psycopg.connect(shop.url, autocommit=autocommit) as mine,
            context.transaction(mine) as tx,
        ):
            tx.connection.execute(ORDER, [number])

    @shop.app.task(name="apay")
    async def apay(context: Context, number: int) -> None:
        mine = await psycopg.AsyncConnection.connect(shop.url)
        async with mine, context.transaction(mine) as tx:
            await tx.connection.execute(ORDER, [number])

    numbers = [shop.number() for _ in range(3)]
    with Worker(shop.app):
        pay.enqueue(numbers[0], autocommit=False).result(timeout=10)
        pay.enqueue(numbers[1], autocommit=True).result(timeout=10)
        apay.enqueue(numbers[2]).result(timeout=10)

    assert all(shop.has(number) for number in numbers)


def test_a_session_of_sqlalchemy_commits_with_the_job(shop: Shop):
    where = shop.url.replace("postgresql://", "postgresql+psycopg://")
    engine, aengine = create_engine(where), create_async_engine(where)

    @shop.app.task(name="pay", retry=ONCE)
    def pay(context: Context, number: int, *, fails: bool) -> None:
        with Session(engine) as session, context.transaction(session):
            session.execute(text(INSERT), {"number": number})
            if fails:
                raise ValueError(number)

    @shop.app.task(name="apay")
    async def apay(context: Context, number: int) -> None:
        async with AsyncSession(aengine) as session, context.transaction(session):
            await session.execute(text(INSERT), {"number": number})

    async def work(numbers: list[int]) -> None:
        async with Worker(shop.app):
            await (await pay.aenqueue(numbers[0], fails=False)).aresult(timeout=10)
            with pytest.raises(JobFailed):
                await (await pay.aenqueue(numbers[1], fails=True)).aresult(timeout=10)
            await (await apay.aenqueue(numbers[2])).aresult(timeout=10)
        await aengine.dispose()

    numbers = [shop.number() for _ in range(3)]
    asyncio.run(work(numbers))
    engine.dispose()

    assert [shop.has(number) for number in numbers] == [True, False, True]


def test_a_database_of_django_commits_with_the_job(shop: Shop):
    @shop.app.task(name="pay", retry=ONCE)
    def pay(context: Context, number: int, *, fails: bool) -> None:
        try:
            with context.transaction("default") as tx:
                with tx.connection.cursor() as cursor:
                    cursor.execute(ORDER, [number])
                with transaction.atomic():  # a savepoint of it
                    shop.confirm.using(connection="default").enqueue(number)
                if fails:
                    raise ValueError(number)
        finally:
            connections.close_all()

    numbers = [shop.number() for _ in range(2)]
    with Worker(shop.app):
        pay.enqueue(numbers[0], fails=False).result(timeout=10)
        with pytest.raises(JobFailed, match="ValueError"):
            pay.enqueue(numbers[1], fails=True).result(timeout=10)

    assert [shop.has(number) for number in numbers] == [True, False]


def test_a_block_within_anothers_block_is_refused(shop: Shop):
    engine = shop.app.engine

    with (
        psycopg.connect(shop.url, autocommit=True) as connection,
        connection.transaction(),
        pytest.raises(WrongUse, match="outside of it"),
    ):
        engine.transaction(connection).begin()
    with transaction.atomic(), pytest.raises(WrongUse, match="TransactionTestCase"):
        engine.transaction("default").begin()
    connections.close_all()


def test_a_process_is_lent_as_many_connections_as_its_pool_is_large(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backlane.engine.postgres.driver.lent.PATIENCE_SECONDS", 0.2)
    engine = shop.app.engine
    held = [engine.transaction() for _ in range(8)]
    for one in held:
        one.begin()

    with pytest.raises(EngineBusy, match="pool="):
        engine.transaction().begin()
    for one in held:
        one.rollback()
    again = engine.transaction()
    again.begin()
    again.rollback()


def test_a_connection_that_died_idle_is_not_lent_again(shop: Shop):
    engine = shop.app.engine
    first = engine.transaction()
    connection: Any = first.begin()
    pid = connection.info.backend_pid
    first.commit()
    shop.watcher.execute("select pg_terminate_backend(%s, 5000)", [pid])

    second = engine.transaction()
    fresh: Any = second.begin()
    answer = fresh.execute("select 1").fetchone()
    second.rollback()

    assert answer == (1,)
