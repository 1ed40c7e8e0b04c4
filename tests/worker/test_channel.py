"""Frames cross a stream whole and in order, however it cuts them."""

from __future__ import annotations

import itertools
import socket
import threading
import time

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
    SocketChannel,
    TakeBack,
    Turned,
    Unfit,
    Unpacker,
    Will,
    packed,
    receive,
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


@pytest.mark.parametrize("is_blocking", [True, False])  # uvloop makes what it watches the latter
def test_what_is_larger_than_the_pipe_arrives_whole(is_blocking: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(is_blocking)
    ended = Ended([Settlement(bytes(16), 3, Succeeded(b"x" * (1 << 20)), 12)] * 8)
    sender = threading.Thread(target=SocketChannel(ours).send, args=(ended,))
    sender.start()
    unpacker, heard = Unpacker(), list[Frame]()

    while not heard:
        frames = receive(theirs, unpacker, wait=True)
        assert frames is not None
        heard += frames

    sender.join()
    theirs.close()
    ours.close()
    assert heard == [ended]


def test_a_large_frame_takes_time_by_its_length_alone() -> None:
    stream = packed(Ended([Settlement(bytes(16), 3, Succeeded(b"x" * (1 << 25)))]))
    unpacker, heard, began = Unpacker(), list[Frame](), time.perf_counter()

    for at in range(0, len(stream), 1 << 12):
        heard += unpacker.feed(stream[at : at + (1 << 12)])

    assert len(heard) == 1
    assert time.perf_counter() - began < 5
