"""Channels: batches of frames between a dispatcher and its executors.

A frame is a small frozen value; leases and settlements travel in it as they are. Over
a socket a frame is four bytes of length and MessagePack, never pickle; in memory (the
embedded worker) it is the value itself. A channel sends in order and loses nothing
until it ends; that it ended is told once, after the last frame.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from backlane.engine.protocol import Admission
from backlane.engine.retention import Retention
from backlane.model.breaker import ResourceRecord
from backlane.model.job import Job, Lane, Lease, Note
from backlane.model.limit import Limit
from backlane.model.outcome import Settlement
from backlane.model.queue import Bounds
from backlane.tick import Declared
from backlane.worker.verdict import Stop

# -- to an executor --


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Run these. `places` says where in the marks each shows that it has started."""

    leases: list[Lease]
    places: list[int]


class TakeBack(msgspec.Struct, frozen=True, array_like=True, tag="take_back"):
    """Give back what of these places has not started; each is confirmed as released."""

    places: list[int]


class Halt(msgspec.Struct, frozen=True, array_like=True, tag="halt"):
    """Ask the attempts at these (place, token) to stop, and say why."""

    attempts: list[tuple[int, int]]
    why: Stop


class Drain(msgspec.Struct, frozen=True, array_like=True, tag="drain"):
    """Give back what has not started, finish the rest, then end."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Say that you are there."""


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="lost"):
    """Tell observers that the lease of this job ended under its holder."""

    job: bytes
    task: str | None
    queue: str


class Buried(msgspec.Struct, frozen=True, array_like=True, tag="buried"):
    """Tell observers that this job became a dead letter."""

    job: bytes
    task: str | None
    queue: str
    reason: str


class Changed(msgspec.Struct, frozen=True, array_like=True, tag="changed"):
    """Tell observers what their worker does."""

    owner: str
    change: str


class Turned(msgspec.Struct, frozen=True, array_like=True, tag="turned"):
    """Tell observers how a resource's breaker stands now."""

    resource: str
    state: str
    why: str | None


# -- from an executor --


