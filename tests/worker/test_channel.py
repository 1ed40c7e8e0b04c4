"""Frames cross a stream whole and in order, however it cuts them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.job import Lease, Note, Progress
from backlane.model.outcome import (
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)
from backlane.model.queue import Bounds
from backlane.worker.channel import (
    Buried,
    Drain,
    Ended,
    Failing,
    Frame,
    Halt,
    Hello,
    Lost,
    Noted,
    Overdue,
    Ping,
    Pong,
    QueueReport,
    Run,
    TakeBack,
    Turned,
    Unfit,
    Unpacker,
    Will,
    packed,
)
from backlane.worker.verdict import Stop

ERROR = ErrorRecord("OSError", "down")
OUTCOMES: list[Outcome] = [
    Succeeded(b"1"),
    RetryAfter(5, ERROR),
    Snoozed(7, parked=True),
    Cancelled(),
    Cancelled(ERROR),
    Failed(Reason.TIMEOUT, ERROR),
    Released(),
    Crashed(alone=True, error=ERROR),
]
SETTLEMENTS = [Settlement(bytes(16), 3, outcome, 12) for outcome in OUTCOMES]
LEASE = Lease(job=bytes(range(16)), token=2, attempt=1, queue="mail", task="send", body=b'{"to":1}')
FRAMES: list[Frame] = [
    Run([LEASE, LEASE], [0, 7]),
    TakeBack([7]),
    Halt([(7, 2)], Stop.TIMEOUT),
    Drain(),
    Ping(),
    Lost(bytes(16), None, "mail"),
    Buried(bytes(16), "send", "mail", "crashed"),
    Turned("stripe", "open", "10 attempts failed in a row"),
    Hello(
        "sqlite:///x.db",
        [QueueReport("mail", Bounds(1, 2, 5_000, 0.1), 3)],
        frozenset({"send"}),
        observed=True,
        has_exclusive=False,
    ),
    Unfit("no module"),
    Ended(SETTLEMENTS),
    Noted([Note(bytes(16), 1, Progress(0.5, "half"))]),
    Pong(12),
    Overdue(7),
    Failing("stuck"),
    Will(SETTLEMENTS),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_out_as_it_went_in(frame: Frame):
    assert Unpacker().feed(packed(frame)) == [frame]


@given(
    frames=st.lists(st.sampled_from(FRAMES), max_size=8),
    cuts=st.lists(st.integers(0, 4_000), max_size=12),
)
def test_a_stream_may_be_cut_anywhere(frames: list[Frame], cuts: list[int]):
    stream = b"".join(packed(frame) for frame in frames)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    unpacker = Unpacker()

    heard: list[Frame] = []
    for start, end in itertools.pairwise(edges):
        heard += unpacker.feed(stream[start:end])

    assert heard == frames
