"""Events: a job's changes as a stream that survives broken connections.

`Parser` reads server-sent events (WHATWG HTML, section 9.2) from chunks cut anywhere.
`following` keeps such a stream up: it resumes behind the last revision that it gave
out, so a change is given once, and ends after a final state.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping

import msgspec

from backlane.client.delivery import PASSING, Terms, Tries, good, unpaced_wait
from backlane.client.pacer import Pacer
from backlane.client.record import RemoteRecord, read_bytes
from backlane.client.step import Answer, Emit, Lost, Open, Read, Request, Sleep, Steps

# Three heartbeats of the gateway, which sends one every 15 s, have been missed.
SILENCE_SECONDS = 45.0


class Event(msgspec.Struct, frozen=True):
    """One server-sent event."""

    name: str
    data: str
    id: str


class Parser:
    """Makes events of bytes, however they are cut."""

    __slots__ = ("_data", "_decoder", "_name", "_rest", "last_id", "retry_seconds")

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_seconds: float | None = None
        # The standard wants a byte order mark dropped, and bad bytes replaced.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that this chunk completes."""
        text = self._rest + self._decoder.decode(chunk)
        # A carriage return at the end may be the first half of a line's end.
        held = text.endswith("\r")
        text = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._rest = text.split("\n")
        self._rest += "\r" if held else ""
        events = (self._line(line) for line in lines)
        return [event for event in events if event is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_seconds = int(value[:9]) / 1000
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, "\n".join(data), self.last_id) if data else None


def following(path: str, headers: Mapping[str, str], terms: Terms, pacer: Pacer) -> Steps[None]:
    """Emit the job's record now and at each change, until it is in a final state.

    Whatever breaks is opened anew and goes on where it stopped, without asking the retry
    budget: a follower that was let in once sends one request a wait, and waits longer
    each time. `terms.deadline` is how long it may bring nothing.

    Raises:
        GatewayUnavailable: nothing came for so long.
        BacklaneError: the gateway declined, for example because there is no such job.
    """
    last_id, tries = "", Tries()
    ends = pacer.now() + terms.deadline
    while True:
        again = {"Last-Event-ID": last_id} if last_id else {}
        request = Request("GET", path, headers={**headers, **again})
        reply: Answer | Lost = yield Open(request, terms.timeout, SILENCE_SECONDS)
        if isinstance(reply, Answer) and reply.status not in PASSING:
            good(reply)
            reached = yield from _reading(last_id)
            if reached.is_over:
                return
            if reached.last_id != last_id:
                last_id, tries = reached.last_id, Tries()
            if reached.was_alive:
                ends = pacer.now() + terms.deadline
            reply = reached.why
        tries.count += 1
        tries.note(reply)
        wait = unpaced_wait(tries, pacer, ends - pacer.now())
        if wait is None or tries.count == terms.attempts:
            raise tries.giving_up(terms)
        yield Sleep(wait)


_ENDED = Lost(ConnectionError("the stream of events ended"), sent=False)


class _Reached(msgspec.Struct, frozen=True):
    """How far a stream got before it ended."""

    last_id: str
    was_alive: bool  # it brought something, if only a heartbeat
    is_over: bool = False  # a final state was told
    why: Lost = _ENDED


def _reading(last_id: str) -> Steps[_Reached]:
    """Emit what the open stream brings, up to its end."""
    parser, was_alive = Parser(last_id), False
    while True:
        chunk: bytes | Lost | None = yield Read()
        if chunk is None or isinstance(chunk, Lost):
            return _Reached(last_id, was_alive, why=chunk or _ENDED)
        was_alive = True
        for event in parser.feed(chunk):
            if event.name != "change":
                continue
            record = read_bytes(event.data.encode(), RemoteRecord)
            yield Emit(record)
            last_id = event.id
            if record.state.is_final:
                return _Reached(last_id, was_alive, is_over=True)
