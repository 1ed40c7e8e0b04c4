"""Tasks: what may become one, and what their options come to."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from datetime import timedelta
from typing import Any

import pytest

import backlane
from backlane import (
    Backlane,
    BadOption,
    Context,
    Queue,
    Retry,
    UnknownOption,
)
from backlane.model.job import Lane
from backlane.model.retry import DEFAULT_RETRY

HOUR_MS = 3_600_000


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def greet(name: str, *, loud: bool = False) -> str:
    """Say hello."""
    return name.upper() if loud else name


async def agreet(name: str) -> str:
    return name


def reported(context: Context, name: str) -> str:
    context.progress(0.5)
    return f"{name} {context.attempt}"


# -- calling --


def test_a_direct_call_runs_the_function_unchanged(app):
    task = app.task(greet)

    assert task("ada", loud=True) == "ADA"


def test_a_direct_call_of_an_async_task_returns_its_coroutine(app):
    task = app.task(agreet)

    assert asyncio.run(task("ada")) == "ada"


def test_a_direct_call_gives_a_detached_context(app):
    task = app.task(reported)

    assert task("ada") == "ada 1"


def test_a_task_looks_like_its_function(app):
    task = app.task(greet)

    assert (task.__name__, task.__doc__) == ("greet", "Say hello.")
    assert inspect.signature(task) == inspect.signature(greet)


# -- what may become a task --


class Shop:
    def sell(self, item: str) -> str:
        return item


def numbers():
    yield 1


async def anumbers():
    yield 1


@functools.wraps(agreet)
def wrapped_agreet(name: str) -> Any:
    return agreet(name)


def late(name: str, context: Context) -> None: ...


def by_name_only(*, context: Context) -> None: ...
def gathered(*contexts: Context) -> None: ...


def nested_functions() -> Any:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param(lambda: 1, "a lambda has no name", id="lambda"),
        pytest.param(Shop.sell, "is a method", id="method"),
        pytest.param(Shop().sell, "is a bound method", id="bound method"),
        pytest.param(Shop, "is not a function", id="class"),
        pytest.param(functools.partial(greet, "x"), "is not a function", id="partial"),
        pytest.param(len, "is not a function", id="builtin"),
        pytest.param("greet", "is not a function", id="text"),
        pytest.param(numbers, "is a generator", id="generator"),
        pytest.param(anumbers, "is a generator", id="async generator"),
        pytest.param(nested_functions(), r"nested in another.*name='inner'", id="nested"),
        pytest.param(wrapped_agreet, "async inside a plain wrapper", id="hidden coroutine"),
        pytest.param(late, "parameter 'context'; it is the first", id="late context"),
        pytest.param(by_name_only, "it is the first", id="context by name only"),
        pytest.param(gathered, "it is the first", id="gathered contexts"),
    ],
)
def test_what_a_worker_could_not_run_is_refused_with_the_reason(app, function, reason):
    with pytest.raises(BadOption, match=reason):
        app.task(function)


def test_a_nested_function_with_a_name_of_its_own_is_a_task(app):
    task = app.task(name="inner")(nested_functions())

    assert app.tasks["inner"] is task


def test_a_task_of_a_file_that_is_run_has_the_name_that_a_worker_finds_it_by(app, monkeypatch):
    monkeypatch.setattr(greet, "__module__", "__main__")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", "/home/me/shop.py", raising=False)  # xdist has none

    assert app.task(greet).name == "shop.greet"


def aliased(job: Context, name: str) -> None: ...
def dotted(context: backlane.Context, name: str) -> None: ...
def twice_dotted(context: backlane.context.Context, name: str) -> None: ...


@pytest.mark.parametrize("function", [aliased, dotted, twice_dotted])
def test_a_context_is_known_by_its_type_however_it_is_written(app, function):
    assert app.task(function).takes_context


# -- options --


def test_a_bare_task_has_the_defaults(app):
    task = app.task(greet)

    assert (task.queue, task.is_async, task.runs_in, task.lane) == (
        "default",
        False,
        "thread",
        Lane.SHARED,
    )
    assert (task.retry, task.keeps_result, task.takes_context) == (DEFAULT_RETRY, True, False)
    assert (task.policy.attempts, task.policy.soft_ms, task.policy.hard_ms) == (10, None, None)


@pytest.mark.parametrize(
    ("timeout", "soft_ms", "hard_ms"),
    [(30, 30_000, 35_000), ((1.5, 2), 1_500, 2_000), (timedelta(minutes=1), 60_000, 65_000)],
)
def test_a_timeout_has_a_soft_and_a_hard_end(app, timeout, soft_ms, hard_ms):
    task = app.task(timeout=timeout)(greet)

    assert (task.policy.soft_ms, task.policy.hard_ms) == (soft_ms, hard_ms)


def test_a_retry_is_copied_into_the_policy(app):
    retry = Retry(attempts=3, base=2, cap=60, on=(ValueError,))

    task = app.task(retry=retry)(greet)

    policy = task.policy
    assert (policy.attempts, policy.base_ms, policy.cap_ms) == (3, 2_000, 60_000)
    assert not policy.retries_timeout


def test_an_async_task_runs_in_the_loop_whatever_its_queue_says():
    app = Backlane("memory://", queues=[Queue("video", runs_in="process")])

    task, plain = app.task(queue="video")(agreet), app.task(queue="video")(greet)

    assert (task.runs_in, plain.runs_in) == ("loop", "process")
    assert (task.lane, plain.lane) == (Lane.SHARED, Lane.EXCLUSIVE)


def test_a_task_says_where_it_runs_before_its_queue_does():
    app = Backlane("memory://", queues=[Queue("video", runs_in="process")])

    assert app.task(queue="video", runs_in="thread")(greet).runs_in == "thread"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 10}, "priority is 10"),
        ({"priority": True}, "priority is True"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"timeout": (5, 1)}, "not before the soft one"),
        ({"timeout": (1, 2, 3)}, "seconds or"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"retry": 3}, r"use Retry\(attempts"),
        ({"expires": -1}, "expires is -1"),
        ({"expires": 0}, "would never run"),
        ({"runs_in": "thread"}, "is async"),
        ({"runs_in": "fiber"}, "'loop', 'thread' or 'process'"),
        ({"keep_result": 1}, "True or False"),
        ({"name": "two words"}, "cannot name a task"),
        ({"name": ""}, "cannot name a task"),
        ({"queue": "two words"}, "cannot name a queue"),
    ],
)
def test_an_option_that_cannot_work_is_refused_where_it_is_written(app, options, message):
    with pytest.raises(BadOption, match=message):
        app.task(**options)(agreet)

    assert app.tasks == {}


def test_an_unknown_option_is_refused_with_the_nearest_one(app):
    with pytest.raises(UnknownOption, match=r"'retries' .*did you mean 'retry'"):
        app.task(retries=3)


def test_an_unknown_option_of_an_enqueue_is_refused_with_the_nearest_one(app):
    task = app.task(greet)

    with pytest.raises(UnknownOption, match=r"'dealy' .*did you mean 'delay'"):
        task.using(dealy=3)
