"""Delivery: tried again when it helps, when it was told to, and for so long."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.scripted import (
    BROKEN,
    NOT_CONNECTED,
    START,
    Script,
    declined,
    full,
    job,
)

from backlane.client.step import Answer
from backlane.errors import (
    BadArguments,
    BadOption,
    EngineUnavailable,
    Forbidden,
    GatewayRefused,
    GatewayUnavailable,
    KeyReused,
    OutcomeUnknown,
    QueueFull,
    Unauthorized,
    UnknownOption,
    UnknownTask,
)

ID = uuid.UUID("01900000-0000-7000-8000-00000000000a")


def submit(script, arguments=None, **options):
    return script.run(script.core.submit("shop.resize", arguments or {}, options))


# -- told when --


def test_a_caller_who_is_told_when_comes_then_with_the_ticket_and_the_same_id():
    script = Script(full(3.2, "first"), full(5.0, "second"), job())

    submitted = submit(script, {"path": "cat.png"})

    bodies = [json.loads(request.body) for request in script.sent]
    tickets = [request.headers.get("Backlane-Ticket") for request in script.sent]
    assert tickets == [None, "first", "second"]
    assert len({body["id"] for body in bodies}) == 1
    assert bodies[0]["arguments"] == {"path": "cat.png"}
    assert 3.2 <= script.slept[0] <= 3.2 * 1.1
    assert 5.0 <= script.slept[1] <= 5.0 * 1.1
    assert submitted.pressure == 0.42


def test_a_ticket_is_kept_through_a_broken_connection():
    script = Script(full(3.0, "mine"), BROKEN, job())

    submit(script)

    assert [request.headers.get("Backlane-Ticket") for request in script.sent] == [
        None,
        "mine",
        "mine",
    ]


def test_whoever_was_told_when_is_not_starved_by_the_budget():
    """Twenty calls of one client, each refused twice with a time: none waits any longer."""
    script = Script(job())
    for _ in range(20):
        script._replies = [full(2.0, "t"), full(2.0, "t"), job()]
        began = script.now
        submit(script)

        assert script.now - began <= 4.4


def test_a_time_beyond_the_deadline_is_told_at_once_and_whole():
    script = Script(full(90.0, "later", depth=7, estimated_wait=timedelta(seconds=80)))

    with pytest.raises(QueueFull) as caught:
        submit(script)

    full_queue = caught.value
    assert script.slept == []
    assert (full_queue.queue, full_queue.limit) == ("mail", "jobs")
    assert (full_queue.depth, full_queue.bound) == (7, 9)
    assert full_queue.retry_after == timedelta(seconds=90)
    assert full_queue.estimated_wait == timedelta(seconds=80)
    assert full_queue.ticket == "later"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": format_datetime(START + timedelta(seconds=9), usegmt=True)}, 9.0),
        (
            {
                "retry-after": format_datetime(START + timedelta(hours=1, seconds=4), usegmt=True),
                "date": format_datetime(START + timedelta(hours=1), usegmt=True),
            },
            4.0,
        ),
    ],
    ids=["seconds", "a date", "a date of a server whose clock is ahead"],
)
def test_a_time_is_obeyed_however_it_is_spelt(headers, seconds):
    script = Script(Answer(503, headers), job())

    submit(script)

    assert seconds <= script.slept[0] <= seconds * 1.1 + 0.01


@pytest.mark.parametrize("spelt", ["-1", "soon", "", "٣", "Fri, 31 Foo 2030 99:00:00 GMT"])
def test_a_time_that_makes_no_sense_counts_as_none(spelt):
    script = Script(Answer(503, {"retry-after": spelt}), job())

    submit(script)

    assert script.slept[0] <= 0.25


# -- not told --


def test_where_nothing_is_known_the_wait_is_what_was_said_and_a_jittered_part():
    script = Script(full(None), full(None), job())

    submit(script)

    assert 5.0 <= script.slept[0] <= 5.5 + 0.25
    assert 5.0 <= script.slept[1] <= 5.5 + 0.5


@pytest.mark.parametrize("failure", [NOT_CONNECTED, BROKEN, Answer(502), Answer(500)])
def test_what_may_pass_is_tried_again_with_the_same_id(failure):
    script = Script(failure, failure, job())

    submit(script)

    assert len({json.loads(request.body)["id"] for request in script.sent}) == 1
    assert len(script.slept) == 2
    assert script.slept[0] <= 0.25
    assert script.slept[1] <= 0.5


@given(
    failures=st.lists(
        st.sampled_from([NOT_CONNECTED, BROKEN, Answer(503), full(None), full(4.0, "t")]),
        min_size=1,
        max_size=30,
    ),
    deadline=st.floats(min_value=0.5, max_value=90),
    seconds=st.floats(min_value=0, max_value=0.4),
)
def test_no_call_outlives_its_deadline(failures, deadline, seconds):
    script = Script(*failures, seconds=seconds, deadline=deadline)

    with pytest.raises((GatewayUnavailable, OutcomeUnknown, QueueFull)):
        submit(script)

    assert script.passed <= deadline + seconds + 0.01


def test_a_call_uses_its_deadline_up_to_the_end():
    script = Script(NOT_CONNECTED, deadline=60.0)

    with pytest.raises(GatewayUnavailable, match="refused"):
        submit(script)

    assert script.passed > 30
    assert len(script.sent) >= 5


def test_the_most_tries_can_be_given():
    script = Script(NOT_CONNECTED, attempts=3)

    with pytest.raises(GatewayUnavailable):
        submit(script)

    assert len(script.sent) == 3


def test_many_calls_together_keep_the_retry_budget():
    """A hundred calls that all fail send 100 first tries, 10 retries at once and 1 a second."""
    script = Script(NOT_CONNECTED, deadline=1.0)
    for _ in range(100):
        with pytest.raises(GatewayUnavailable):
            submit(script)

    sent_again = len(script.sent) - 100
    assert sent_again <= 10 + 0.1 * 100 + script.passed


def test_a_gateway_that_answers_nothing_is_asked_about_once_a_second():
    script = Script(NOT_CONNECTED, deadline=0.2, attempts=1)
    for _ in range(600):
        with pytest.raises(GatewayUnavailable):
            submit(script)
        script.now += 0.1

    assert len(script.sent) <= 80


def test_an_answer_that_will_not_change_is_not_tried_again():
    script = Script(declined(404, "unknown-task"))

    with pytest.raises(UnknownTask):
        submit(script)

    assert len(script.sent) == 1


# -- in doubt --


def test_a_lost_answer_leaves_the_job_in_doubt_under_its_id():
    script = Script(BROKEN, NOT_CONNECTED, deadline=2.0)

    with pytest.raises(OutcomeUnknown) as caught:
        submit(script, id=ID)

    assert caught.value.jobs == (ID,)


def test_a_refusal_behind_a_lost_answer_leaves_it_in_doubt():
    """The door refuses without looking whether the job is there already."""
    script = Script(BROKEN, full(90.0, "t"))

    with pytest.raises(OutcomeUnknown, match="90"):
        submit(script)


def test_what_was_never_sent_is_not_in_doubt():
    script = Script(NOT_CONNECTED, Answer(503), deadline=2.0)

    with pytest.raises(GatewayUnavailable):
        submit(script)


def test_a_store_that_is_away_is_told_as_such():
    script = Script(declined(503, "unavailable"), deadline=2.0)

    with pytest.raises(EngineUnavailable):
        submit(script)


# -- what answers mean --


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (declined(422, "key-reused"), KeyReused),
        (declined(401, "unauthorized"), Unauthorized),
        (declined(403, "forbidden"), Forbidden),
        (Answer(401, {}, b"who are you"), Unauthorized),
        (Answer(404, {"content-type": "text/html"}, b"<h1>nginx"), GatewayRefused),
        (Answer(418, {"content-type": "application/problem+json"}, b"[" * 100_000), GatewayRefused),
        (Answer(307, {"location": "https://elsewhere/"}), GatewayRefused),
        (Answer(200, {}, b"<html>"), GatewayRefused),
    ],
)
def test_an_answer_becomes_the_error_it_means(answer, error):
    with pytest.raises(error):
        submit(Script(answer))


def test_arguments_that_do_not_fit_are_told_field_by_field():
    errors = [{"pointer": "/arguments/user_id", "detail": "expected int"}]

    with pytest.raises(BadArguments) as caught:
        submit(Script(declined(422, "invalid-arguments", errors=errors)))

    assert caught.value.errors == (("/arguments/user_id", "expected int"),)
    assert "/arguments/user_id: expected int" in str(caught.value)


def test_what_never_fits_is_raised_and_not_waited_for():
    with pytest.raises(QueueFull) as caught:
        submit(Script(full(None, limit="bytes", can_fit=False)))

    assert not caught.value.can_fit


@given(body=st.binary(max_size=200), status=st.integers(200, 599))
def test_no_answer_makes_anything_but_our_errors(body, status):
    headers = {"content-type": "application/problem+json"}
    script = Script(Answer(status, headers, body), attempts=1)

    with pytest.raises((GatewayRefused, GatewayUnavailable, OutcomeUnknown, Exception)) as caught:
        submit(script)

    assert type(caught.value).__module__ == "backlane.errors"


# -- what is sent --


def test_options_travel_with_the_submission():
    script = Script(job())

    submit(
        script,
        {"n": 1},
        id=ID,
        queue="mail",
        delay=timedelta(minutes=1),
        priority=7,
        key="welcome:7",
        group="tenant",
        headers={"trace": "x"},
        idempotency_key="once",
        wait=4.2,
    )

    [request] = script.sent
    assert (request.method, request.path) == ("POST", "/v1/tasks/shop.resize/jobs")
    assert json.loads(request.body) == {
        "arguments": {"n": 1},
        "id": str(ID),
        "queue": "mail",
        "delay": 60.0,
        "priority": 7,
        "key": "welcome:7",
        "group": "tenant",
        "headers": {"trace": "x"},
    }
    assert request.headers["Idempotency-Key"] == "once"
    assert request.headers["Prefer"] == "respond-async, wait=5"


def test_a_moment_is_sent_with_its_time_zone():
    script = Script(job())

    submit(script, at=START)

    assert json.loads(script.sent[0].body)["at"] == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prioritty": 1}, UnknownOption),
        ({"at": START.replace(tzinfo=None)}, BadOption),
        ({"id": "seven"}, BadOption),
        ({"delay": -1}, BadOption),
        ({"ticket": "a\nb"}, BadOption),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(options, error):
    script = Script(job())

    with pytest.raises(error):
        submit(script, **options)

    assert script.sent == []


def test_a_message_is_sent_again_under_the_same_key():
    script = Script(BROKEN, Answer(202, {}, b'{"id": "%s"}' % str(ID).encode()))

    sent = script.run(script.core.send("orders", b"one", {"delay": 5}))

    keys = [request.headers["Idempotency-Key"] for request in script.sent]
    assert sent == ID
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert script.sent[0].params == (("delay", "5.000"),)
