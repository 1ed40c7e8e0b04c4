"""Forks: a child opens anew, and the parent's connections are the parent's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from tests.engine.postgres.bench import echo, session

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.store.transaction import PostgresTx

CONNECTED: Sql[tuple[int]] = Sql("select count(*) from pg_stat_activity where pid = $1::int")


def in_a_child(work: Callable[[], object]) -> bool:
    """Do something in a forked child; say whether it went well."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_opens_connections_of_its_own(engine: PostgresEngine):
    mine = engine.run(session())

    assert in_a_child(lambda: engine.run(session()) != mine)

    assert engine.run(session()) == mine


def test_a_child_that_ends_leaves_the_parents_connections_alone(engine: PostgresEngine):
    asyncio.run(engine.arun(echo()))
    mine = engine.run(session())
    bell = engine.listen(["mail"])

    assert in_a_child(lambda: True)
    assert in_a_child(lambda: asyncio.run(engine.arun(echo(1))) == 1)

    assert engine.run(session()) == mine
    bell.close()


def test_a_child_that_closes_the_engine_leaves_the_parents_connections_alone(
    engine: PostgresEngine,
):
    mine = engine.run(session())

    assert in_a_child(lambda: engine.close() is None)

    assert engine.run(session()) == mine


def test_a_child_does_not_keep_its_dead_parents_connections(engine: PostgresEngine, url: str):
    """Or the locks that show that the parent lives would be held after its death."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        theirs = PostgresEngine(url)
        number = theirs.run(session())
        if not os.fork():
            os.setsid()
            time.sleep(5)
            os._exit(0)
        os.write(told, str(number).encode())
        os._exit(0)
    os.close(told)
    number = int(os.read(ready, 100))
    os.close(ready)
    os.waitpid(child, 0)

    assert _ends_soon(engine, number)


def _ends_soon(engine: PostgresEngine, number: int) -> bool:
    async def within(tx: PostgresTx) -> int:
        return (await tx.rows(CONNECTED, number))[0][0]

    for _ in range(40):
        if not engine.run(Plan(within, reads=True)):
            return True
        time.sleep(0.05)
    return False
