"""What an error is told as: its status, its kind, and when to come back."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from backlane import errors
from backlane.gateway.declined import Seldom, problem_of

FIRST = uuid.UUID(int=7)

TOLD: list[tuple[Exception, int, str]] = [
    (errors.QueueFull("mail", limit="jobs", depth=1, bound=1), 503, "busy"),
    (errors.QueueFull("mail", limit="group", depth=1, bound=1), 429, "busy"),
    (errors.QueueFull("mail", limit="bytes", depth=1, bound=1, can_fit=False), 422, "never-fits"),
    (errors.QueueFull("mail", limit="moving", depth=1, bound=0), 503, "busy"),
    (errors.StoreMoved("postgresql://db/jobs"), 503, "unavailable"),
    (errors.StaleId("the id is old; use another"), 409, "stale-id"),
    (errors.KeyReused("the key came before; use another"), 422, "key-reused"),
    (errors.Duplicate("there is one", FIRST), 409, "duplicate"),
    (errors.TooLarge("2 MiB"), 413, "too-large"),
    (errors.Unencodable("$.x"), 422, "invalid-arguments"),
    (errors.BadOption("delay is -1"), 422, "invalid-arguments"),
    (errors.UnknownOption("no option"), 422, "invalid-arguments"),
    (errors.JobNotFound("no job"), 404, "unknown-job"),
    (errors.UnknownTask("no task"), 404, "unknown-task"),
    (errors.UnknownQueue("no queue"), 404, "unknown-queue"),
    (errors.WrongUse("the queue holds messages"), 409, "wrong-kind"),
    (errors.NotSupported("no keys"), 501, "not-supported"),
    (errors.EngineUnavailable("no store"), 503, "unavailable"),
    (errors.EngineBusy("locked"), 503, "unavailable"),
    (errors.StoreFull("the disk is full"), 503, "unavailable"),
    (errors.OutcomeUnknown("perhaps", (FIRST,)), 503, "outcome-unknown"),
    (RuntimeError("the secret of the house"), 500, "fault"),
    (errors.BacklaneError("something new"), 500, "fault"),
]


@pytest.mark.parametrize(
    ("error", "status", "kind"), TOLD, ids=[f"{type(it[0]).__name__}-{it[1]}" for it in TOLD]
)
def test_an_error_is_told_as_a_problem(error: Exception, status: int, kind: str):
    told = problem_of(error)

    document: dict[str, Any] = msgspec.json.decode(told.body)
    headers = dict(told.headers)
    assert (told.status, document["status"]) == (status, status)
    assert document["type"] == f"urn:backlane:{kind}"
    assert headers["Content-Type"] == "application/problem+json"
    assert document["title"]
    assert document["detail"]
    assert ("Retry-After" in headers) == (status in (503, 429))


def test_a_time_to_come_back_is_told_exactly_and_in_whole_seconds():
    full = errors.QueueFull(
        "mail",
        limit="wait",
        depth=7.5,
        bound=5,
        retry_after=timedelta(seconds=2.25),
        estimated_wait=timedelta(seconds=7.5),
        ticket="t.1",
    )

    told = problem_of(full)

    document = msgspec.json.decode(told.body)
    headers = dict(told.headers)
    assert (headers["Retry-After"], headers["Backlane-Ticket"]) == ("3", "t.1")
    assert (document["retry_after"], document["estimated_wait"]) == (2.25, 7.5)
    assert (document["basis"], document["ticket"]) == ("estimate", "t.1")


def test_an_unknown_outcome_names_the_ids_to_send_again():
    told = msgspec.json.decode(problem_of(errors.OutcomeUnknown("perhaps", (FIRST,))).body)

    assert told["ids"] == [str(FIRST)]


@pytest.mark.parametrize(
    "error",
    [
        errors.EngineBusy("/var/lib/jobs.db: a transaction of process 7"),
        errors.StoreFull("/var/lib/jobs.db: the disk is full"),
        errors.EngineUnavailable("/var/lib/jobs.db: no such file"),
        errors.NotSupported("sqlite:////var/lib/jobs.db lacks it"),
        errors.OutcomeUnknown("/var/lib/jobs.db: who knows"),
    ],
)
def test_where_the_store_is_is_not_told(error: Exception):
    assert b"/var/lib" not in problem_of(error).body


def test_an_outage_is_logged_once_a_second(caplog: pytest.LogCaptureFixture):
    times = [0.0, 0.5, 1.2]
    said = Seldom(lambda: times.pop(0))

    with caplog.at_level(logging.WARNING, "backlane.gateway"):
        for number in range(3):
            said.warn("outage %d", number)

    assert caplog.messages == ["outage 0", "outage 2"]


def test_a_fault_is_logged_under_the_id_that_the_caller_has(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR, "backlane.gateway"):
        told = problem_of(RuntimeError("the secret of the house"))

    document = msgspec.json.decode(told.body)
    assert b"secret" not in told.body
    assert document["request"] in caplog.text
    assert "the secret of the house" in caplog.text
