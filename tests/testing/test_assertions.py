"""assert_enqueued and jobs: what a test sees, and what it is told when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from backlane import Backlane, BadOption, Context, State
from backlane.testing import testing


@dataclass
class Point:
    x: int
    y: int = 0


@pytest.fixture
def send(app: Backlane):
    @app.task(name="send", queue="mail")
    def send(user_id: int, template: str = "hi", *, copy: bool = False) -> None: ...

    return send


def test_a_call_is_found_by_any_of_its_arguments(app: Backlane, send) -> None:
    with testing(app) as t:
        job = send.enqueue(7, template="welcome")

        for found in (
            t.assert_enqueued(send),
            t.assert_enqueued(send, 7),
            t.assert_enqueued(send, user_id=7),
            t.assert_enqueued(send, template="welcome"),
            t.assert_enqueued(send, 7, "welcome", copy=False),
        ):
            assert found.job == job


def test_a_sighting_shows_the_whole_call_and_its_job(app: Backlane, send) -> None:
    with testing(app) as t:
        send.using(priority=9, delay=60).enqueue(7)
        sighting = t.assert_enqueued(send)

        assert sighting.arguments == {"user_id": 7, "template": "hi", "copy": False}
        assert (sighting.task, sighting.queue, sighting.state) == ("send", "mail", State.SCHEDULED)
        assert sighting.record.priority == 9
        assert str(sighting) == "send(user_id=7, template='hi', copy=False) in 'mail', scheduled"


def test_a_job_that_ran_already_was_enqueued(app: Backlane, send) -> None:
    with testing(app) as t:
        send.enqueue(7)
        t.drain()

        assert t.assert_enqueued(send, 7).state is State.SUCCEEDED


def test_the_newest_of_many_is_returned(app: Backlane, send) -> None:
    with testing(app) as t:
        send.enqueue(7, "first")
        newest = send.enqueue(7, "second")

        assert t.assert_enqueued(send, 7).job == newest


def test_a_failed_assertion_lists_what_was_enqueued_instead(app: Backlane, send) -> None:
    @app.task(name="resize")
    def resize(path: str) -> None: ...

    with testing(app) as t:
        send.enqueue(8)
        resize.enqueue("a.png")

        with pytest.raises(AssertionError) as failure:
            t.assert_enqueued(send, 7)

    assert str(failure.value).splitlines() == [
        "no send(user_id=7, ...) was enqueued; enqueued were:",
        "  send(user_id=8, template='hi', copy=False) in 'mail', ready",
        "  resize(path='a.png') in 'default', ready",
    ]


def test_a_failed_assertion_says_that_nothing_was_enqueued(app: Backlane, send) -> None:
    with testing(app) as t, pytest.raises(AssertionError, match="nothing was enqueued"):
        t.assert_enqueued(send)


def test_a_long_list_is_cut_to_the_newest(app: Backlane) -> None:
    @app.task(name="note")
    def note(n: int) -> None: ...

    with testing(app) as t:
        for n in range(30):
            note.enqueue(n)
        with pytest.raises(AssertionError, match="… 10 before") as failure:
            t.assert_enqueued(note, 99)

    assert "note(n=29)" in str(failure.value)
    assert "note(n=9)" not in str(failure.value)


def test_the_absence_of_a_call_is_asserted(app: Backlane, send) -> None:
    with testing(app) as t:
        send.enqueue(7)

        t.assert_not_enqueued(send, 8)
        with pytest.raises(AssertionError) as failure:
            t.assert_not_enqueued(send, 7)

    assert "send(user_id=7, ...) was enqueued once; enqueued were:" in str(failure.value)


def test_arguments_no_call_can_have_are_a_mistake_of_the_test(app: Backlane, send) -> None:
    with testing(app) as t:
        with pytest.raises(BadOption, match="no call of send"):
            t.assert_enqueued(send, usr_id=7)
        with pytest.raises(BadOption, match="no call of send"):
            t.assert_not_enqueued(send, 1, "x", 3)


def test_arguments_are_compared_as_the_function_gets_them(app: Backlane) -> None:
    @app.task(name="plot")
    def plot(context: Context, point: Point, at: datetime, *tags: str, **extra: int) -> None: ...

    at = datetime(2030, 5, 1, 12, tzinfo=UTC)
    with testing(app) as t:
        plot.enqueue(Point(1), at, "a", "b", depth=3)

        t.assert_enqueued(plot, Point(1, 0), at, "a", "b", depth=3)
        t.assert_enqueued(plot, depth=3)
        t.assert_not_enqueued(plot, Point(1, 1))
        t.assert_not_enqueued(plot, depth=4)


def test_jobs_are_listed_in_the_order_they_were_enqueued(app: Backlane, send) -> None:
    @app.task(name="resize")
    def resize(path: str) -> None: ...

    with testing(app) as t:
        send.enqueue(1)
        resize.enqueue("a")
        send.enqueue(2)

        assert [one.task for one in t.jobs()] == ["send", "resize", "send"]
        assert [one.arguments["user_id"] for one in t.jobs(send)] == [1, 2]


def test_messages_are_not_jobs_of_tasks(app: Backlane, send) -> None:
    with testing(app) as t:
        app.messages("orders").send(b"\xff")
        send.enqueue(1)

        assert [one.task for one in t.jobs()] == ["send"]


def test_many_jobs_are_all_listed(app: Backlane) -> None:
    @app.task(name="note")
    def note(n: int) -> None: ...

    with testing(app) as t:
        note.enqueue_many(((n,), {}) for n in range(2_500))

        assert [one.arguments["n"] for one in t.jobs(note)] == list(range(2_500))
