"""Problem documents: what a client reads of a full queue."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from backlane import QueueFull
from backlane.problem import busy, problem


def full(**parts: object) -> QueueFull:
    return QueueFull("mail", **{"limit": "jobs", "depth": 9, "bound": 9, **parts})


def test_a_full_queue_is_told_with_its_figures_and_its_ticket():
    answer = busy(
        full(
            retry_after=timedelta(seconds=3.2),
            estimated_wait=timedelta(seconds=7),
            ticket="signed",
        )
    )

    document, headers = json.loads(answer.body), dict(answer.headers)
    assert answer.status == document["status"] == 503
    assert document["type"] == "urn:backlane:busy"
    assert (document["queue"], document["depth"], document["bound"]) == ("mail", 9, 9)
    assert (document["retry_after"], document["estimated_wait"]) == (3.2, 7.0)
    assert (document["basis"], document["ticket"]) == ("estimate", "signed")
    assert (headers["Retry-After"], headers["Backlane-Ticket"]) == ("4", "signed")
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Content-Length"] == str(len(answer.body))


def test_where_nothing_is_known_it_says_so():
    answer = busy(full())

    document, headers = json.loads(answer.body), dict(answer.headers)
    assert (document["basis"], document["retry_after"]) == ("unknown", None)
    assert headers["Retry-After"] == "5"
    assert "Backlane-Ticket" not in headers


@pytest.mark.parametrize(
    ("parts", "status", "kind"),
    [
        ({"limit": "group"}, 429, "busy"),
        ({"limit": "wait"}, 503, "busy"),
        ({"limit": "bytes", "can_fit": False}, 422, "never-fits"),
    ],
)
def test_the_status_says_whose_fault_it_is(parts, status, kind):
    answer = busy(full(**parts))

    assert answer.status == status
    assert json.loads(answer.body)["type"] == f"urn:backlane:{kind}"


def test_what_never_fits_is_not_invited_back():
    answer = busy(full(limit="bytes", can_fit=False))

    assert "Retry-After" not in dict(answer.headers)


def test_any_problem_has_members_for_programs():
    answer = problem(404, "unknown-task", "No such task", "there is none", nearest="mail.send")

    assert json.loads(answer.body) == {
        "type": "urn:backlane:unknown-task",
        "title": "No such task",
        "status": 404,
        "detail": "there is none",
        "nearest": "mail.send",
    }
