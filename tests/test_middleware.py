"""Middleware around enqueues, one by one and in bulk, and composing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.hand import take

from backlane import Backlane, Call, Middleware, Next, Queue, QueueFull, WrongUse
from backlane.middleware import compose, drive
from backlane.model.codec import decode_headers

Wrap = Callable[[Call, Next], Awaitable[Any]]


def greet(name: str) -> str:
    return name


def app_with(*wraps: Wrap, max_jobs: int = 100_000) -> Backlane:
    return Backlane(
        "memory://",
        queues=[Queue("mail", max_jobs=max_jobs)],
        middleware=[Middleware(enqueue=wrap) for wrap in wraps],
    )


def noting(notes: list[str], name: str) -> Wrap:
    """Return a middleware that notes when it is entered and how it is left."""

    async def wrap(call: Call, following: Next) -> Any:
        notes.append(f"{name} in")
        try:
            return await following(call)
        except Exception as error:
            notes.append(f"{name} {type(error).__name__}")
            raise
        finally:
            notes.append(f"{name} out")

    return wrap


async def traced(call: Call, following: Next) -> Any:
    return await following(call.with_headers({"trace": f"t-{call.args[0]}"}))


async def sleeping(call: Call, following: Next) -> Any:
    await asyncio.sleep(0)
    return await following(call)


async def skipping(call: Call, following: Next) -> Any:
    return None


async def shouting(call: Call, following: Next) -> Any:
    return (await following(call)).upper()


async def named(call: Call) -> str:
    return call.args[0]


CALL = Call(task="greet", queue="mail", args=("ada",), kwargs={})


# -- composing --


def test_without_middleware_the_last_step_is_all_there_is():
    assert compose((), named) is named


def test_the_first_middleware_is_the_outermost():
    notes: list[str] = []

    value = drive(compose((noting(notes, "a"), noting(notes, "b")), named)(CALL))

    assert value == "ada"
    assert notes == ["a in", "b in", "b out", "a out"]


def test_a_middleware_may_change_what_comes_back():
    assert drive(compose((shouting,), named)(CALL)) == "ADA"


def test_a_composed_call_may_be_awaited_where_waiting_is_possible():
    assert asyncio.run(awaited(compose((sleeping, shouting), named))) == "ADA"


async def awaited(composed: Next) -> Any:
    return await composed(CALL)


def test_a_wait_where_nothing_can_wait_is_refused_with_the_ways_out():
    with pytest.raises(WrongUse, match="aenqueue"):
        drive(compose((sleeping,), named)(CALL))


# -- around one enqueue --


@pytest.mark.parametrize("is_async", [False, True])
def test_a_header_that_a_middleware_adds_travels_with_the_job(is_async):
    app = app_with(traced)
    task = app.task(queue="mail")(greet).using(headers={"a": "1"})

    job = asyncio.run(task.aenqueue("ada")) if is_async else task.enqueue("ada")

    assert decode_headers(job.record().headers) == {"a": "1", "trace": "t-ada"}


def test_a_refusal_passes_through_the_middleware():
    notes: list[str] = []
    app = app_with(noting(notes, "a"), max_jobs=1)
    task = app.task(queue="mail")(greet)
    task.enqueue("ada")
    notes.clear()

    with pytest.raises(QueueFull):
        task.enqueue("eve")

    assert notes == ["a in", "a QueueFull", "a out"]


def test_a_middleware_that_waits_is_refused_in_enqueue_and_works_in_aenqueue():
    app = app_with(sleeping)
    task = app.task(queue="mail")(greet)

    with pytest.raises(WrongUse):
        task.enqueue("ada")

    assert asyncio.run(task.aenqueue("ada")).state == "ready"


def test_a_middleware_that_does_not_call_next_stores_nothing():
    app = app_with(skipping)

    assert app.task(queue="mail")(greet).enqueue("ada") is None
    assert take(app, "mail") == []


# -- around many --


@pytest.mark.parametrize("is_async", [False, True])
def test_each_call_of_a_bulk_passes_through_the_middleware(is_async):
    app = app_with(traced)
    task = app.task(queue="mail")(greet)
    calls = [((str(i),), {}) for i in range(1_001)]

    jobs = asyncio.run(task.aenqueue_many(calls)) if is_async else task.enqueue_many(calls)

    headers = [decode_headers(lease.headers) for lease in take(app, "mail", number=2_000)]
    assert headers == [{"trace": f"t-{i}"} for i in range(1_001)]
    assert len({job.id for job in jobs}) == 1_001


def test_a_refused_bulk_is_told_to_each_of_its_calls_inside_their_middleware():
    notes: list[str] = []
    app = app_with(noting(notes, "a"), max_jobs=1)
    task = app.task(queue="mail")(greet)

    with pytest.raises(QueueFull):
        task.enqueue_many([(("ada",), {}), (("eve",), {})])

    assert notes == ["a in", "a in", "a QueueFull", "a out", "a QueueFull", "a out"]


def test_a_bulk_whose_middleware_waits_is_refused_and_nothing_is_stored():
    app = app_with(sleeping)
    task = app.task(queue="mail")(greet)

    with pytest.raises(WrongUse, match="in a bulk"):
        asyncio.run(task.aenqueue_many([(("ada",), {})]))

    assert take(app, "mail") == []


def test_a_bulk_whose_middleware_skips_a_call_is_refused():
    app = app_with(skipping)

    with pytest.raises(WrongUse, match="every call must reach it"):
        app.task(queue="mail")(greet).enqueue_many([(("ada",), {})])


def test_an_error_behind_next_does_not_keep_the_other_calls_from_their_ends():
    notes: list[str] = []

    async def fragile(call: Call, following: Next) -> Any:
        job = await following(call)
        if call.args[0] == "ada":
            raise OSError("after the store")
        return job

    app = app_with(noting(notes, "a"), fragile)
    task = app.task(queue="mail")(greet)

    with pytest.raises(OSError, match="after the store"):
        task.enqueue_many([(("ada",), {}), (("eve",), {})])

    assert notes.count("a out") == 2
    assert len(take(app, "mail", number=3)) == 2
