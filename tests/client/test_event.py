"""Events: parsed however they are cut, resumed wherever they broke."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.scripted import BROKEN, NOT_CONNECTED, Script, declined, job

from backlane.client.event import Event, Parser
from backlane.client.step import Answer
from backlane.errors import GatewayUnavailable, JobNotFound

ID = uuid.UUID("01900000-0000-7000-8000-00000000000a")
OPENED = Answer(200, {"content-type": "text/event-stream"})


def change(revision: int, state: str = "running") -> bytes:
    body = job(state, revision=revision).body
    return b"event: change\nid: %d\ndata: %s\n\n" % (revision, body)


def follow(script):
    return script.follow(script.core.follow(ID))


# -- parsing --


def parsed(stream: bytes, cuts: list[int]) -> list[Event]:
    parser, events, at = Parser(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        events += parser.feed(stream[at:cut])
        at = max(at, cut)
    return events


STREAM = (
    "\ufeffretry: 2000\n\n: heartbeat\n\nevent: change\r\nid: 1\r\ndata: {}\r\n\r\n"
    "id: 2\rdata: a\rdata:  b\r\rdata\n\nevent: lost\n\ndata: größer\n\nid: \0\ndata: x\n\nhalf"
).encode()


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_events_are_the_same_however_the_stream_is_cut(cuts):
    assert parsed(STREAM, cuts) == [
        Event("change", "{}", "1"),
        Event("message", "a\n b", "2"),
        Event("message", "", "2"),
        Event("message", "größer", "2"),
        Event("message", "x", "2"),
    ]


@given(stream=st.binary(max_size=300))
def test_no_bytes_break_the_parser(stream):
    Parser().feed(stream)


# -- following --


def test_a_job_is_followed_to_its_end():
    chunks = [change(1), b": heartbeat\n\n", change(2) + change(3, "succeeded")]
    script = Script(OPENED, chunks=chunks)

    revisions = [record.revision for record in follow(script)]

    assert revisions == [1, 2, 3]
    assert len(script.sent) == 1


def test_a_stream_that_breaks_goes_on_behind_what_was_given():
    chunks = [change(1), change(2)[:20], BROKEN, change(2), None, change(3, "failed")]
    script = Script(OPENED, chunks=chunks)

    revisions = [record.revision for record in follow(script)]

    assert revisions == [1, 2, 3]
    seen = [request.headers.get("Last-Event-ID") for request in script.sent]
    assert seen == [None, "1", "2"]
    assert max(script.slept) <= 0.25


def test_a_gateway_that_is_away_is_waited_for_ever_longer():
    script = Script(OPENED, *[NOT_CONNECTED] * 5, OPENED, chunks=[change(1), None])
    script._chunks += [change(2, "succeeded")]

    assert [record.revision for record in follow(script)] == [1, 2]
    assert len(script.sent) == 7


def test_a_stream_that_brings_nothing_for_the_deadline_is_given_up():
    script = Script(NOT_CONNECTED, deadline=20.0)

    with pytest.raises(GatewayUnavailable):
        list(follow(script))

    assert 5 <= script.passed <= 20


def test_a_job_that_is_not_there_is_told_at_once():
    script = Script(declined(404, "unknown-job"))

    with pytest.raises(JobNotFound):
        list(follow(script))

    assert len(script.sent) == 1
