"""Beats of workers and ticks of schedules at the same time, on real connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Presence
from backlane.engine.scheduling import Put

WAITING = """
    select count(*) from pg_stat_activity
    where wait_event_type = 'Lock' and query like '%%declared_ms = boot_ms%%'
"""


@pytest.fixture
def behind(url: str) -> Iterator[psycopg.Connection]:
    server, _, options = url.partition("?schema=")
    with psycopg.connect(server) as connection:
        connection.execute(f'set search_path = "{options}"')
        connection.execute("set deadlock_timeout = '20ms'")  # so that it is the one to give way
        connection.commit()
        yield connection


def ann(owner: str = "ann") -> Presence:
    return Presence(owner=owner, host="h", pid=1, queues=("mail",), slots=1, running=0)


def declare(engine: PostgresEngine, *names: str) -> None:
    for name in names:
        put = Put(spec=b"0 3", task="send", is_declared=True)
        engine.run(engine.alter_schedule(name, put))


def test_a_first_beat_waits_for_a_tick_that_holds_what_it_has_not_got_to(
    engine: PostgresEngine, behind: psycopg.Connection
) -> None:
    """The rows lie in another order than that of their names."""
    declare(engine, "b", "a")
    hold = "select from schedule where name = %s for update"
    behind.execute(hold, ["a"])  # a tick of both goes by name
    beat = threading.Thread(target=lambda: engine.run(engine.announce(ann())))
    beat.start()
    with psycopg.connect(behind.info.dsn, autocommit=True) as looking:
        while not looking.execute(WAITING).fetchone()[0]:
            time.sleep(0.005)

    behind.execute(hold, ["b"])
    behind.commit()

    beat.join()
    assert len(engine.run(engine.list_workers())) == 1
