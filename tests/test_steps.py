"""Steps: what a job has done stays done, whatever becomes of the attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from backlane import (
    Backlane,
    BadOption,
    Context,
    JobFailed,
    JobHandle,
    LeaseLost,
    Retry,
    State,
    TooLarge,
    Unencodable,
    WorkflowHandle,
    WrongUse,
    chain,
)
from backlane.model.job import Note, Step
from backlane.testing import Testing, testing

app = Backlane("memory://", retry=Retry(attempts=3, base=1, cap=1))
done: list[object] = []  # what steps really did
failing: list[str] = []  # steps that fail, each as often as it is named


@dataclass
class Receipt:
    number: int
    at: datetime


def charge(amount: int) -> Receipt:
    done.append(("charge", amount))
    return Receipt(amount, datetime(2030, 1, 1, tzinfo=UTC))


def untyped(value):
    done.append(("untyped", value))
    return value


async def send(to: str) -> str:
    await asyncio.sleep(0)
    done.append(("send", to))
    return f"to {to}"


def stumble(name: str) -> None:
    if name in failing:
        failing.remove(name)
        raise OSError(name)


@app.task(name="buy")
def buy(context: Context, amount: int) -> Receipt:
    receipt = context.step("charge", charge, amount)
    stumble("after charge")
    context.step("thanks", untyped, ["a", 1, None])
    stumble("after thanks")
    return receipt


@app.task(name="buy_in_loop")
async def buy_in_loop(context: Context, to: str) -> str:
    sent = await context.astep("send", send, to)
    stumble("after send")
    return sent


@app.task(name="count")
def count(context: Context, upto: int) -> list[int]:
    found = [context.step("one", untyped, number) for number in range(upto)]
    stumble("after loop")
    return found


@app.task(name="child")
def child(number: int) -> Receipt:
    done.append(("child", number))
    if number < 0:
        raise ValueError("negative")
    return Receipt(number, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def t() -> Iterator[Testing]:
    done.clear()
    failing.clear()
    with testing(app) as kit:
        yield kit


def test_a_step_runs_once_though_the_job_runs_again(t: Testing) -> None:
    failing.extend(["after charge", "after thanks"])
    job = buy.enqueue(7)

    t.advance(seconds=10)

    assert job.attempts == 3
    assert job.result() == Receipt(7, datetime(2030, 1, 1, tzinfo=UTC))
    assert done == [("charge", 7), ("untyped", ["a", 1, None])]


def test_an_async_step_runs_once(t: Testing) -> None:
    failing.append("after send")
    job = buy_in_loop.enqueue("ann")

    t.advance(seconds=10)

    assert (job.result(), job.attempts, done) == ("to ann", 2, [("send", "ann")])


def test_steps_of_one_name_are_numbered_in_their_order(t: Testing) -> None:
    failing.append("after loop")
    job = count.enqueue(3)

    t.advance(seconds=10)

    assert job.result() == [0, 1, 2]
    assert done == [("untyped", 0), ("untyped", 1), ("untyped", 2)]
    steps = t.engine.run(t.engine.recall(job.id.bytes))
    assert [step.name for step in steps] == ["one", "one#2", "one#3"]


def test_a_step_that_fails_is_tried_again(t: Testing) -> None:
    @app.task(name=f"fails{len(app.tasks)}")
    def fails(context: Context) -> str:
        context.step("first", stumble, "first")
        return context.step("second", untyped, "x")

    failing.append("first")
    job = fails.enqueue()
    t.advance(seconds=10)

    assert (job.result(), job.attempts) == ("x", 2)


def test_a_step_results_in_the_same_whether_it_ran_or_not(t: Testing) -> None:
    kinds = []

    @app.task(name=f"same{len(app.tasks)}")
    def same(context: Context) -> None:
        kinds.append(context.step("tuple", untyped, (1, 2)))
        stumble("again")

    failing.append("again")
    same.enqueue()
    t.advance(seconds=10)

    assert kinds == [[1, 2], [1, 2]]


def test_a_first_attempt_reads_nothing(t: Testing) -> None:
    job = buy.enqueue(1)
    (lease,) = t.engine.run(t.engine.claim(t._wanted(1))).leases
    note = Note(job.id.bytes, lease.token, steps=(Step("charge", b'{"number":9,"at":0}'),))
    t.engine.run(t.engine.note([note]))  # would be found, if it were looked for

    t._settled(lease, t._running_inline().run(lease))

    assert done[0] == ("charge", 1)


def test_a_step_under_a_lost_lease_is_not_kept(t: Testing) -> None:
    errors: list[BaseException] = []

    @app.task(name=f"slow{len(app.tasks)}")
    def slow(context: Context) -> None:
        if not errors:
            from backlane.model.outcome import Released, Settlement

            lease = context.lease
            t.engine.run(t.engine.settle([Settlement(lease.job, lease.token, Released())]))
            try:
                context.step("a", untyped, 1)
            except LeaseLost as error:
                errors.append(error)
                raise

    job = slow.enqueue()
    t.drain()

    assert len(errors) == 1
    assert t.engine.run(t.engine.recall(job.id.bytes)) == []
    assert job.state is State.SUCCEEDED


def test_a_job_asked_to_stop_begins_no_further_step(t: Testing) -> None:
    @app.task(name=f"stop{len(app.tasks)}")
    def stop(context: Context) -> None:
        context.step("a", untyped, 1)
        app.job(context.id).cancel()
        context.step("b", untyped, 2)

    job = stop.enqueue()
    t.drain()

    assert job.state is State.CANCELLED
    assert done == [("untyped", 1)]


def test_steps_stay_done_when_a_failed_job_is_redriven(t: Testing) -> None:
    from backlane.engine.selection import Redrive, Selection

    failing.extend(["after charge"] * 3)
    job = buy.enqueue(7)
    t.advance(seconds=10)
    assert job.state is State.FAILED

    t.engine.run(t.engine.amend(Selection(ids=(job.id.bytes,)), Redrive()))
    t.drain()

    assert job.state is State.SUCCEEDED
    assert done.count(("charge", 7)) == 1


@pytest.mark.parametrize(("value", "error"), [(object(), Unencodable), ("x" * 2_000_000, TooLarge)])
def test_a_result_that_cannot_be_stored_is_an_error(t: Testing, value, error) -> None:
    @app.task(name=f"bad{len(app.tasks)}", retry=Retry(attempts=1))
    def bad(context: Context) -> None:
        with pytest.raises(error, match="'it'"):
            context.step("it", untyped, value)

    job = bad.enqueue()
    t.drain()

    assert job.state is State.SUCCEEDED


def test_a_plain_step_in_the_loop_and_an_async_one_out_of_it_are_refused(t: Testing) -> None:
    @app.task(name=f"in_loop{len(app.tasks)}")
    async def in_loop(context: Context) -> None:
        with pytest.raises(WrongUse, match="astep"):
            context.step("a", untyped, 1)

    @app.task(name=f"in_thread{len(app.tasks)}")
    def in_thread(context: Context) -> None:
        with pytest.raises(WrongUse, match="astep"):
            context.step("a", send, "ann")

    jobs = [in_loop.enqueue(), in_thread.enqueue()]
    t.drain()

    assert [job.state for job in jobs] == [State.SUCCEEDED] * 2


@pytest.mark.parametrize("name", ["", "x" * 201, 7])
def test_a_step_has_a_name(t: Testing, name) -> None:
    @app.task(name=f"named{len(app.tasks)}")
    def named(context: Context) -> None:
        with pytest.raises(BadOption):
            context.step(name, untyped, 1)

    job = named.enqueue()
    t.drain()

    assert job.state is State.SUCCEEDED


def test_in_a_direct_call_steps_are_calls() -> None:
    done.clear()

    receipt = buy(7)
    sent = asyncio.run(buy_in_loop("bob"))

    assert (receipt.number, sent) == (7, "to bob")
    Context.detached().sleep_until(datetime(2999, 1, 1, tzinfo=UTC))


# -- sleeping --


@app.task(name="sleeper")
def sleeper(context: Context) -> str:
    wake = context.step("wake", in_an_hour)
    done.append("before")
    context.sleep_until(wake)
    return "awake"


def in_an_hour() -> datetime:
    return datetime(2030, 1, 1, 1, tzinfo=UTC)


def test_a_job_sleeps_without_a_slot_and_goes_on(t: Testing) -> None:
    job = sleeper.enqueue()

    t.advance(minutes=59)
    asleep = job.record()
    t.advance(minutes=1)

    assert (asleep.state, asleep.attempt, asleep.owner) == (State.SCHEDULED, 0, "testing")
    assert job.result() == "awake"
    assert (job.attempts, done) == (1, ["before", "before"])


def test_a_moment_has_a_time_zone() -> None:
    with pytest.raises(BadOption, match="time zone"):
        Context.detached().sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001


# -- joining --


@app.task(name="parent")
def parent(context: Context, *numbers: int) -> int:
    children = [context.step("ask", child.enqueue, number) for number in numbers]
    receipts = context.join(children)
    done.append("joined")
    return sum(receipt.number for receipt in receipts if receipt)


@app.task(name="parent_in_loop")
async def parent_in_loop(context: Context, number: int) -> int:
    asked = await context.astep("ask", child.aenqueue, number)
    (receipt,) = await context.ajoin([asked])
    return receipt.number if receipt else 0


@app.task(name="partial_parent")
def partial_parent(context: Context) -> list[int | None]:
    children = context.step("ask", ask_two)
    receipts = context.join(children, partial=True)
    return [receipt.number if receipt else None for receipt in receipts]


def ask_two() -> list[JobHandle[Receipt]]:
    return child.enqueue_many([((1,), {}), ((-1,), {})])


@app.task(name="of_workflow")
def of_workflow(context: Context) -> int:
    run = context.step("flow", start_flow)
    (receipt,) = context.join([run])
    return receipt.number if receipt else 0


def start_flow() -> WorkflowHandle[Receipt]:
    return chain(count.node(1), child.node(5)).enqueue()


def test_a_job_waits_for_others_without_a_slot(t: Testing) -> None:
    job = parent.enqueue(1, 2)
    (lease,) = t.engine.run(t.engine.claim(t._wanted(1))).leases
    t._settled(lease, t._running_inline().run(lease))
    waiting = job.record()

    t.drain()

    assert (waiting.state, waiting.waits_for, waiting.attempt) == (State.BLOCKED, 2, 0)
    assert job.result() == 3
    assert done == [("child", 1), ("child", 2), "joined"]


def test_an_async_job_waits_for_others(t: Testing) -> None:
    job = parent_in_loop.enqueue(4)

    t.drain()

    assert job.result() == 4
    assert done == [("child", 4)]


def test_who_joins_a_job_that_failed_is_told(t: Testing) -> None:
    job = parent.using(id="01b8dac5-b400-7000-8000-000000000001").enqueue(-1)

    t.advance(minutes=1)

    with pytest.raises(JobFailed) as caught:
        job.result()
    assert caught.value.error is not None
    assert caught.value.error.kind == "backlane.errors.JobFailed"


def test_a_partial_join_has_none_for_what_failed(t: Testing) -> None:
    job = partial_parent.enqueue()

    t.advance(minutes=1)

    assert job.result() == [1, None]


def test_a_job_joins_a_workflow(t: Testing) -> None:
    job = of_workflow.enqueue()

    t.drain()

    assert job.result() == 5


def test_what_ended_before_is_not_waited_for(t: Testing) -> None:
    asked = child.enqueue(3)
    t.drain()

    @app.task(name=f"late{len(app.tasks)}")
    def late(context: Context) -> int:
        (receipt,) = context.join([asked])
        return receipt.number if receipt else 0

    job = late.enqueue()
    ran = t.drain()

    assert (job.result(), len(ran)) == (3, 1)
