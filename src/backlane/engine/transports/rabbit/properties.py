"""What goes with a body: its id, its headers, its group, and when it was sent.

We write few properties, and read all that anybody may have written: of any type, or broken.
Headers are text here. One that AMQP cannot carry under its own name, or that RabbitMQ would
obey, travels within one header of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from struct import Struct, error

import msgspec
from pamqp import decode

from backlane.engine.transports.rabbit.frame import BODY, END, HEADER, head

MOST_ID = 255
GROUP, WRAPPED, UNREAD = "backlane-group", "backlane-headers", "backlane-unread-headers"
# RabbitMQ sends copies to whom these name, and counts in those that begin with x-.
_OBEYED = ("CC", "BCC")
_COUNTS = ("x-delivery-count", "x-acquired-count")
_DEATHS = (
    *("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"),
    *("x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"),
)

_PERSISTENT, _FLAG_HEADERS, _FLAG_MODE, _FLAG_ID, _FLAG_TIME = 2, 1 << 13, 1 << 12, 1 << 7, 1 << 6
_PLAIN = _FLAG_MODE | _FLAG_ID | _FLAG_TIME
_MODE = bytes((_PERSISTENT,))
_start = Struct(">BHIHHQH")
_whole = Struct(">BHIHHQHBB")
_long = Struct(">I")
_longlong = Struct(">Q")
_flags = Struct(">H")


class Read(msgspec.Struct):
    """The properties of a message that arrived."""

    id: str | None = None
    headers: dict[str, str] = {}
    group: str | None = None
    sent_ms: int | None = None
    returned: int = 0  # how often it was given back before, as far as the queue counts


class Header:
    """Writes the header frames of one channel, for messages sent in one second."""

    def __init__(self, channel: int, seconds: int) -> None:
        self._channel = channel
        self._end = _longlong.pack(seconds) + END

    def plain(self, name: bytes, body: bytes) -> tuple[bytes, ...]:
        """Return the frames of a small body with nothing but an id: most messages are so."""
        length, size = len(name), len(body)
        start = _whole.pack(
            HEADER, self._channel, 24 + length, 60, 0, size, _PLAIN, _PERSISTENT, length
        )
        return start, name, self._end, head.pack(BODY, self._channel, size), body, END

    def frame(
        self, size: int, name: str, headers: Mapping[str, str], group: str | None
    ) -> tuple[bytes, ...]:
        """Return the parts of a frame for a body of that size."""
        text = name.encode()
        length = len(text)
        if not headers and group is None:
            start = _start.pack(HEADER, self._channel, 24 + length, 60, 0, size, _PLAIN)
            return start, _MODE, bytes((length,)), text, self._end
        listed = table(headers, group)
        start = _start.pack(
            HEADER, self._channel, 24 + length + len(listed), 60, 0, size, _PLAIN | _FLAG_HEADERS
        )
        return start, listed, _MODE, bytes((length,)), text, self._end


def table(headers: Mapping[str, str], group: str | None) -> bytes:
    """Return headers as a table of AMQP."""
    parts: list[bytes] = []
    wrapped = {}
    for name, value in headers.items():
        encoded = name.encode()
        if len(encoded) > 128 or name in _OBEYED or name.startswith(("x-", "backlane-")):
            wrapped[name] = value
        else:
            parts += _entry(encoded, value)
    if wrapped:
        parts += _entry(WRAPPED.encode(), json.dumps(wrapped, ensure_ascii=False))
    if group is not None:
        parts += _entry(GROUP.encode(), group)
    joined = b"".join(parts)
    return _long.pack(len(joined)) + joined


def _entry(name: bytes, value: str) -> tuple[bytes, ...]:
    text = value.encode()
    return bytes((len(name),)), name, b"S", _long.pack(len(text)), text


# -- reading --


def read(payload: bytes) -> Read:
    """Take the properties out of a header frame. What cannot be read is left out."""
    flags = _flags.unpack_from(payload, 12)[0]
    if flags == _PLAIN:  # as we write it: two thirds of the time go into the rest
        length = payload[15]
        stop = 16 + length
        try:
            return Read(
                id=payload[16:stop].decode(), sent_ms=_longlong.unpack_from(payload, stop)[0] * 1000
            )
        except (UnicodeDecodeError, error):
            return Read()
    try:
        return _read(payload, flags)
    except (error, IndexError, ValueError):
        return Read()


def _read(payload: bytes, flags: int) -> Read:
    found = Read()
    at = 14
    last = flags
    while last & 1:  # more flags follow; nobody has defined any
        last = _flags.unpack_from(payload, at)[0]
        at += 2
    for bit in range(15, 1, -1):
        if not flags & (1 << bit):
            continue
        match bit:
            case 13:
                size = _long.unpack_from(payload, at)[0]
                _listed(payload[at : at + 4 + size], found)
                at += 4 + size
            case 12 | 11:  # mode, priority
                at += 1
            case 6:
                found.sent_ms = _milliseconds(_longlong.unpack_from(payload, at)[0])
                at += 8
            case _:
                length = payload[at]
                if bit == 7 and length:
                    found.id = payload[at + 1 : at + 1 + length].decode(errors="replace")
                at += 1 + length
    return found


def _milliseconds(seconds: int) -> int | None:
    """Seconds, as AMQP has it; some write milliseconds all the same."""
    if seconds < 1 << 36:
        return seconds * 1000
    return seconds if seconds < 1 << 46 else None


def _listed(raw: bytes, found: Read) -> None:
    try:
        listed = decode.field_table(raw)[1]
    except (error, ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError):
        found.headers = {UNREAD: raw.hex()}
        return
    headers = {str(name): as_text(value) for name, value in listed.items()}
    for name in _COUNTS:
        count = headers.pop(name, "")
        if count.isdigit():
            found.returned = max(found.returned, int(count))
    if "~delay." in headers.get("x-first-death-queue", ""):  # it waited where we let it
        for name in _DEATHS:
            headers.pop(name, None)
    found.group = headers.pop(GROUP, None)
    wrapped = headers.pop(WRAPPED, None)
    if wrapped is not None:
        headers |= _unwrapped(wrapped)
    found.headers = headers


def _unwrapped(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        return {WRAPPED: text}


def as_text(value: object) -> str:
    """Return a value of a header as text: itself, or as JSON has it."""
    match value:
        case str():
            return value
        case bytes() | bytearray():
            return value.decode("utf-8", "backslashreplace")
        case bool() | None | dict() | list():
            return json.dumps(value, default=as_text, ensure_ascii=False)
        case datetime():
            return value.isoformat()
    return str(value)
