"""Signs of life: who died is known within about a second, who only lost a connection is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.engine.postgres.bench import echo, end
from tests.servers import pgbouncer
from tests.servers.faulty import network
from tests.servers.missing import Missing, give_up

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.store.presence import Sight
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Admission, Wanted
from backlane.errors import OutcomeUnknown
from backlane.model.ids import new_id
from backlane.model.job import Job

HOLDERS: Sql[tuple[int]] = Sql(
    "select pid from pg_locks join backlane.enlisted on locktype = 'advisory' and objsubid = 1 "
    "and ((classid::bigint << 32) | objid::bigint) = key"
)

# Enlists, says so, and waits to be killed.
PROCESS = """
import sys, time
from backlane.engine.postgres import PostgresEngine
engine = PostgresEngine(sys.argv[1])
sign = engine.enlist(sys.argv[2])
print("here", flush=True)
time.sleep(60)
"""


def lease(engine: PostgresEngine, owner: str) -> None:
    """Give an owner a job."""
    made = new_id(time.time_ns() // 1_000_000)
    engine.run(engine.append([Job(id=made, queue="mail", task="t", body=b"")], Admission()))
    claimed = engine.run(engine.claim(Wanted(owner, 1, 30_000, ("mail",))))
    assert [one.job for one in claimed.leases] == [made]


def departed(engine: PostgresEngine) -> tuple[str, ...]:
    return asyncio.run(engine.departed())


def test_a_killed_owner_is_known_dead_soon(engine: PostgresEngine, url: str):
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, "ann"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    lease(engine, "ann")
    assert departed(engine) == ()
    time.sleep(max(0.0, 5.0 - _up_for(engine)))

    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    while departed(engine) != ("ann",):
        time.sleep(0.05)

    assert time.monotonic() - began < 4.0
    process.stdout.close()


def test_a_stopped_owner_is_not(engine: PostgresEngine, url: str):
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, "ann"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    lease(engine, "ann")
    os.kill(process.pid, signal.SIGSTOP)

    time.sleep(1.2)
    assert departed(engine) == ()

    process.kill()
    process.wait()
    process.stdout.close()


def test_who_loses_its_connection_comes_back_in_time(engine: PostgresEngine, url: str):
    other = PostgresEngine(url)
    sign = other.enlist("ann")
    lease(engine, "ann")

    for _ in range(3):
        (holder,) = _holders(engine)
        engine.run(end(holder))
        while _holders(engine) in ([], [holder]):
            assert departed(engine) == ()
            time.sleep(0.01)

    sign.close()
    other.close()


def test_an_owner_without_leases_is_of_no_interest(engine: PostgresEngine):
    engine.enlist("ann").close()

    assert departed(engine) == ()


def test_a_sign_of_life_outlasts_the_engines_close(engine: PostgresEngine, url: str):
    """A thread that cannot be ended may still run the owner's job."""
    other = PostgresEngine(url)
    sign = other.enlist("ann")
    lease(engine, "ann")

    other.close()

    assert departed(engine) == ()
    sign.close()
    assert departed(engine) == ("ann",)
    other.close()


def test_behind_a_pooler_only_who_says_so_has_departed(engine: PostgresEngine, url: str):
    """No lock of a session there: who is killed keeps its leases until they lapse."""
    try:
        pooled = PostgresEngine(f"{pgbouncer.pooled()}?{url.partition('?')[2]}")
    except Missing as why:
        give_up("engine postgresql-pgbouncer", why)
    sign = pooled.enlist("ann")
    lease(engine, "ann")

    assert departed(engine) == departed(pooled) == ()
    sign.close()
    assert departed(engine) == departed(pooled) == ("ann",)
    pooled.close()


def test_who_is_missing_for_a_moment_is_waited_for():
    sight = Sight()
    missing = [("ann", 1, False, True, True)]

    assert sight.look(missing, 10.0) == ([], [])
    assert sight.look([], 10.5) == ([], [])
    assert sight.look(missing, 11.0) == ([], [])
    assert sight.look(missing, 12.0) == (["ann"], [])


def test_who_came_back_and_went_again_is_missing_anew():
    """However often its connection is ended: it lives, and was there in between."""
    sight = Sight()

    for taken in range(10):
        assert sight.look([("ann", taken, False, True, True)], taken / 1.0) == ([], [])


def test_who_lost_a_connection_itself_waits_longer_for_others():
    """What ended it may have ended all, and all come back at once."""
    sight = Sight()
    missing = [("ann", 1, False, True, True)]

    assert sight.look(missing, 10.0, lost=9.9) == ([], [])
    assert sight.look(missing, 14.0, lost=9.9) == ([], [])
    assert sight.look(missing, 15.0, lost=9.9) == (["ann"], [])


def test_nobody_is_dead_on_a_server_that_has_just_started():
    sight = Sight()

    assert sight.look([("ann", 1, False, False, True)], 10.0) == ([], [])
    assert sight.look([("ann", 1, False, False, True)], 14.0) == ([], [])


def test_the_dead_are_forgotten_once_they_hold_nothing():
    sight = Sight()

    sight.look([("ann", 1, True, True, False)], 10.0)
    assert sight.look([("ann", 1, True, True, False)], 200.0) == ([], ["ann"])


def _holders(engine: PostgresEngine) -> list[int]:
    async def within(tx: PostgresTx) -> list[int]:
        return [pid for (pid,) in await tx.rows(HOLDERS)]

    return engine.run(Plan(within, reads=True))


def _up_for(engine: PostgresEngine) -> float:
    statement: Sql[tuple[float]] = Sql(
        "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8"
    )

    async def within(tx: PostgresTx) -> float:
        return (await tx.rows(statement))[0][0]

    assert engine.run(echo(1)) == 1
    return engine.run(Plan(within, reads=True))


def test_who_comes_back_ends_the_session_that_the_server_still_believes_in(
    engine: PostgresEngine, url: str
):
    """Its network went silent: the server would keep the lock for hours."""
    with network(url) as net:
        other = PostgresEngine(net.before(url))
        sign = other.enlist("ann")
        (holder,) = _holders(engine)
        assert net.strand()
        until = time.monotonic() + 30
        while _holders(engine) in ([], [holder]):
            assert time.monotonic() < until, "the lock was not taken again"
            time.sleep(0.1)
        with contextlib.suppress(OutcomeUnknown):  # its other connections are stranded too
            sign.close()
        other.close()
