"""The exclusive executor: one job at a time in the main thread of a killable process.

A second thread hears the dispatcher, so that a job is asked to stop while it runs. No
limits are watched here: the dispatcher asks, and kills this process when asking did
not help.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from queue import SimpleQueue

from backlane.app import Backlane
from backlane.model.job import Lease
from backlane.model.outcome import Settlement
from backlane.worker.attempt import Attempts
from backlane.worker.channel import (
    Drain,
    Frame,
    Halt,
    Ping,
    Pong,
    Run,
    SocketChannel,
    TakeBack,
    Unpacker,
    receive,
)
from backlane.worker.crew import STARTED, Marks, Running
from backlane.worker.executor import resident_kib, unstarted
from backlane.worker.outbox import NOTE_SECONDS, Outbox


class ExclusiveExecutor:
    """Runs what it is given, one after the other, in the calling thread."""

    def __init__(self, app: Backlane, sock: socket.socket, marks: Marks) -> None:
        self._sock = sock
        self._channel = SocketChannel(sock)
        self._outbox = Outbox(self._channel.send)
        self._attempts = Attempts(app, self._outbox.note, self._outbox.completed)
        self._running = Running(marks, self._outbox.note)
        self._line: SimpleQueue[tuple[Lease, int] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Serve until drained. When the dispatcher is gone, the process ends at once."""
        threading.Thread(target=self._listen, name="backlane-channel", daemon=True).start()
        while (job := self._line.get()) is not None:
            self._attend(*job)
        if self._loop is not None:
            self._loop.close()

    def _attend(self, lease: Lease, place: int) -> None:
        attempt = self._running.add(lease, place)
        if attempt.stop is not None:
            settlement = Settlement(lease.job, lease.token, unstarted(attempt.stop))
        else:
            self._running.marks[place] = STARTED
            if self._attempts.is_async(lease):
                loop = self._own_loop()
                attempt.asyncio_task = task = loop.create_task(self._attempts.arun(attempt))
                settlement = loop.run_until_complete(task)
            else:
                settlement = self._attempts.run(attempt)
        self._running.end(attempt)
        self._outbox.forget(lease.job)
        self._outbox.put(settlement)
        self._outbox.flush()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    # -- the second thread --

    def _listen(self) -> None:
        unpacker = Unpacker()
        while True:
            if not select.select([self._sock], [], [], self._patience())[0]:
                self._outbox.flush_notes()
                continue
            frames = receive(self._sock, unpacker, wait=True)
            if frames is None:
                os._exit(0)  # the dispatcher is gone: what runs here is another's soon
            for frame in frames:
                self._hear(frame)

    def _patience(self) -> float | None:
        """Return how long to listen before progress that waits must be looked at."""
        return NOTE_SECONDS / 2 if self._running.attempts else None

    def _hear(self, frame: Frame) -> None:
        match frame:
            case Run():
                for job in zip(frame.leases, frame.places, strict=True):
                    self._running.expect(job[1])
                    self._line.put(job)
            case Halt():
                self._halt(frame)
            case Drain():
                self._line.put(None)
            case Ping():
                self._channel.send(Pong(resident_kib()))
            case TakeBack():
                return  # never holds a job that has not started
            case _:
                return  # events are told by shared executors

    def _halt(self, frame: Halt) -> None:
        for place, token in frame.attempts:
            attempt = self._running.attempts.get(place)
            if attempt is None or attempt.lease.token != token:
                self._running.halt_early(place, token, frame.why)
                continue
            if attempt.completed is not None:
                continue  # as in the shared executor
            attempt.stop = attempt.stop or frame.why
            task = attempt.asyncio_task
            if task is not None and self._loop is not None and attempt.started:
                self._loop.call_soon_threadsafe(task.cancel)
