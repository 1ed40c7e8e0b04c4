"""Results: asked for in long polls, and told as in the application's own process."""

from __future__ import annotations

import uuid

import pytest
from tests.client.scripted import NOT_CONNECTED, Script, declined, job

from backlane.errors import (
    GatewayUnavailable,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ResultGone,
    ResultTimeout,
)

ID = uuid.UUID("01900000-0000-7000-8000-00000000000a")


def result(script, timeout=None):
    return script.run(script.core.result(ID, timeout, None))


def test_a_result_is_polled_for_until_it_is_there():
    script = Script(job("ready"), job("running"), job("succeeded", result={"n": 1}), seconds=20.0)

    assert result(script) == {"n": 1}
    assert [request.params for request in script.sent] == [(("wait", "20.000"),)] * 3


def test_a_result_that_came_with_the_submission_is_not_asked_for_again():
    script = Script(job("succeeded", result=None))
    submitted = script.run(script.core.submit("shop.resize", {}, {"wait": 5}))

    value = script.run(script.core.result(ID, None, submitted.record))

    assert value is None
    assert len(script.sent) == 1


def test_a_result_that_is_not_there_in_time_can_be_asked_for_again():
    script = Script(job("running"), seconds=0.5)

    with pytest.raises(ResultTimeout, match="running"):
        result(script, timeout=5)

    assert 5 <= script.passed <= 6


def test_a_timeout_of_nothing_reads_once():
    script = Script(job("running"))

    with pytest.raises(ResultTimeout):
        result(script, timeout=0)

    assert len(script.sent) == 1


def test_a_gateway_that_waits_for_nobody_is_not_asked_in_a_tight_loop():
    script = Script(job("running"), seconds=0.001)

    with pytest.raises(ResultTimeout):
        result(script, timeout=30)

    assert len(script.sent) <= 62


def test_a_gateway_that_is_away_ends_the_wait_with_its_timeout():
    script = Script(NOT_CONNECTED)

    with pytest.raises(GatewayUnavailable):
        result(script, timeout=5)

    assert script.passed <= 6.1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (job("failed", reason="attempts", error={"kind": "E", "message": "boom"}), JobFailed),
        (job("cancelled"), JobCancelled),
        (job("expired"), JobExpired),
        (job("succeeded"), ResultGone),
        (declined(404, "unknown-job"), JobNotFound),
    ],
)
def test_what_became_of_it_is_told(answer, error):
    with pytest.raises(error):
        result(Script(answer))


def test_a_failure_has_its_parts():
    failed = job("failed", reason="attempts", error={"kind": "E", "message": "boom", "attempt": 3})

    with pytest.raises(JobFailed) as caught:
        result(Script(failed))

    assert caught.value.reason == "attempts"
    assert caught.value.error is not None
    assert (caught.value.error.kind, caught.value.error.message) == ("E", "boom")
