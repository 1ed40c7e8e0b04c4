"""The demonstration's application: one job a file, each alone in a process, and one behind
many of them that gathers what they learnt.

Its workers import it as they import any other: a small module that calls `build`
stands in the directory in which they are started.
"""

from __future__ import annotations

import os
import uuid

from backlane.app import Backlane
from backlane.context import Context
from backlane.demo.facts import Facts, read
from backlane.demo.index import Part, gather
from backlane.model.queue import Queue
from backlane.model.retry import Retry

QUEUE = "files"
MODULE = "demo_app"
TARGET = f"{MODULE}:app"  # what workers import; the source of that module:
SOURCE = """\
from backlane.demo.application import build

app = build({url!r}, queue={queue!r}, starts={starts!r})
"""


def build(url: str, *, queue: str = QUEUE, starts: str) -> Backlane:
    """Return the application; each start of its function is noted in the file `starts`."""
    app = Backlane(url, queues=[Queue(queue, runs_in="process")])

    # A file that no parser gets through ends as failed in three minutes, not never.
    @app.task(queue=queue, name="index_file", timeout=60, retry=Retry(attempts=3))
    def index_file(context: Context, path: str) -> Facts:
        """Learn the facts of one file."""
        note_start(starts, context.id)
        return read(path)

    @app.task(queue=queue, name="gather_facts", timeout=60, retry=Retry(attempts=3))
    def gather_facts(facts: list[Facts | None], top: int) -> Part:
        """Gather the facts of many files."""
        return gather(facts, top)

    return app


def note_start(starts: str, job: uuid.UUID) -> None:
    """Write down that a function has begun, and in which worker.

    Appended by a single write below the size that the system keeps whole, so that
    processes do not cut each other's lines, and a killed one leaves no half of one.
    The process group is the worker's: it stays the same when its supervisor is gone.
    """
    opened = os.open(starts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(opened, f"{job} {os.getpgrp()}\n".encode())
    finally:
        os.close(opened)
