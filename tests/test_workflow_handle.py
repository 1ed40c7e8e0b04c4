"""The grip on a workflow: found, followed, cancelled, retried; and what wraps it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from tests.hand import settle, succeed, take
from tests.weaving import app, broken, count, double, fetch, numbers, seen, states, total

from backlane import (
    Backlane,
    BadOption,
    Call,
    Context,
    JobCancelled,
    JobExpired,
    JobNotFound,
    Middleware,
    Next,
    ResultTimeout,
    State,
    WorkflowHandle,
    WorkflowProgress,
    WrongUse,
    chain,
    group,
)
from backlane.model.workflow import LEAVES
from backlane.testing import Testing, testing
from backlane.worker.references import resolve
from backlane.worker.slices import run_own


@pytest.fixture
def t() -> Iterator[Testing]:
    broken.clear()
    seen.clear()
    with testing(app) as kit:
        yield kit


stops: list[WorkflowHandle[int]] = []


@app.task(name="stopping")
def stopping(number: int) -> int:
    if number == 20 and stops:
        stops.pop().cancel()
    return number


# -- the handle --


def test_a_workflow_is_found_by_its_id(t: Testing) -> None:
    run = chain(double.node(1), double.node()).enqueue()
    job = double.enqueue(1)
    inner = uuid.UUID(bytes=run.nodes()[0].id)

    t.drain()

    assert app.workflow(str(run.id)) == run
    assert app.workflow(run.id).result() == 4
    with pytest.raises(JobNotFound):
        app.workflow("01890000-0000-7000-8000-000000000000")
    with pytest.raises(BadOption, match="no workflow"):
        app.workflow(job.id)
    with pytest.raises(BadOption, match=str(run.id)):
        app.workflow(inner)


def test_a_result_that_is_not_there_in_time(t: Testing) -> None:
    run = double.node(1).enqueue()

    with pytest.raises(ResultTimeout):
        run.result(timeout=0)


def test_progress_counts_nodes_and_leaves(t: Testing) -> None:
    run = chain(double.map(range(4)), total.node()).enqueue()
    (slice_,) = t.engine.run(t.engine.claim(t._wanted(1))).leases
    before = run.progress

    assert slice_.task == "backlane.slice"
    assert before == WorkflowProgress(State.RUNNING, 0, 5)
    assert before.fraction == 0


def test_a_workflow_is_cancelled_with_its_leaves(t: Testing) -> None:
    run = chain(double.using(queue="other").map(range(30)), total.node()).enqueue()
    (slice_,) = t.engine.run(t.engine.claim(t._wanted(1))).leases
    t._settled(slice_, t._running_inline().run(slice_))
    before = run.progress

    number = run.cancel()

    assert before.state is State.RUNNING
    assert number == 32
    assert t.drain() == []
    assert run.state is State.CANCELLED
    with pytest.raises(JobCancelled):
        run.result()


def test_a_workflow_that_expired_says_so(t: Testing) -> None:
    run = chain(double.using(expires=5).node(1), double.node()).enqueue()

    t.clock.advance(seconds=10)
    t.drain()

    with pytest.raises(JobExpired):
        run.result()
    assert run.state is State.EXPIRED


def test_a_retry_runs_what_failed_and_what_was_skipped(t: Testing) -> None:
    broken.add(2)
    last = total.node([double.node(1).out, double.node(2).out])
    run = chain(last, double.node()).enqueue()
    t.drain()
    broken.clear()

    number = run.retry()
    ran = t.drain()

    assert number == 3
    assert [one.task for one in ran] == ["double", "total", "double"]
    assert run.result() == 12


def test_a_retry_of_a_map_runs_its_failed_leaves(t: Testing) -> None:
    broken.update([3, LEAVES + 1])
    run = chain(double.map(range(LEAVES + 10)), total.node()).enqueue()
    t.drain()
    assert run.state is State.FAILED
    broken.clear()

    run.retry()
    ran = t.drain()

    assert [one.task for one in ran].count("double") == 2
    assert run.result() == (LEAVES + 10) * (LEAVES + 9)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_map_that_makes_leaves_while_it_is_cancelled_takes_them_along(is_known: bool) -> None:
    with testing(app) as t:
        items = range(LEAVES + 3) if is_known else numbers.node(LEAVES + 3).out
        run = double.map(items).enqueue()
        if not is_known:
            succeed(app, list(range(LEAVES + 3)))
        lease = take(app)[0]
        run.cancel()  # there are no leaves yet: that job is asked to stop

        body = resolve(app, lease)
        assert isinstance(body, bytes)
        settle(app, lease, run_own(app, lease, body).outcome)
        t.drain()

        assert run.state is State.CANCELLED
        assert all(job.state is State.CANCELLED for job in t.jobs(double))
        assert is_known == bool(t.jobs(double))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_map_that_was_cancelled_goes_on_by_a_retry(t: Testing, is_known: bool) -> None:
    number = LEAVES + 3
    items = range(number) if is_known else numbers.node(number).out
    run = chain(stopping.map(items), total.node()).enqueue()
    stops[:] = [run]
    t.drain()
    assert run.state is State.CANCELLED
    assert 7 < run.progress.failed < number

    run.retry()
    t.drain()

    assert run.result() == number * (number - 1) // 2


def test_a_retry_that_fails_again_can_be_retried(t: Testing) -> None:
    broken.add(3)
    run = double.map(range(5)).enqueue()
    t.drain()
    run.retry()
    t.drain()
    assert run.state is State.FAILED
    broken.clear()

    run.retry()
    t.drain()

    assert run.result() == [0, 2, 4, 6, 8]


def test_a_retry_from_a_node_leaves_the_others(t: Testing) -> None:
    broken.update([1, 2])
    run = group([double.node(1), double.node(2)]).enqueue()
    t.drain()
    broken.clear()
    first = uuid.UUID(bytes=run.nodes()[0].id)

    number = run.retry(first)
    t.drain()

    assert number == 1
    assert [state for _, state in states(run)][:2] == [State.SUCCEEDED, State.FAILED]
    with pytest.raises(WrongUse):
        run.retry(first)


def test_the_twins_for_coroutines(t: Testing) -> None:
    async def both() -> None:
        run = await chain(fetch.node("a"), count.node()).aenqueue()
        again = await double.node(1).aenqueue()
        before = await run.aprogress()

        await t.adrain()

        assert before.done == 0
        assert await run.aresult() == 1
        assert await again.aresult() == 2
        assert len(await run.anodes()) == 2
        assert (await app.aworkflow(run.id)) == run
        assert await run.acancel() == 0
        assert await run.aretry() == 0
        assert [progress async for progress in run.events()] == [await run.aprogress()]

    asyncio.run(both())


def test_following_yields_each_change(t: Testing) -> None:
    run = chain(double.node(1), double.node()).enqueue()
    following = run.follow()

    first = next(following)
    t.drain()
    rest = list(following)

    assert first == WorkflowProgress(State.READY, 0, 2)
    assert rest == [WorkflowProgress(State.SUCCEEDED, 2, 2)]


# -- inside of jobs, behind middleware --


def test_a_workflow_enqueued_in_a_job_is_its_child() -> None:
    inner = Backlane("memory://")

    @inner.task(name="child")
    def child() -> None: ...

    @inner.task(name="parent")
    def parent() -> None:
        child.node().enqueue()

    with testing(inner) as t:
        job = parent.enqueue()
        t.drain()

        assert t.jobs(child)[0].job.record().parent == job.id.bytes


def test_each_node_goes_through_the_middleware_around_enqueues() -> None:
    calls: list[str] = []

    async def tracing(call: Call, following: Next) -> object:
        calls.append(call.task)
        return await following(call.with_headers({"trace": "1"}))

    traced = Backlane("memory://", middleware=[Middleware(enqueue=tracing)])

    @traced.task(name="one")
    def one(number: int) -> int:
        return number

    @traced.task(name="two")
    def two(context: Context, number: int) -> str:
        return f"{number} {context.headers['trace']}"

    with testing(traced) as t:
        run = chain(one.node(7), two.node()).enqueue()
        t.drain()

        assert calls == ["one", "two"]
        assert run.result() == "7 1"


def test_leaves_of_items_that_were_not_known_before_count_too(t: Testing) -> None:
    run = chain(numbers.node(3), double.map(), total.node()).enqueue()
    before = run.progress.total

    t.drain()

    assert before == 2
    assert run.progress == WorkflowProgress(State.SUCCEEDED, 5, 5)
