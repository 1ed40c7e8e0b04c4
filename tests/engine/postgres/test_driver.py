"""The driver: what became of a plan is told truly, whatever happens to its connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.engine.postgres.bench import KEEP, RAISE, echo, end, keep, kept, session, sleep
from tests.servers import pgbouncer, postgres
from tests.servers.faulty import Network, network
from tests.servers.missing import Missing, give_up

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.driver import pool
from backlane.engine.postgres.store import opener
from backlane.engine.postgres.store.plans import BeatPlan
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.errors import EngineBusy, EngineUnavailable, OutcomeUnknown, SchemaMismatch


@pytest.fixture
def net(url: str) -> Iterator[Network]:
    with network(url) as made:
        yield made


@pytest.fixture
def far(url: str, net: Network) -> Iterator[PostgresEngine]:
    """An engine behind a bad network."""
    made = PostgresEngine(net.before(url))
    yield made
    made.close()


# -- one plan --


def test_a_plan_is_one_transaction(engine: PostgresEngine):
    with pytest.raises(EngineUnavailable, match="duplicate key"):
        engine.run(keep("twice", twice=True))
    engine.run(keep("once"))

    assert engine.run(kept("twice")) == []
    assert engine.run(kept("once")) == [1]


def test_an_error_of_the_plans_own_rolls_back_and_is_raised_as_it_is(engine: PostgresEngine):
    async def within(tx: PostgresTx) -> None:
        await tx.rows(KEEP, "lost", 1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        engine.run(Plan(within))

    assert engine.run(kept("lost")) == []


def test_a_plan_that_runs_no_statement_needs_no_transaction(engine: PostgresEngine):
    async def within(tx: PostgresTx) -> str:
        return "nothing"

    assert engine.run(Plan(within)) == "nothing"
    assert engine.run(echo(3)) == 3


def test_what_a_plan_learned_is_remembered_after_its_commit_only(engine: PostgresEngine):
    learned: list[str] = []

    async def within(tx: PostgresTx, name: str) -> None:
        tx.then(lambda: learned.append(name))
        await tx.rows(KEEP, "same", 1)

    engine.run(Plan(lambda tx: within(tx, "first")))
    with pytest.raises(EngineUnavailable):
        engine.run(Plan(lambda tx: within(tx, "second")))

    assert learned == ["first"]


def test_a_statement_that_failed_is_well_the_next_time(engine: PostgresEngine):
    """It was prepared along with its first use, which failed: it is there all the same."""
    engine.run(keep("taken"))
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            engine.run(keep("taken"))

    engine.run(keep("free"))

    assert engine.run(kept("free")) == [1]


def test_transactions_in_each_others_way_are_repeated(engine: PostgresEngine):
    """Each takes what the other has: the server ends one, which then runs again."""
    engine.run(keep("a"))
    engine.run(keep("b"))
    both_have_one = threading.Barrier(2)
    tries: list[str] = []

    def plan(first: str, second: str) -> Plan[None]:
        async def within(tx: PostgresTx) -> None:
            await tx.rows(RAISE, first)
            tries.append(first)
            if tries.count(first) == 1:
                both_have_one.wait(5)
            await tx.rows(RAISE, second)

        return Plan(within)

    threads = [threading.Thread(target=engine.run, args=(plan(*pair),)) for pair in ("ab", "ba")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    assert engine.run(kept("a")) == engine.run(kept("b")) == [3]
    assert len(tries) > 2


# -- connections that are lost --


def test_a_session_that_was_ended_while_idle_is_not_noticed(engine: PostgresEngine, url: str):
    admin = PostgresEngine(url)
    for number in range(20):
        admin.run(end(engine.run(session())))

        assert engine.run(echo(number)) == number
        engine.run(keep(f"kept {number}"))
    admin.close()

    assert engine.run(kept("kept 19")) == [1]


def test_a_reading_plan_whose_session_is_ended_runs_again(engine: PostgresEngine, url: str):
    admin = PostgresEngine(url)
    number = engine.run(session())
    killer = threading.Timer(0.3, lambda: admin.run(end(number)))
    killer.start()

    assert engine.run(sleep(0.6)) == 1
    killer.join()
    admin.close()


def test_a_change_whose_session_is_ended_may_have_been_stored(engine: PostgresEngine, url: str):
    admin = PostgresEngine(url)
    number = engine.run(session())
    killer = threading.Timer(0.3, lambda: admin.run(end(number)))
    killer.start()

    with pytest.raises(OutcomeUnknown, match="same ids"):
        engine.run(sleep(5, writes=True))
    killer.join()
    admin.close()


def test_a_transaction_that_lost_its_session_before_the_commit_runs_again(
    engine: PostgresEngine, url: str
):
    admin = PostgresEngine(url)
    number = engine.run(session())
    runs: list[int] = []

    async def within(tx: PostgresTx) -> None:
        runs.append(1)
        await tx.rows(KEEP, "kept", len(runs))
        if len(runs) == 1:
            admin.run(end(number))
        await tx.rows(RAISE, "nothing")

    engine.run(Plan(within))
    admin.close()

    assert engine.run(kept("kept")) == [2]


def test_a_lost_answer_to_the_commit_is_told_as_unknown(far: PostgresEngine, net: Network):
    async def within(tx: PostgresTx) -> None:
        await tx.rows(KEEP, "stored", 1)
        net.lost_answers += 1

    far.run(echo())
    with pytest.raises(OutcomeUnknown):
        far.run(Plan(within))

    assert far.run(kept("stored")) == [1]


def test_a_half_open_connection_is_found_out_soon(far: PostgresEngine, net: Network):
    far.run(echo())
    net.strand()

    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="did not answer"):
        far.run(echo())
    found = time.monotonic() - began

    assert far.run(echo(2)) == 2
    assert found < 4.0


def test_a_statement_that_takes_long_is_waited_for(far: PostgresEngine):
    assert far.run(sleep(2.5, writes=True)) == 1


def test_a_reset_connection_is_replaced(far: PostgresEngine, net: Network):
    for number in range(5):
        far.run(echo())
        net.reset()

        assert far.run(echo(number)) == number


# -- what is too much --


def test_a_statement_has_an_end(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(opener.SESSION, "statement_timeout", "300ms")
    engine = PostgresEngine(url)

    with pytest.raises(EngineBusy, match="longer than a statement may"):
        engine.run(sleep(11, writes=True))
    engine.close()


def test_who_finds_no_free_connection_is_told_so(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 0.5)
    engine = PostgresEngine(f"{url}&pool=2")
    sleepers = [threading.Thread(target=engine.run, args=(sleep(2),)) for _ in range(2)]
    for sleeper in sleepers:
        sleeper.start()
    time.sleep(0.3)

    with pytest.raises(EngineBusy, match=r"all 2 connections .* pool="):
        engine.run(echo())
    for sleeper in sleepers:
        sleeper.join()
    assert engine.run(echo(5)) == 5
    engine.close()


def test_what_keeps_leases_alive_needs_no_free_connection(url: str):
    engine = PostgresEngine(f"{url}&pool=1")
    sleeper = threading.Thread(target=engine.run, args=(sleep(2),))
    sleeper.start()
    time.sleep(0.3)

    assert engine.run(BeatPlan(echo(7).within)) == 7

    assert sleeper.is_alive()
    sleeper.join()
    engine.close()


def test_a_server_without_a_free_place_is_busy():
    with postgres.started(max_connections="5") as small:
        engines = [PostgresEngine(f"{small.url}?pool=1") for _ in range(6)]
        told = [_told_by(engine) for engine in engines]
        for engine in engines:
            engine.close()

    assert "too many connections" in told[-1]


def _told_by(engine: PostgresEngine) -> str:
    try:
        engine.run(echo())
    except EngineUnavailable as error:
        return str(error)
    return ""


def test_behind_a_pooler_a_transactions_statements_have_an_end_too(url: str):
    """Set for the transaction alone: the next one on the session is somebody else's."""
    try:
        engine = PostgresEngine(f"{pgbouncer.pooled()}?{url.partition('?')[2]}&pooler=transaction")
    except Missing as why:
        give_up("engine postgresql-pgbouncer", why)
    shown: Sql[tuple[str, str]] = Sql(
        "select current_setting('statement_timeout'), current_setting('lock_timeout')"
    )

    async def within(tx: PostgresTx) -> tuple[str, str]:
        return (await tx.rows(shown))[0]

    assert engine.run(Plan(within)) == ("10s", "5s")
    assert engine.run(Plan(within, reads=True)) == ("0", "0")
    engine.close()


