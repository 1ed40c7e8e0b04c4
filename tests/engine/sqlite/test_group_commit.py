"""Group commit: callers that wait together share a transaction, and no one's fault."""

from __future__ import annotations

import asyncio
import threading

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement

from backlane.engine.plan import Plan, Sql
from backlane.engine.protocol import Admission, Declare, Wanted
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.driver import writer
from backlane.errors import StoreCorrupt, TooLarge, WrongUse
from backlane.model.job import Key, Refusal, State
from backlane.model.outcome import Reason, Succeeded
from backlane.model.queue import Bounds, Kind


@pytest.fixture
def commits(engine: SqliteEngine) -> list[int]:
    """Gets the length of the log after each commit."""
    engine.migrate()
    seen: list[int] = []
    connection = engine._process.handles().store._connection
    connection.set_wal_hook(lambda *call: seen.append(call[2]) or 0)
    return seen


def together(engine: SqliteEngine, *plans: Plan) -> list:
    """Run plans so that all of them wait for the same transaction."""

    async def run() -> list:
        turn = engine._process.handles().writer._turn
        with turn:
            tasks = [asyncio.create_task(engine.arun(plan)) for plan in plans]
            await asyncio.sleep(0)  # every task has left its plan
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


def raising(error: Exception) -> Plan:
    async def within(tx) -> None:
        raise error

    return Plan(within)


def test_plans_that_wait_share_one_commit(desk: Desk, engine: SqliteEngine, commits: list[int]):
    plans = [engine.append([desk.job()], Admission()) for _ in range(50)]

    answers = together(engine, *plans)

    assert all(answer[0].is_new for answer in answers)
    assert len(commits) == 1
    assert desk.depth().ready == 50


def test_merged_appends_are_answered_as_if_one_came_after_the_other(
    desk: Desk, engine: SqliteEngine, commits: list[int]
):
    admission = Admission({"mail": Bounds(max_jobs=2)})
    key = Key("send", "k")
    first, same_key, second, third = (
        desk.job(key=key), desk.job(key=key), desk.job(), desk.job()
    )  # fmt: skip
    other_kind = engine.append([desk.job()], Admission(kind=Kind.MESSAGES))

    answers = together(
        engine,
        *(engine.append([job], admission) for job in (first, same_key, second, third, first)),
        other_kind,
    )

    assert len(commits) == 1
    assert answers[0][0].is_new
    assert answers[1][0].first == first.id
    assert answers[2][0].is_new
    assert isinstance(answers[3], Refusal)
    assert (answers[3].limit, answers[3].depth) == ("jobs", 2)
    assert answers[4][0].first == first.id
    assert answers[5].limit == "kind"


def test_only_the_culprit_fails(desk: Desk, engine: SqliteEngine, commits: list[int]):
    good = [engine.append([desk.job()], Admission()) for _ in range(3)]

    answers = together(engine, good[0], raising(WrongUse("no")), good[1], good[2])

    assert [type(answer) for answer in answers] == [list, WrongUse, list, list]
    assert desk.depth().ready == 3


def test_an_append_that_cannot_be_stored_does_not_harm_the_ones_beside_it(
    desk: Desk, engine: SqliteEngine, commits: list[int]
):
    engine._process.handles().store._connection.limit(apsw.SQLITE_LIMIT_LENGTH, 10_000)
    good = engine.append([desk.job()], Admission())
    bad = engine.append([desk.job(body=b"x" * 20_000)], Admission())

    answers = together(engine, good, bad)

    assert answers[0][0].is_new
    assert isinstance(answers[1], TooLarge)
    assert desk.depth().ready == 1


def test_settlements_are_begun_again_first(desk: Desk, engine: SqliteEngine, commits: list[int]):
    desk.add()
    settled = engine.settle([settlement(desk.lease(), SUCCEEDED)])
    order: list[str] = []

    def noting(name: str, plan: Plan) -> None:
        run = plan.within
        plan.within = lambda tx: order.append(name) or run(tx)

    append = engine.append([desk.job()], Admission())
    noting("append", append)
    noting("settle", settled)

    together(engine, append, raising(WrongUse("no")), settled)

    assert order[-2:] == ["settle", "append"]


def test_an_outcome_that_cannot_be_stored_buries_its_job_alone(desk: Desk, engine: SqliteEngine):
    desk.add(3)
    leases = desk.claim().leases
    engine._process.handles().store._connection.limit(apsw.SQLITE_LIMIT_LENGTH, 10_000)
    outcomes = [Succeeded(b"1"), Succeeded(b"x" * 20_000), Succeeded(b"3")]
    desk.add()

    turn = engine.run(
        engine.turn(
            [settlement(*pair) for pair in zip(leases, outcomes, strict=True)],
            [Wanted(owner="ann", number=5, lease_ms=1_000, queues=("mail",))],
        )
    )

    assert turn.settled.buried == [leases[1].job]
    assert len(turn.claimed[0].leases) == 1
    states = desk.states([lease.job for lease in leases])
    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    record = desk.record(leases[1].job)
    assert record.reason is Reason.UNSTORABLE
    assert "cannot be stored" in record.errors[0].error.message


def test_a_cancelled_caller_harms_no_one(desk: Desk, engine: SqliteEngine):
    engine.migrate()

    async def run() -> list:
        with engine._process.handles().writer._turn:
            tasks = [
                asyncio.create_task(engine.arun(engine.append([desk.job()], Admission())))
                for _ in range(3)
            ]
            await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run())

    assert [type(answer) for answer in answers] == [list, asyncio.CancelledError, list]
    assert desk.depth().ready == 3


def test_many_threads_and_loops_share_the_writer(desk: Desk, engine: SqliteEngine):
    jobs = [desk.job() for _ in range(120)]

    def one_by_one(mine) -> None:
        for job in mine:
            engine.run(engine.append([job], Admission()))

    def in_a_loop(mine) -> None:
        async def run() -> None:
            plans = [engine.append([job], Admission()) for job in mine]
            await asyncio.gather(*(engine.arun(plan) for plan in plans))

        asyncio.run(run())

    threads = [
        threading.Thread(target=work, args=(jobs[start : start + 30],))
        for start, work in zip(
            range(0, 120, 30), [one_by_one, in_a_loop, one_by_one, in_a_loop], strict=True
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert desk.depth().ready == 120


def test_a_plan_that_meets_a_closing_engine_is_carried_out_by_the_next(
    desk: Desk, engine: SqliteEngine
):
    engine.migrate()
    stop = threading.Event()

    def reopen() -> None:
        while not stop.is_set():
            engine.close()

    closing = threading.Thread(target=reopen)
    closing.start()
    try:
        for _ in range(30):
            desk.add()
    finally:
        stop.set()
        closing.join()

    assert desk.depth().ready == 30


def test_a_group_is_bounded_so_that_turns_need_not_wait(desk: Desk, engine: SqliteEngine, commits):
    number = writer.GROUP_PLANS + 10
    plans = [engine.append([desk.job()], Admission()) for _ in range(number)]

    together(engine, *plans)

    assert len(commits) == 2


def test_a_value_that_cannot_be_bound_is_its_callers_alone(engine: SqliteEngine):
    declared = engine.tune("mail", Declare(Kind.TASKS, Bounds()))

    async def within(tx):
        return await tx.rows(Sql("select * from backlane_job where seq = ?"), object())

    answers = together(engine, Plan(within), declared)

    assert isinstance(answers[0], StoreCorrupt)
    assert answers[1] is None
