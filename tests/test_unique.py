"""Uniqueness: which calls of a task are one job, on every engine, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.hand import fail, only, succeed, take

from backlane import Backlane, BadOption, Duplicate, State, Unique, UnknownOption
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Capability
from backlane.model.job import KeyRule
from backlane.testing import testing

NEWEST = Unique(until="started", on_conflict="replace")


@pytest.fixture
def app(every_url: str) -> Iterator[Backlane]:
    with Backlane(every_url) as app:
        yield app


def welcome(user_id: int, template: str = "hi", *, urgent: bool = False) -> int:
    return user_id


def declared(app: Backlane, unique: Unique | None = None, **options: Any) -> Any:
    return app.task(name="welcome", unique=unique or Unique(), **options)(welcome)


# -- what is the same --


def test_the_same_arguments_are_the_same_job(app: Backlane) -> None:
    task = declared(app)

    first = task.enqueue(7)
    same = [task.enqueue(user_id=7), task.enqueue(7, "hi"), task.enqueue(7, urgent=False)]
    other = [task.enqueue(8), task.enqueue(7, "bye"), task.enqueue(7, urgent=True)]

    assert {job.id for job in same} == {first.id}
    assert len({first.id, *(job.id for job in other)}) == 4
    assert (first.is_new, same[0].is_new) == (True, False)


def test_a_template_says_which_arguments_count(app: Backlane) -> None:
    task = declared(app, Unique(key="welcome:{user_id}:{urgent}"))

    first = task.enqueue(7)
    key = first.record().key

    assert task.enqueue(7, "bye").id == first.id
    assert task.enqueue(7, urgent=True).id != first.id
    assert key is not None
    assert (key.scope, key.name) == ("welcome", "welcome:7:false")


def test_a_key_that_is_given_goes_before_the_arguments(app: Backlane) -> None:
    task = declared(app)

    assert task.using(key="a").enqueue(7).id == task.using(key="a").enqueue(8).id
    assert task.using(key="b").enqueue(7).is_new


def test_uniqueness_can_be_said_at_the_enqueue(app: Backlane) -> None:
    task = app.task(name="welcome")(welcome)
    how = task.using(unique=Unique(until="succeeded", key="{user_id}"))

    first = how.enqueue(7)
    assert task.enqueue(7).is_new
    assert how.enqueue(7, "bye").id == first.id


def test_a_task_can_be_enqueued_as_if_it_were_not_unique(app: Backlane) -> None:
    task = declared(app, Unique(on_conflict="debounce", wait=60))
    task.enqueue(7)

    free = task.using(unique=None).enqueue(7)

    assert free.is_new
    assert (free.record().key, free.state) == (None, State.READY)


def test_many_at_once_are_told_apart_too(app: Backlane) -> None:
    task = declared(app, Unique(key="{user_id}"))

    jobs = task.enqueue_many([((number % 3,), {}) for number in range(9)])

    assert len({job.id for job in jobs}) == 3
    assert [job.is_new for job in jobs] == [True] * 3 + [False] * 6


def test_long_keys_are_told_apart_by_all_of_them(app: Backlane) -> None:
    task = app.task(name="say", unique=Unique(key="{text}"))(say)

    first, second = task.enqueue("x" * 5_000), task.enqueue("x" * 5_000 + "y")

    assert first.id != second.id
    assert task.enqueue("x" * 5_000).id == first.id


def say(text: str) -> None: ...


def test_odd_arguments_make_keys(app: Backlane) -> None:
    task = app.task(name="say", unique=Unique(key="{text}"))(say)

    for text in ("", "{text}", "Ü\n\x00", "%s", "' or 1=1 --"):
        first = task.enqueue("<" + text)
        assert task.enqueue("<" + text).id == first.id


# -- for how long, and what then --


def test_until_started(app: Backlane) -> None:
    task = declared(app, Unique(until="started"))
    first = task.enqueue(7)

    only(take(app))

    assert task.enqueue(7).id != first.id


def test_until_finished_is_what_is_meant_without_a_word(app: Backlane) -> None:
    task = declared(app)
    first = task.enqueue(7)
    fail(app)

    assert task.enqueue(7).id != first.id


def test_until_succeeded_is_kept_by_a_dead_letter(app: Backlane) -> None:
    task = declared(app, Unique(until="succeeded"))
    first = task.enqueue(7)
    fail(app)

    assert task.enqueue(7).id == first.id


def test_a_window_is_kept_whatever_becomes_of_the_job(app: Backlane) -> None:
    task = declared(app, Unique(window=timedelta(hours=1)))
    first = task.enqueue(7)
    succeed(app, 7)

    assert task.enqueue(7).id == first.id


def test_raise_names_the_job(app: Backlane) -> None:
    task = declared(app, Unique(on_conflict="raise"))
    first = task.enqueue(7)

    with pytest.raises(Duplicate, match=str(first.id)) as caught:
        task.enqueue(7)
    with pytest.raises(Duplicate):
        task.enqueue_many([((8,), {}), ((7,), {})])

    assert caught.value.first == first.id
    assert isinstance(caught.value.first, uuid.UUID)
    assert task.enqueue(8).is_new


def test_replace_lets_the_newest_arguments_win(app: Backlane) -> None:
    task = declared(app, Unique(on_conflict="replace", key="{user_id}"))
    first = task.enqueue(7, "old")

    second = task.enqueue(7, "new")

    assert (second.id, second.is_new, second.receipt.replaced) == (first.id, False, True)
    lease = only(take(app))
    assert task.codec.decode_arguments(lease.body) == ((7, "new"), {"urgent": False})


def test_debounce_waits_for_the_last_call(app: Backlane) -> None:
    task = declared(app, Unique(on_conflict="debounce", wait=60, max_wait=600, key="{user_id}"))

    first, second = task.enqueue(7, "old"), task.enqueue(7, "new")

    assert first.id == second.id
    assert take(app) == []
    record = first.record()
    assert record.due_ms is not None
    assert record.due_ms >= record.enqueued_ms + 60_000


def test_debounce_runs_once_after_the_last_call() -> None:
    app = Backlane("memory://")
    task = declared(app, Unique(on_conflict="debounce", wait=5, max_wait=20, key="{user_id}"))

    with testing(app) as t:
        for number in range(4):
            task.enqueue(7, str(number))
            assert t.advance(seconds=4) == []
        assert [it.job.record().body for it in t.advance(seconds=1)] == [
            b'{"user_id":7,"template":"3","urgent":false}'
        ]
        for number in range(10):
            task.enqueue(7, str(number))
            t.advance(seconds=4)
        assert len(t.jobs(task)) == 3  # the second was put off for 20 s, and no longer


# -- what is refused, with the reason --


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"until": "done"}, "use one of 'started'"),
        ({"until": True}, "use one of 'started'"),
        ({"on_conflict": "ignore"}, "use one of 'existing'"),
        ({"on_conflict": None}, "use one of 'existing'"),
        ({"on_conflict": "replace", "until": "finished"}, "newest arguments would be dropped"),
        ({"on_conflict": "replace", "until": "succeeded"}, "newest arguments would be dropped"),
        ({"on_conflict": "replace", "window": 60}, "newest arguments would be dropped"),
        ({"on_conflict": "debounce", "until": "finished", "wait": 5}, "would be dropped"),
        ({"on_conflict": "debounce"}, "say how long after the latest call"),
        ({"on_conflict": "debounce", "wait": 0}, "say how long after the latest call"),
        ({"on_conflict": "debounce", "wait": 5, "max_wait": 3}, "shorter than wait"),
        ({"on_conflict": "debounce", "wait": -5}, "use a duration"),
        ({"wait": 5}, "goes with on_conflict='debounce'"),
        ({"on_conflict": "replace", "max_wait": 5}, "goes with on_conflict='debounce'"),
        ({"window": 0}, "nothing could be the same"),
        ({"window": -1}, "use a duration"),
        ({"window": float("nan")}, "use a duration"),
        ({"window": "1h"}, "use a timedelta"),
        ({"window": 60, "until": "started"}, "both say how long"),
        ({"key": ""}, "use a template"),
        ({"key": 7}, "use a template"),
        ({"key": "a{b"}, "cannot be read"),
        ({"key": "{}"}, "the name of an argument and nothing else"),
        ({"key": "{0}"}, "the name of an argument and nothing else"),
        ({"key": "{user_id!r}"}, "the name of an argument and nothing else"),
        ({"key": "{user_id:>9}"}, "the name of an argument and nothing else"),
        ({"key": "{user_id.__class__}"}, "the name of an argument and nothing else"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(options: dict[str, Any], why: str) -> None:
    with pytest.raises(BadOption, match=why):
        Unique(**options)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownOption, match="did you mean 'window'"):
        Unique(windwo=5)  # type: ignore[call-arg]


def test_a_template_of_no_argument_is_refused_where_it_is_declared() -> None:
    app = Backlane("memory://")
    with pytest.raises(BadOption, match="did you mean 'user_id'"):
        declared(app, Unique(key="{user}"))
    task = app.task(name="welcome")(welcome)
    with pytest.raises(BadOption, match="which is no argument"):
        task.using(unique=Unique(key="{nobody}"))


@pytest.mark.parametrize("unique", ["started", True, {"until": "started"}, KeyRule()])
def test_what_is_no_unique_is_refused(unique: Any) -> None:
    app = Backlane("memory://")
    with pytest.raises(BadOption, match="use Unique"):
        app.task(name="a", unique=unique)(welcome)
    with pytest.raises(BadOption, match="use Unique"):
        app.task(name="b")(welcome).using(unique=unique)


def test_a_job_that_debounce_would_let_expire_is_refused() -> None:
    app = Backlane("memory://")
    endless = Unique(on_conflict="debounce", wait=5)
    for unique in (endless, Unique(on_conflict="debounce", wait=5, max_wait=60)):
        with pytest.raises(BadOption, match="it would never run"):
            declared(app, unique, expires=30)
    task = declared(app, endless)
    with pytest.raises(BadOption, match="it would never run"):
        task.using(expires=30)
    fine = Unique(on_conflict="debounce", wait=5, max_wait=20)
    assert task.using(unique=fine, expires=30) is not None


def test_an_engine_without_keys_refuses_it_with_the_remedy() -> None:
    app = Backlane("memory://")
    engine = MemoryEngine()
    engine.capabilities = engine.capabilities - {Capability.KEYS}

    with app.replaced(engine, app.clock):
        with pytest.raises(Exception, match="lacks KEYS; use one that can"):
            declared(app)
        with pytest.raises(Exception, match="lacks KEYS"):
            app.task(name="free")(welcome).using(unique=NEWEST)


def test_rules_say_what_they_mean() -> None:
    assert NEWEST.rule == KeyRule("started", None, "replace", None)
    assert Unique(on_conflict="replace").rule == NEWEST.rule
    assert Unique(window=5).rule == KeyRule("finished", 5_000)
    debounce = Unique(on_conflict="debounce", wait=5, max_wait=60)
    assert debounce.rule == KeyRule("started", None, "debounce", 60_000)
