"""Event loops: each has connections of its own, and none outlives its loop for long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time

import psycopg
import pytest
from tests.engine.postgres.bench import echo, end, keep, kept, session, sleep
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.driver import pool
from backlane.engine.postgres.store.waits import Suspending
from backlane.errors import EngineBusy, OutcomeUnknown


def test_one_engine_serves_loops_that_come_and_go(engine: PostgresEngine):
    for number in range(10):
        assert asyncio.run(engine.arun(echo(number))) == number
    assert engine.run(echo(5)) == 5


def test_several_loops_use_one_engine_at_once(engine: PostgresEngine):
    answers: list[int] = []

    async def work(first: int) -> None:
        plans = (engine.arun(echo(number)) for number in range(first, first + 50))
        answers.extend(await asyncio.gather(*plans))

    threads = [
        threading.Thread(target=lambda at=at: asyncio.run(work(at))) for at in range(0, 400, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == list(range(400))


def test_what_a_loop_that_ended_left_is_closed(engine: PostgresEngine):
    """A loop's connections are closed when the next one comes, not kept until the end."""
    gone = [asyncio.run(engine.arun(session())) for _ in range(5)]

    async def look() -> list[int]:
        await engine.arun(echo())
        return await engine.arun(_living(gone))

    left = gone
    for _ in range(50):
        left = asyncio.run(look())
        if len(left) <= 1:  # that of the loop before this one may just be closing
            break
    assert len(left) <= 1


def test_a_lost_connection_leaves_what_has_its_number_alone(server: postgres.Shared):
    """libpq closes its socket whenever it likes, and another descriptor gets its number."""

    async def work() -> bytes:
        loop, (theirs, ours) = asyncio.get_running_loop(), socket.socketpair()
        connection = psycopg.connect(server.url)
        waits, number = Suspending(connection.pgconn, loop), connection.fileno()
        connection.close()
        os.dup2(theirs.fileno(), number)
        with theirs, ours, socket.socket(fileno=number) as heir:
            heir.settimeout(0)
            waiting = asyncio.ensure_future(loop.sock_recv(heir, 1))
            await asyncio.sleep(0)
            waits.close()
            ours.send(b".")
            return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(work()) == b"."


def test_a_cancelled_caller_leaves_what_has_begun_going_on(engine: PostgresEngine):
    async def work() -> None:
        running = asyncio.create_task(engine.arun(keep("kept")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for _ in range(100):
            if await engine.arun(kept("kept")):
                return
            await asyncio.sleep(0.02)

    asyncio.run(work())

    assert engine.run(kept("kept")) == [1]


def test_connections_are_whole_whenever_a_caller_is_cancelled(engine: PostgresEngine):
    async def work() -> None:
        for after in range(200):
            task = asyncio.create_task(engine.arun(echo(after)))
            for _ in range(after % 12):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert await asyncio.gather(*(engine.arun(echo(n)) for n in range(20))) == list(range(20))

    asyncio.run(work())


def test_a_loop_that_ends_in_the_middle_breaks_nothing(engine: PostgresEngine):
    async def leave() -> None:
        for _ in range(3):
            asyncio.create_task(engine.arun(sleep(30)))  # noqa: RUF006 - it is to be left
        await engine.arun(echo())

    asyncio.run(leave())

    assert asyncio.run(engine.arun(echo(3))) == 3
    assert engine.run(echo(4)) == 4


def test_more_callers_than_connections_wait_in_line(url: str):
    engine = PostgresEngine(f"{url}&pool=2")

    async def work() -> set[int]:
        return set(await asyncio.gather(*(engine.arun(session()) for _ in range(200))))

    sessions = asyncio.run(work())
    engine.close()

    assert len(sessions) <= 2


def test_who_waits_too_long_for_a_connection_is_told(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 0.5)
    engine = PostgresEngine(f"{url}&pool=1")

    async def work() -> None:
        long = asyncio.create_task(engine.arun(sleep(2)))
        await asyncio.sleep(0.2)
        with pytest.raises(EngineBusy, match="pool="):
            await engine.arun(echo())
        assert await long == 1
        assert await engine.arun(echo(2)) == 2

    asyncio.run(work())
    engine.close()


def test_a_session_ended_while_idle_is_not_noticed(engine: PostgresEngine, url: str):
    admin = PostgresEngine(url)

    async def work() -> None:
        for number in range(20):
            admin.run(end(await engine.arun(session())))
            assert await engine.arun(echo(number)) == number

    asyncio.run(work())
    admin.close()


def test_a_session_ended_in_the_middle_of_a_change_is_told(engine: PostgresEngine, url: str):
    admin = PostgresEngine(url)

    async def work() -> None:
        number = await engine.arun(session())
        long = asyncio.create_task(engine.arun(sleep(5, writes=True)))
        await asyncio.sleep(0.2)
        admin.run(end(number))
        with pytest.raises(OutcomeUnknown):
            await long
        assert await engine.arun(echo(2)) == 2

    asyncio.run(work())
    admin.close()


def test_an_engine_that_is_closed_in_a_running_loop_opens_anew(engine: PostgresEngine):
    async def work() -> None:
        assert await engine.arun(echo(1)) == 1
        engine.close()
        assert await engine.arun(echo(2)) == 2

    asyncio.run(work())


def test_close_waits_for_what_has_begun_in_the_loop_of_another_thread(engine: PostgresEngine):
    done: list[int] = []

    async def work() -> None:
        done.append(await engine.arun(sleep(0.7)))

    worker = threading.Thread(target=lambda: asyncio.run(work()))
    worker.start()
    time.sleep(0.3)
    began = time.monotonic()

    engine.close()

    assert time.monotonic() - began > 0.2
    worker.join(5)
    assert done == [1]


def _living(sessions: list[int]):
    from backlane.engine.plan import Plan, Sql

    statement: Sql[tuple[int]] = Sql("select pid from pg_stat_activity where pid = any ($1::int[])")

    async def within(tx) -> list[int]:
        return [pid for (pid,) in await tx.rows(statement, sessions)]

    return Plan(within, reads=True)
