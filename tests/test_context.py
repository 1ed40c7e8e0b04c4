"""The context of a running job: who it is, what it reports, what it hears."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from backlane import BadOption, Context, JobCancelled, Snooze
from backlane.model.codec import encode_headers
from backlane.model.ids import new_id
from backlane.model.job import Lease, Progress

JOB = new_id(1_900_000_000_000)


class Desk:
    """What a worker is to a context: takes its notes, asks it to stop."""

    def __init__(self) -> None:
        self.notes: list[Progress] = []
        self.is_cancelled = False


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def context(desk: Desk) -> Context:
    lease = Lease(
        job=JOB,
        token=7,
        attempt=2,
        queue="mail",
        task="shop.send",
        body=b"{}",
        headers=encode_headers({"trace": "t-1"}),
        enqueued_ms=1_893_456_000_000,
    )
    return Context(lease, note=desk.notes.append, is_cancelled=lambda: desk.is_cancelled)


def test_a_context_says_who_the_job_is(context):
    assert context.id == uuid.UUID(bytes=JOB)
    assert (context.task, context.queue, context.attempt) == ("shop.send", "mail", 3)
    assert context.headers == {"trace": "t-1"}
    assert context.enqueued_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_progress_is_handed_to_the_worker(context, desk):
    context.progress(0.4, "rendering")
    context.progress(None, "warming up")

    assert desk.notes == [Progress(0.4, "rendering"), Progress(None, "warming up")]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "half"])
def test_a_fraction_outside_0_to_1_is_refused(context, fraction):
    with pytest.raises(BadOption, match="from 0 to 1"):
        context.progress(fraction)


def test_tracking_yields_all_items_and_reports_how_many_are_done(context, desk):
    assert list(context.track(["a", "b"], "parts")) == ["a", "b"]

    assert desk.notes == [Progress(0.0, "parts"), Progress(0.5, "parts"), Progress(1.0, "parts")]


def test_tracking_items_without_a_length_counts_them_in_words(context, desk):
    list(context.track(iter("ab"), "rows"))

    assert desk.notes == [Progress(None, "rows: 0"), Progress(None, "rows: 1")]


def test_tracking_nothing_reports_nothing(context, desk):
    assert list(context.track([])) == []
    assert desk.notes == []


def test_a_cancelled_job_hears_it_at_the_next_item(context, desk):
    items = context.track(["a", "b", "c"])
    assert next(items) == "a"

    desk.is_cancelled = True

    with pytest.raises(JobCancelled, match="asked to stop"):
        next(items)
    assert context.cancelled


def test_a_job_that_is_wanted_passes_a_check(context):
    context.check()

    assert not context.cancelled


def test_a_detached_context_reports_nowhere_and_is_never_cancelled():
    context = Context.detached("shop.send")

    context.progress(0.5)
    context.check()

    assert (context.id, context.task, context.attempt) == (uuid.UUID(int=0), "shop.send", 1)
    assert (context.cancelled, dict(context.headers)) == (False, {})


@pytest.mark.parametrize("delay", [30, 30.0, timedelta(seconds=30)])
def test_a_snooze_carries_its_delay(delay):
    assert Snooze(delay).delay_ms == 30_000


@pytest.mark.parametrize("delay", [-1, "30", None, float("nan")])
def test_a_snooze_that_cannot_work_is_refused(delay):
    with pytest.raises(BadOption, match="delay"):
        Snooze(delay)
