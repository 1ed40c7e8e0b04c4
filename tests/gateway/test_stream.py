"""Streams: a job's changes as they happen, over a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract.engines import lay
from tests.gateway.live import Live, live
from tests.hand import BOOM, fail, only, settle, succeed, take

from backlane import Backlane
from backlane.engine.selection import Delete, Selection
from backlane.gateway import hub, stream
from backlane.model.job import Note, Progress
from backlane.model.outcome import Failed, Reason, Succeeded

SOON = 10.0  # seconds, on a busy machine: as against polling that waits longer


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Backlane]:
    with Backlane(f"sqlite:///{lay(tmp_path / 'jobs.db')}") as made:
        yield made


@pytest.fixture
def served(app: Backlane) -> Iterator[Live]:
    with live(app) as made:
        yield made


@pytest.fixture
def bells_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be seen by looking, only by being told."""
    for often in ("LIVELY_POLL_SECONDS", "IDLE_POLL_SECONDS"):
        monkeypatch.setattr(hub, often, 60.0)


@pytest.fixture
def task(app: Backlane):
    return app.task(double)


def double(number: int) -> int:
    return 2 * number


def until_none_follows(served: Live) -> float:
    began = time.monotonic()
    while len(served.gateway.site.hub) and time.monotonic() - began < 10:
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.usefixtures("bells_alone")
def test_a_stream_tells_the_job_as_it_is_then_each_change_to_the_end(app, served, task):
    job = task.enqueue(4)
    followed = served.stream(job.id)

    told = [followed.event()]
    began = time.monotonic()
    lease = only(take(app))
    told.append(followed.event())
    app.engine.run(app.engine.note([Note(lease.job, lease.token, Progress(0.5, "half"))]))
    told.append(followed.event())
    settle(app, lease, Succeeded(b"8"))
    told.append(followed.event())

    assert time.monotonic() - began < SOON
    assert [one["state"] for one in told] == ["ready", "running", "running", "succeeded"]
    assert told[2]["progress"] == {"fraction": 0.5, "message": "half"}
    assert told[3]["result"] == 8
    assert followed.event() == {}  # it has ended
    revisions = [one["revision"] for one in told]
    assert revisions == sorted(set(revisions))
    followed.close()


def test_a_stream_says_what_it_is(served, task):
    followed = served.stream(task.enqueue(4).id)

    assert followed.answer.status == 200
    assert followed.answer.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert followed.answer.getheader("cache-control") == "no-store"
    assert followed.part() == {"retry": "2000"}
    followed.close()


def test_who_comes_back_is_not_told_what_it_has_seen(app, served, task):
    job = task.enqueue(4)
    first = served.stream(job.id)
    seen = first.event()
    first.close()

    again = served.stream(job.id, Last_Event_ID=str(seen["revision"]))
    assert again.part() == {"retry": "2000"}
    succeed(app, 8)

    assert again.event()["state"] in ("running", "succeeded")
    again.close()


def test_who_has_seen_the_end_is_told_to_come_no_more(app, served, task):
    job = task.enqueue(4)
    succeed(app, 8)
    last = served.stream(job.id).event()

    followed = served.stream(job.id, Last_Event_ID=str(last["revision"]))

    assert (last["state"], followed.answer.status) == ("succeeded", 204)


@pytest.mark.parametrize("given", ["", "x", "-1", "1.5", "9" * 40, "\u00b2"])
def test_an_id_that_is_none_is_ignored(served, task, given):
    followed = served.stream(task.enqueue(4).id, Last_Event_ID=given)

    assert followed.event()["state"] == "ready"
    followed.close()


def test_there_is_no_stream_of_a_job_that_is_not_there(served, app):
    status, headers, told = served.get("/v1/jobs/0199a000-0000-7000-8000-000000000000/events")

    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert told["type"] == "urn:backlane:unknown-job"


def test_a_silent_stream_beats(served, task, monkeypatch):
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    followed = served.stream(task.enqueue(4).id)
    followed.event()

    assert [followed.part(), followed.part()] == [{"": ""}, {"": ""}]
    followed.close()


