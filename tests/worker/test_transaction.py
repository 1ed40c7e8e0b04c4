"""A job's own transaction: its writes and its completion are one, in every executor."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.worker.conftest import wait_until

from backlane import Backlane, Context, JobFailed, Queue, Retry
from backlane.engine.protocol import Wanted
from backlane.engine.selection import Selection
from backlane.errors import LeaseLost, NotSupported, WrongUse
from backlane.model import event as events
from backlane.model.job import Lease, State
from backlane.model.outcome import Released, RetryAfter, Settlement
from backlane.testing import testing
from backlane.worker import Worker
from backlane.worker.attempt import Attempts

ONCE = Retry(attempts=1)


class Ledger:
    """A table beside the jobs, and the application that writes to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.app = Backlane(f"sqlite:///{self.path}", queues=[Queue("narrow", concurrency=1)])
        self.app.engine.migrate()
        self.connection = apsw.Connection(str(self.path))
        self.connection.set_busy_timeout(5000)
        self.connection.execute("create table entry (amount integer)")

    def amounts(self) -> list[int]:
        return [amount for (amount,) in self.connection.execute("select amount from entry")]

    def write(self, connection: Any, amount: int) -> None:
        connection.execute("insert into entry values (?)", (amount,))

    def lease(self) -> Lease:
        """Claim one job, as a worker does that is paused now."""
        engine = self.app.engine
        wanted = Wanted(owner="paused", number=1, lease_ms=60_000, queues=("default",))
        (lease,) = engine.run(engine.claim(wanted)).leases
        return lease


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path)
    yield made
    made.connection.close()
    made.app.close()


def test_a_function_in_a_thread_commits_its_writes_and_its_result(ledger: Ledger):
    @ledger.app.task(name="pay")
    def pay(context: Context, amount: int) -> str:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            tx.complete("paid")
        return "not looked at"

    with Worker(ledger.app):
        job = pay.enqueue(7)
        result = job.result(timeout=5)

    assert (result, ledger.amounts()) == ("paid", [7])
    assert (job.record().attempt, job.state) == (1, State.SUCCEEDED)


def test_a_coroutine_commits_its_writes_and_its_result(ledger: Ledger):
    @ledger.app.task(name="pay")
    async def pay(context: Context, amount: int) -> str:
        async with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            tx.complete("paid")
        return "not looked at"

    with Worker(ledger.app):
        result = pay.enqueue(7).result(timeout=5)

    assert (result, ledger.amounts()) == ("paid", [7])


def test_the_block_may_be_left_by_a_return(ledger: Ledger, caplog: pytest.LogCaptureFixture):
    @ledger.app.task(name="pay")
    def pay(context: Context, amount: int) -> str:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            return tx.complete("paid")

    @ledger.app.task(name="pays_and_ends")
    def pays_and_ends(context: Context) -> str:  # type: ignore[return]
        with context.transaction() as tx:
            tx.complete("paid")

    with Worker(ledger.app):
        results = [pay.enqueue(7).result(timeout=5), pays_and_ends.enqueue().result(timeout=5)]

    assert (results, ledger.amounts()) == (["paid", "paid"], [7])
    assert "committed its completion" not in caplog.text


def test_an_error_in_the_block_rolls_back_and_ends_the_attempt(ledger: Ledger):
    @ledger.app.task(name="pay", retry=Retry(attempts=3, base=0.01, cap=0.01))
    def pay(context: Context, amount: int) -> None:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            if context.attempt < 3:
                raise OSError("not yet")

    @ledger.app.task(name="apay", retry=ONCE)
    async def apay(context: Context, amount: int) -> None:
        async with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            raise OSError("never")

    with Worker(ledger.app):
        job = pay.enqueue(7)
        job.result(timeout=5)
        with pytest.raises(JobFailed, match="never"):
            apay.enqueue(8).result(timeout=5)

    assert ledger.amounts() == [7]
    assert [each.error.message for each in job.errors] == ["not yet", "not yet"]


def test_who_lost_its_lease_commits_nothing(ledger: Ledger):
    @ledger.app.task(name="pay")
    def pay(context: Context, amount: int) -> None:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)

    job = pay.enqueue(7)
    stale, engine = ledger.lease(), ledger.app.engine
    engine.run(engine.settle([Settlement(stale.job, stale.token, Released())]))
    current = ledger.lease()

    attempts = Attempts(ledger.app)
    lost = attempts.run_inline(stale).outcome
    won = attempts.run_inline(current)

    assert isinstance(lost, RetryAfter)
    assert lost.error.kind == f"{LeaseLost.__module__}.LeaseLost"
    assert (ledger.amounts(), job.state) == ([7], State.SUCCEEDED)
    assert engine.run(engine.settle([won])).lost == [stale.job]


def test_what_follows_the_block_changes_nothing(ledger: Ledger):
    told: list[object] = []
    ledger.app.observe(told.append)

    @ledger.app.task(name="pay", retry=ONCE)
    def pay(context: Context, amount: int) -> None:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
        raise OSError("too late to fail")

    with Worker(ledger.app):
        job = pay.enqueue(7)
        job.result(timeout=5)

    ended = [one for one in told if isinstance(one, events.AttemptEnded)]
    assert [one.outcome for one in ended] == ["succeeded"]
    assert (job.state, job.errors) == (State.SUCCEEDED, ())