def test_text_is_utf_8_whatever_the_environment_says(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    engine = PostgresEngine(f"{url}&client_encoding=latin1")
    text: Sql[tuple[str, int]] = Sql("select $1::text, length($1)")

    async def within(tx: PostgresTx) -> list[tuple[str, int]]:
        return await tx.rows(text, "größe €")

    assert engine.run(Plan(within)) == [("größe €", 7)]
    engine.close()


# -- where there is no store --


def test_a_server_that_is_not_there_is_told_with_its_name():
    engine = PostgresEngine("postgresql://ann:s3cret@127.0.0.1:1/shop")

    with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1/shop cannot be reached") as told:
        engine.run(echo())

    assert "s3cret" not in str(told.value)


def test_a_role_that_is_not_there_is_told_as_one_that_is_not_let_in(url: str):
    there = urlsplit(url)
    nobody = there._replace(netloc=f"nobody@{there.netloc.rpartition('@')[2]}").geturl()
    engine = PostgresEngine(nobody)

    with pytest.raises(EngineUnavailable, match="check user and password"):
        engine.run(echo())


def test_a_database_that_is_not_there_is_told_with_what_makes_it(url: str):
    engine = PostgresEngine(urlsplit(url)._replace(path="/nowhere").geturl())

    with pytest.raises(EngineUnavailable, match="createdb"):
        engine.run(echo())


def test_a_schema_without_tables_is_told_with_what_makes_them(url: str):
    engine = PostgresEngine(f"{url.partition('?')[0]}?schema=nowhere")

    with pytest.raises(SchemaMismatch, match=r"backlane migrate --url '?postgresql://.*nowhere"):
        engine.run(engine.list_queues())
    engine.close()


# -- the end --


def test_a_closed_engine_opens_anew(engine: PostgresEngine):
    first = engine.run(session())
    engine.close()

    assert engine.run(session()) != first


def test_close_waits_for_what_has_begun(engine: PostgresEngine):
    done: list[int] = []
    worker = threading.Thread(target=lambda: done.append(engine.run(sleep(0.7))))
    worker.start()
    time.sleep(0.2)

    engine.close()

    worker.join(1)
    assert done == [1]


def test_many_threads_share_few_connections(url: str):
    engine = PostgresEngine(f"{url}&pool=3")
    sessions: set[int] = set()

    def work() -> None:
        for _ in range(50):
            sessions.add(engine.run(session()))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()

    assert len(sessions) <= 3
