"""An enqueue passes five rooms, an execution six, leaf modules aside.

A room is a file, an engine's own folder, or a file with its closets (what the
dispatcher knows of its executors; the threads and the outbox of an executor). A leaf
only computes: in the traced run it calls nothing of ours but the model. What is traced
is a second call, so that connecting and compiling, which happen once, are behind it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import backlane
from backlane import Backlane
from backlane.worker import Worker

PACKAGE = Path(backlane.__file__).parent
ABOVE = {
    "worker/posts": "worker/dispatcher",
    "worker/post": "worker/dispatcher",
    "worker/crew": "worker/executor",
    "worker/outbox": "worker/executor",
}
# What goes by the clock; the gauge measures once a second, and otherwise only looks there.
BY_THE_CLOCK = {"worker/embedded", "worker/upkeep", "worker/janitor", "worker/watch", "gauge"}
ENGINE = "engine/memory"


class Trace:
    """Which rooms run, in the order they are entered, and which others each calls."""

    def __init__(self) -> None:
        self.calls: dict[str, set[str]] = {}
        self._is_on = False

    @contextmanager
    def running(self) -> Iterator[None]:
        self.calls.clear()
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Take a call, as `sys.setprofile` tells of it."""
        room = room_of(frame) if self._is_on and event == "call" else None
        if room is None:
            return
        self.calls.setdefault(room, set())
        caller = room_of(frame.f_back)
        if caller is not None and caller != room:
            self.calls.setdefault(caller, set()).add(room)

    def path(self) -> list[str]:
        """Return the rooms that are no leaf, in the order they were entered."""
        return [
            room
            for room, called in self.calls.items()
            if room not in BY_THE_CLOCK and not is_model(room)
            if any(not is_model(other) for other in called)
        ]


def room_of(frame: FrameType | None) -> str | None:
    """Return the room a frame runs in, or None outside of our package."""
    if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE)):
        return None
    path = Path(frame.f_code.co_filename).relative_to(PACKAGE).with_suffix("")
    room = "/".join(path.parts[:2])
    return ABOVE.get(room, room)


def is_model(room: str) -> bool:
    return room.startswith("model/") or room == "errors"


def application() -> Backlane:
    app = Backlane("memory://")

    @app.task(name="plain")
    def plain(number: int) -> int:
        return number

    @app.task(name="waiting")
    async def waiting(number: int) -> int:
        return number

    return app


def test_an_enqueue_passes_five_rooms():
    task = application().tasks["plain"]
    task.enqueue(1)
    trace = Trace()

    sys.setprofile(trace.note)
    with trace.running():
        task.enqueue(2)
    sys.setprofile(None)

    assert sorted(trace.path()) == sorted(["task", "enqueuer", "intake", ENGINE, "engine/plan"])


@pytest.mark.parametrize("name", ["plain", "waiting"])
def test_an_execution_passes_six_rooms(name):
    app = application()
    trace = Trace()

    threading.setprofile(trace.note)  # of the threads that the worker starts
    with Worker(app):
        app.tasks[name].enqueue(1).result(timeout=30)
        with trace.running():
            app.tasks[name].enqueue(2).result(timeout=30)
    threading.setprofile(None)  # type: ignore[arg-type]

    assert sorted(trace.path()) == sorted(
        [
            "worker/dispatcher",
            ENGINE,
            "engine/plan",
            "worker/channel",
            "worker/executor",
            "worker/attempt",
        ]
    )
