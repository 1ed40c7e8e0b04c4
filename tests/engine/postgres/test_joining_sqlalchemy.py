"""A session or connection of SQLAlchemy takes a job along, in both colours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from tests.engine.postgres.shop import Shop, opened

from backlane import WrongUse
from backlane.worker import Worker


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_order"

    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with opened() as made:
        yield made


def url(shop: Shop) -> str:
    return shop.url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def database(shop: Shop) -> Iterator[Engine]:
    made = create_engine(url(shop))
    yield made
    made.dispose()


@pytest.mark.parametrize("commits", [True, False])
def test_a_session_takes_its_job_along(shop: Shop, database: Engine, commits: bool):
    number = shop.number()
    with Session(database) as session:
        session.add(Order(number=number))
        job = shop.confirm.using(connection=session).enqueue(number)
        seen_before = shop.exists(job)
        if commits:
            session.commit()

    assert not seen_before
    assert (shop.exists(job), shop.has(number)) == (commits, commits)


def test_the_job_may_come_before_all_else(shop: Shop, database: Engine):
    number = shop.number()
    with Session(database) as session:
        job = shop.confirm.using(connection=session).enqueue(number)
        session.add(Order(number=number))
        session.commit()

    assert shop.exists(job)
    assert shop.has(number)


def test_a_block_that_raises_takes_its_job_with_it(shop: Shop, database: Engine):
    def work() -> None:
        with Session(database) as session, session.begin():
            jobs.append(shop.confirm.using(connection=session).enqueue(1))
            raise ValueError

    jobs: list[Any] = []
    with pytest.raises(ValueError):
        work()

    assert not shop.exists(jobs[0])


def test_a_savepoint_takes_its_job_with_it(shop: Shop, database: Engine):
    with Session(database) as session:
        kept = shop.confirm.using(connection=session).enqueue(1)
        savepoint = session.begin_nested()
        gone = shop.confirm.using(connection=session).enqueue(2)
        savepoint.rollback()
        session.commit()

    assert [shop.exists(job) for job in (kept, gone)] == [True, False]


def test_a_scoped_session_stands_for_its_session(shop: Shop, database: Engine):
    session = scoped_session(sessionmaker(database))
    job = shop.confirm.using(connection=session).enqueue(1)
    session.commit()
    session.remove()

    assert shop.exists(job)


@pytest.mark.parametrize("commits", [True, False])
def test_a_connection_takes_its_job_along(shop: Shop, database: Engine, commits: bool):
    """A job before the first statement was kept out of the commit: nothing had begun."""
    with database.connect() as connection:
        job = shop.confirm.using(connection=connection).enqueue(1)
        if commits:
            connection.commit()

    assert shop.exists(job) is commits


def test_many_come_with_one_session(shop: Shop, database: Engine):
    with Session(database) as session:
        jobs = shop.confirm.using(connection=session).enqueue_many([((i,), {}) for i in range(50)])
        session.commit()

    assert all(shop.exists(job) for job in jobs[::10])


def test_an_async_session_takes_its_job_along(shop: Shop):
    async def work(session: AsyncSession, *, commits: bool) -> Any:
        async with session:
            session.add(Order(number=shop.number()))
            job = await shop.confirm.using(connection=session).aenqueue(1)
            if commits:
                await session.commit()
        return job

    async def both() -> list[Any]:
        engine = create_async_engine(url(shop))
        sessions = async_sessionmaker(engine)
        jobs = [await work(sessions(), commits=True), await work(sessions(), commits=False)]
        scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
        jobs.append(await shop.confirm.using(connection=scoped).aenqueue(2))
        await scoped.commit()
        await scoped.remove()
        await engine.dispose()
        return jobs

    assert [shop.exists(job) for job in asyncio.run(both())] == [True, False, True]


def test_an_async_connection_takes_its_job_along(shop: Shop):
    async def work(engine: AsyncEngine, *, commits: bool) -> Any:
        async with engine.connect() as connection:
            job = await shop.confirm.using(connection=connection).aenqueue(1)
            await connection.execute(text("select 1"))
            if commits:
                await connection.commit()
        return job

    async def both() -> list[Any]:
        engine = create_async_engine(url(shop))
        jobs = [await work(engine, commits=True), await work(engine, commits=False)]
        await engine.dispose()
        return jobs

    assert [shop.exists(job) for job in asyncio.run(both())] == [True, False]


def test_a_worker_is_told_of_the_commit_at_once(shop: Shop, database: Engine):
    took: list[float] = []
    with Worker(shop.app), Session(database) as session:
        shop.confirm.enqueue(0).result(timeout=10)
        for number in range(10):
            job = shop.confirm.using(connection=session).enqueue(number)
            time.sleep(0.05)
            session.commit()
            began = time.monotonic()
            job.result(timeout=10)
            took.append(time.monotonic() - began)

    assert sorted(took)[5] < 0.4, took


# -- what is refused --


def test_autocommit_is_refused_because_a_rollback_would_keep_the_job(shop: Shop):
    """A session in AUTOCOMMIT silently kept the job of a block that was rolled back."""
    engine = create_engine(url(shop), isolation_level="AUTOCOMMIT")

    with Session(engine) as session, pytest.raises(WrongUse, match="AUTOCOMMIT"):
        shop.confirm.using(connection=session).enqueue(1)
    engine.dispose()


def test_other_drivers_are_refused(shop: Shop):
    engine = create_engine("sqlite://")

    with Session(engine) as session, pytest.raises(WrongUse, match="after_commit"):
        shop.confirm.using(connection=session).enqueue(1)


def _engine(database: Engine) -> object:
    return database


def _maker(database: Engine) -> object:
    return sessionmaker(database)


def _unbound(database: Engine) -> object:
    return Session()


@pytest.mark.parametrize(
    ("given", "words"),
    [(_engine, "pass the session"), (_maker, "pass the session"), (_unbound, "several databases")],
)
def test_what_is_in_no_transaction_is_refused(shop: Shop, database: Engine, given: Any, words: str):
    with pytest.raises(WrongUse, match=words):
        shop.confirm.using(connection=given(database)).enqueue(1)


def test_an_async_session_is_not_joined_without_await(shop: Shop):
    async def within(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            await session.run_sync(lambda inner: shop.confirm.using(connection=inner).enqueue(1))

    async def work() -> None:
        engine = create_async_engine(url(shop))
        async with AsyncSession(engine) as session:
            with pytest.raises(WrongUse, match="aenqueue"), pytest.warns(RuntimeWarning):
                shop.confirm.using(connection=session).enqueue(1)
        with pytest.raises(WrongUse, match="run_sync"):
            await within(engine)
        await engine.dispose()

    asyncio.run(work())


def test_a_connection_that_failed_has_to_be_rolled_back(shop: Shop, database: Engine):
    def spoil(connection: Connection) -> None:
        connection.execute(text("select nonsense"))

    with database.connect() as connection:
        with pytest.raises(Exception, match="nonsense"):
            spoil(connection)
        with pytest.raises(WrongUse, match="roll it back"):
            shop.confirm.using(connection=connection).enqueue(1)


def test_who_does_without_await_needs_no_greenlet():
    """SQLAlchemy's async module cannot be imported without it, and no session was joined."""
    code = (
        "import sys; sys.modules['greenlet'] = None\n"
        "from sqlalchemy.orm import Session\n"
        "from backlane.engine.caller import called\n"
        "print(type(called(Session())).__name__)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("SqlAlchemyCaller", "")
