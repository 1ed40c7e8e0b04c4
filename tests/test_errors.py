"""Errors: they keep their parts wherever they travel."""

from __future__ import annotations

import copy
import pickle
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from backlane import (
    BacklaneError,
    Duplicate,
    JobFailed,
    JobNotFound,
    KeyReused,
    OutcomeUnknown,
    QueueFull,
    WrongUse,
)
from backlane.errors import nearest
from backlane.fault import fault
from backlane.model.job import Refusal

ID = uuid.UUID(int=7)
RAISED = [
    QueueFull("mail", limit="jobs", depth=2, bound=2, retry_after=timedelta(seconds=3)),
    QueueFull(
        "mail",
        limit="group",
        depth=5,
        bound=5,
        jobs=50,
        added=2,
        group="acme",
        promised=True,
        retry_after=timedelta(seconds=3),
        estimated_wait=timedelta(seconds=9),
        ticket="signed",
        can_fit=True,
        accepted=7,
        waited=timedelta(seconds=1),
    ),
    KeyReused("another call"),
    Duplicate("taken", ID),
    JobFailed("it failed", "error", None),
    OutcomeUnknown("in doubt", (ID,)),
    JobNotFound("no such job"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "sent", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickled", "copied"]
)
def test_an_error_survives_being_sent(
    error: BacklaneError, sent: Callable[[BacklaneError], BacklaneError]
):
    """A process pool whose job met a full queue was broken by an error it could not read."""
    again = sent(error)

    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_a_full_queue_says_when_to_come_back():
    full = QueueFull("mail", limit="jobs", depth=2, bound=2, retry_after=timedelta(seconds=3))

    assert str(full) == "queue 'mail' holds 2 jobs, its bound is 2; retry in 3.0 s"


def test_a_queue_too_full_for_so_many_says_how_many():
    full = QueueFull("mail", limit="jobs", depth=4_501, bound=5_000, added=1_000)

    assert str(full).startswith("queue 'mail' holds 4501 jobs, its bound is 5000, and 1000 more ")


def test_a_full_queue_that_can_never_take_so_much_says_what_to_change():
    full = QueueFull("mail", limit="bytes", depth=0, bound=9, can_fit=False)

    assert "raise max_bytes" in str(full)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("wait", "a new job of queue 'mail' would wait 7.5 s, its max_wait is 5 s; "),
        ("deadline", "a new job of queue 'mail' would wait 7.5 s, and expires in 5 s; "),
        ("no_workers", "no worker serves queue 'mail', where a job has waited 8 s; start one"),
    ],
)
def test_a_refusal_for_time_is_told_in_seconds(limit, said):
    assert str(QueueFull("mail", limit=limit, depth=7.5, bound=5.0)).startswith(said)


def test_the_nearest_name_is_offered_and_none_where_none_is_near():
    assert nearest("dealy", ["delay", "at"]) == " (did you mean 'delay'?)"
    assert nearest("zzz", ["delay", "at"]) == ""


def test_what_waits_for_a_job_that_is_not_known_is_told_so() -> None:
    """No waiting would mend it: it is not the queue that is full."""
    job = uuid.uuid4()

    told = fault(Refusal("mail", "after", 3, bound=0, can_fit=False, job=job.bytes))

    assert isinstance(told, WrongUse)
    assert str(job) in str(told)