def test_a_completed_job_may_outlive_its_lease(ledger: Ledger):
    told: list[object] = []
    ledger.app.observe(told.append)
    heard: list[bool] = []

    @ledger.app.task(name="pay", queue="narrow")
    def pay(context: Context, amount: int) -> None:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
        time.sleep(1.6)
        heard.append(context.cancelled)

    with Worker(ledger.app, lease=1.0):
        first = pay.enqueue(7)
        first.result(timeout=5)
        second = pay.enqueue(8)
        second.result(timeout=5)
        wait_until(lambda: len(heard) == 2)

    assert heard == [False, False]
    assert not [one for one in told if isinstance(one, events.LeaseLost)]
    assert ledger.amounts() == [7, 8]


def test_a_waiter_is_woken_by_the_commit(ledger: Ledger):
    go_on = threading.Event()

    @ledger.app.task(name="pay")
    def pay(context: Context) -> int:
        with context.transaction() as tx:
            tx.complete(1)
        go_on.wait(10)
        return 2

    with Worker(ledger.app):
        result = pay.enqueue().result(timeout=5)
        go_on.set()

    assert result == 1


def test_a_job_enqueued_in_the_block_shares_its_fate(ledger: Ledger):
    @ledger.app.task(name="next")
    def follow(amount: int) -> None: ...

    @ledger.app.task(name="pay", retry=ONCE)
    def pay(context: Context, amount: int) -> None:
        with context.transaction() as tx:
            follow.using(connection=tx.connection).enqueue(amount)
            if amount < 0:
                raise ValueError(amount)

    with Worker(ledger.app):
        pay.enqueue(7).result(timeout=5)
        with pytest.raises(JobFailed):
            pay.enqueue(-7).result(timeout=5)

    engine = ledger.app.engine
    assert len(engine.run(engine.find(Selection(task="next"))).records) == 1


@pytest.mark.parametrize("begins", [False, True])
def test_a_connection_of_ones_own_will_do(ledger: Ledger, begins: bool):
    @ledger.app.task(name="pay")
    def pay(context: Context, amount: int) -> None:
        mine = apsw.Connection(str(ledger.path))
        mine.set_busy_timeout(5_000)  # the worker writes as well
        if begins:
            mine.execute("begin immediate")
            ledger.write(mine, amount)
        with context.transaction(mine) as tx:
            ledger.write(tx.connection, amount)

    with Worker(ledger.app):
        pay.enqueue(7).result(timeout=5)

    assert ledger.amounts() == [7] * (1 + begins)


def test_a_coroutine_out_of_time_rolls_back(ledger: Ledger):
    @ledger.app.task(name="pay", retry=ONCE, timeout=0.2)
    async def pay(context: Context, amount: int) -> None:
        async with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            await asyncio.sleep(60)

    with Worker(ledger.app), pytest.raises(JobFailed, match="timeout"):
        pay.enqueue(7).result(timeout=10)

    assert ledger.amounts() == []


def _left_open(context: Context) -> int:
    with context.transaction():
        return 7


def _twice(context: Context) -> None:
    with context.transaction():
        pass
    with context.transaction():
        pass


def _complete_twice(context: Context) -> None:
    with context.transaction() as tx:
        tx.complete()
        tx.complete()


def _outside(context: Context) -> None:
    context.transaction().complete()


def _no_connection(context: Context) -> None:
    with context.transaction(object()):
        pass


def _nested(context: Context) -> None:
    with context.transaction(), context.transaction():
        pass


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_left_open, "without tx.complete"),
        (_complete_twice, "a second time"),
        (_outside, "outside of its block"),
        (_no_connection, "cannot be joined"),
        (_nested, "open already"),
    ],
)
def test_a_wrong_use_fails_for_good(ledger: Ledger, function: Callable[..., Any], words: str):
    task = ledger.app.task(name="wrong")(function)

    with Worker(ledger.app):
        job = task.enqueue()
        with pytest.raises(JobFailed, match="WrongUse"):
            job.result(timeout=5)

    assert words in job.errors[-1].error.message
    assert job.record().attempt == 1


def test_a_second_transaction_is_refused_and_the_first_holds(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
):
    task = ledger.app.task(name="twice")(_twice)

    with Worker(ledger.app):
        job = task.enqueue()
        job.result(timeout=5)
        wait_until(lambda: "settled already" in caplog.text)

    assert job.state is State.SUCCEEDED


def test_called_directly_the_block_only_commits(ledger: Ledger):
    @ledger.app.task(name="pay")
    def pay(context: Context, amount: int) -> int:
        with context.transaction() as tx:
            ledger.write(tx.connection, amount)
            tx.complete(amount)
        return amount

    assert pay(7) == 7
    assert ledger.amounts() == [7]


def test_in_memory_a_connection_has_to_be_given():
    app = Backlane("memory://")
    engine = app.engine

    with pytest.raises(NotSupported, match="pass yours"):
        engine.transaction()


def test_under_testing_the_callers_connection_is_committed(ledger: Ledger):
    @ledger.app.task(name="pay", retry=ONCE)
    def pay(context: Context, amount: int) -> str:
        with context.transaction(ledger.connection) as tx:
            ledger.write(tx.connection, amount)
            tx.complete("paid")
            if amount < 0:
                raise ValueError(amount)
        return "not looked at"

    with testing(ledger.app) as t:
        good, bad = pay.enqueue(7), pay.enqueue(-7)
        ran = t.drain()

        assert good.result() == "paid"
        assert bad.state is State.FAILED
        assert [one.outcome for one in ran] == ["succeeded", "retryafter"]
    assert ledger.amounts() == [7]


def test_a_context_of_no_application_has_no_transaction():
    with pytest.raises(WrongUse, match="no application"):
        Context.detached().transaction()