def test_a_client_that_left_is_forgotten(served, task):
    streams = [served.stream(task.enqueue(4).id) for _ in range(5)]
    for followed in streams:
        followed.event()
    assert len(served.gateway.site.hub) == 5

    for followed in streams:
        followed.close()

    assert until_none_follows(served) < 5


def test_streams_end_when_the_server_stops(app, task):
    job = task.enqueue(4)
    with live(app) as served:
        followed = served.stream(job.id)
        followed.event()
        began = time.monotonic()
    took = time.monotonic() - began

    assert followed.event() == {}  # its end, and not a reset
    assert took < SOON
    followed.close()


def test_a_slow_reader_is_told_the_newest_and_not_each_between(app, served, task, monkeypatch):
    """What a client has not read must not pile up here."""
    big = "x" * 200_000
    job = task.enqueue(4)
    followed = served.stream(job.id)
    followed.event()
    lease = only(take(app))

    for step in range(60):
        report = Note(lease.job, lease.token, Progress(step / 60, big))
        app.engine.run(app.engine.note([report]))
        time.sleep(0.01)
    settle(app, lease, Failed(Reason.ERROR, BOOM))
    told = []
    while one := followed.event():
        told.append(one)

    assert told[-1]["state"] == "failed"
    assert len(told) < 55
    followed.close()


@pytest.mark.usefixtures("bells_alone")
def test_a_long_poll_is_answered_when_the_job_has_ended(app, served, task):
    job = task.enqueue(4)
    ending = threading.Timer(0.3, succeed, (app, 8))
    ending.start()
    began = time.monotonic()

    status, _, told = served.get(f"/v1/jobs/{job.id}?wait=20")

    assert (status, told["state"], told["result"]) == (200, "succeeded", 8)
    assert 0.2 < time.monotonic() - began < 0.3 + SOON


@pytest.mark.usefixtures("bells_alone")
def test_a_long_poll_for_a_revision_is_answered_at_the_next_change(app, served, task):
    job = task.enqueue(4)
    revision = job.record().revision
    taking = threading.Timer(0.3, take, (app,))
    taking.start()
    began = time.monotonic()

    status, headers, told = served.get(f"/v1/jobs/{job.id}?wait=20&revision={revision}")

    assert (status, told["state"], headers["retry-after"]) == (200, "running", "1")
    assert time.monotonic() - began < 0.3 + SOON


def test_a_long_poll_that_came_to_nothing_tells_the_job_as_it_is(served, task):
    job = task.enqueue(4)
    began = time.monotonic()

    status, _, told = served.get(f"/v1/jobs/{job.id}?wait=0.2")

    assert (status, told["state"]) == (200, "ready")
    assert 0.15 < time.monotonic() - began < SOON
    assert len(served.gateway.site.hub) == 0


def test_changes_are_seen_without_a_bell_too(app, served, task, monkeypatch):
    job = task.enqueue(4)
    followed = served.stream(job.id)
    followed.event()
    belfry = app.engine._process.handles().belfry
    monkeypatch.setattr(belfry, "_send", lambda *_: None)
    began = time.monotonic()

    succeed(app, 8)

    states = [followed.event()["state"]]
    if states == ["running"]:  # looked at between its claim and its end
        states.append(followed.event()["state"])
    assert states[-1] == "succeeded"
    assert time.monotonic() - began < SOON
    followed.close()


def test_a_stream_of_a_job_that_is_deleted_ends(app, served, task):
    job = task.enqueue(4)
    followed = served.stream(job.id)
    followed.event()

    app.engine.run(app.engine.amend(Selection(ids=(job.id.bytes,)), Delete()))

    assert followed.event() == {}
    followed.close()


def test_failures_are_told_without_their_traceback(app, served, task):
    job = task.enqueue(4)
    followed = served.stream(job.id)
    followed.event()

    fail(app)
    told = followed.event()
    while told["state"] != "failed":
        told = followed.event()

    assert (told["error"]["kind"], told["error"]["message"]) == (BOOM.kind, BOOM.message)
    followed.close()