class QueueReport(msgspec.Struct, frozen=True, array_like=True):
    """A queue as the application declares it."""

    name: str
    bounds: Bounds
    concurrency: int | None = None
    lanes: frozenset[Lane] = frozenset({Lane.SHARED})  # of the tasks that name it
    is_fair: bool = False

    @property
    def has_tasks(self) -> bool:
        """A task names it, so that it surely is none of messages."""
        return bool(self.lanes)


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The application is imported; this is all a dispatcher has to know of it."""

    url: str
    queues: list[QueueReport]
    deaf: frozenset[str]  # plain functions without a Context: they cannot hear a request to stop
    observed: bool  # somebody listens to events
    has_exclusive: bool  # some task asks for a process of its own
    limits: dict[str, Limit] = {}  # that the code declares, by name
    templates: list[Job] = []  # of all tasks: what schedules make jobs of
    schedules: list[Declared] = []
    admission: Admission = Admission()
    retention: Retention = Retention()


class Unfit(msgspec.Struct, frozen=True, array_like=True, tag="unfit"):
    """The application cannot be used; `text` is for people."""

    text: str


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """These attempts ended."""

    settlements: list[Settlement]


class Completed(msgspec.Struct, frozen=True, array_like=True, tag="completed"):
    """This job is settled: its own transaction did so, and its function still runs."""

    job: bytes
    token: int
    turned: list[ResourceRecord] = []  # as `Settled.turned`


class Noted(msgspec.Struct, frozen=True, array_like=True, tag="noted"):
    """Progress of running attempts."""

    notes: list[Note]


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """The executor is there; `rss_kib` is its resident memory, 0 where unknown."""

    rss_kib: int = 0


class Overdue(msgspec.Struct, frozen=True, array_like=True, tag="overdue"):
    """The attempt at this place cannot be ended; it holds no slot any more."""

    place: int


class Failing(msgspec.Struct, frozen=True, array_like=True, tag="failing"):
    """The executor is short of threads or stuck: replace it, then drain it."""

    why: str


class Will(msgspec.Struct, frozen=True, array_like=True, tag="will"):
    """What becomes of attempts that cannot be ended: true once this process is gone."""

    settlements: list[Settlement]


Frame = (
    Run
    | TakeBack
    | Halt
    | Drain
    | Ping
    | Lost
    | Buried
    | Changed
    | Turned
    | Hello
    | Unfit
    | Ended
    | Completed
    | Noted
    | Pong
    | Overdue
    | Failing
    | Will
)

Heard = Callable[[Frame], None]
Gone = Callable[[], None]


class Channel(Protocol):
    """The sending half of one end. What arrives is given to the `Heard` it was made with."""

    def send(self, frame: Frame) -> None:
        """Send a frame; does nothing once the channel has ended."""

    def close(self) -> None:
        """End the channel for both sides."""


_LENGTH = struct.Struct("<I")
READ_BYTES = 1 << 18  # about 1,000 frames of no-op jobs; grows no queue of its own

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def packed(frame: Frame) -> bytes:
    """Return a frame as it crosses a socket."""
    body = _encode(frame)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0  # of the rest: with fewer bytes no frame is whole

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        frames: list[Frame] = []
        at, end, self._needed = 0, len(data), 4
        while end - at >= 4:
            size = _LENGTH.unpack_from(data, at)[0]
            if end - at - 4 < size:
                self._needed = 4 + size
                break
            frames.append(_decode(memoryview(data)[at + 4 : at + 4 + size]))
            at += 4 + size
        self._rest = bytearray(data[at:])
        return frames


def receive(sock: socket.socket, unpacker: Unpacker, *, wait: bool) -> list[Frame] | None:
    """Return the frames that have arrived, or None when the other side is gone."""
    try:
        data = sock.recv(READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return []
    except OSError:  # reset: the other side died with frames of ours unread
        return None
    return unpacker.feed(data) if data else None


class LoopChannel:
    """The dispatcher's end: reads and writes from an event loop and never blocks."""

    def __init__(self, sock: socket.socket, heard: Heard, gone: Gone) -> None:
        sock.settimeout(0)
        self._sock, self._heard, self._gone = sock, heard, gone
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._unpacker = Unpacker()
        self._is_open = True
        self._loop.add_reader(sock, self._read)

    def send(self, frame: Frame) -> None:
        if not self._is_open:
            return
        data = packed(frame)
        if not self._unsent:
            data = data[self._sent(data) :]
            if data:
                self._loop.add_writer(self._sock, self._write)
        self._unsent += data

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def read_rest(self) -> None:
        """Hear all that a dead executor still sent, then end."""
        while self._is_open:
            try:
                data = self._sock.recv(READ_BYTES)
            except OSError:  # nothing more is to come
                break
            if not data:
                break
            self._hear(self._unpacker.feed(data))
        self.close()

    def _read(self) -> None:
        frames = receive(self._sock, self._unpacker, wait=False)
        if frames is None:
            self.close()
            self._gone()
            return
        self._hear(frames)

    def _hear(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._heard(frame)

    def _write(self) -> None:
        del self._unsent[: self._sent(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _sent(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # the executor is dead: reading tells it, in its own time
            return len(data)


class SocketChannel:
    """The executor's end: any thread sends, waiting while the pipe is full.

    Waiting is safe: the dispatcher always reads and never waits for us.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        data = memoryview(packed(frame))
        with self._lock:
            try:
                while data:
                    data = data[self._sent(data) :]
            except OSError:  # the dispatcher is gone; whoever reads ends this process
                return

    def close(self) -> None:
        self._sock.close()

    def _sent(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:  # uvloop makes whatever it watches non-blocking
            room = select.poll()
            room.register(self._sock, select.POLLOUT)
            room.poll()
            return 0


class MemoryChannel:
    """One end within a process: frames are carried to the other end's loop as they are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, heard: Heard) -> None:
        """Carry what `send` is given to `heard`, called in `loop` in order."""
        self._loop, self._heard = loop, heard
        self._frames: deque[Frame] = deque()
        self._is_open = True

    def send(self, frame: Frame) -> None:
        if not self._is_open:
            return
        self._frames.append(frame)
        try:
            self._loop.call_soon_threadsafe(self._carry)
        except RuntimeError:  # its loop is closed: the other end is gone
            self._is_open = False

    def close(self) -> None:
        self._is_open = False

    def _carry(self) -> None:
        while self._frames:
            self._heard(self._frames.popleft())
