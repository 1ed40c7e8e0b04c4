"""Frames of AMQP 0-9-1 as bytes: those we send often, and the cutting of what arrives.

A frame is its kind, its channel, its size, its payload and one closing byte. What is sent
or read once a message is put together here; everything rare is left to pamqp.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
AROUND = 8  # bytes of a frame that are not its payload

GREETING = b"AMQP\x00\x00\x09\x01"
BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

# The methods that come or go with every message, by their class and number.
DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
PUBLISH = b"\x00\x3c\x00\x28"

head = Struct(">BHI")
_ack = Struct(">BHI4sQBB")
tag_and_bits = Struct(">4sQB")


class Nonsense(Exception):
    """The other end says what cannot be AMQP."""


class Cutter:
    """Cuts a stream of bytes into frames, whatever pieces it comes in."""

    def __init__(self, largest: int) -> None:
        self.largest = largest  # payload, as agreed
        self._rest = b""

    def frames(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield kind, channel and payload of each frame that is complete.

        Raises:
            Nonsense: this is no frame, or a larger one than agreed.
        """
        if self._rest:
            data = self._rest + data
        at, end, parts = 0, len(data), head.unpack_from
        while end - at >= AROUND:
            kind, channel, size = parts(data, at)
            if size > self.largest or kind > HEARTBEAT:
                raise Nonsense(_what(data[at:]))
            start = at + 7
            stop = start + size
            if stop >= end:
                break
            if data[stop] != 0xCE:
                raise Nonsense("a frame does not end where it says")
            yield kind, channel, data[start:stop]
            at = stop + 1
        self._rest = data[at:]


def publish(channel: int, exchange: str, key: str, *, mandatory: bool = True) -> bytes:
    """Return the frame that begins a message, which comes back when there is no such queue."""
    payload = b"".join((PUBLISH, b"\x00\x00", short(exchange), short(key), bytes((mandatory,))))
    return head.pack(METHOD, channel, len(payload)) + payload + END


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return a frame that acknowledges a delivery, or all until it."""
    return _ack.pack(METHOD, channel, 13, ACK, tag, multiple, 0xCE)


def requeue(channel: int, tag: int) -> bytes:
    """Return a frame that gives one delivery back."""
    return _ack.pack(METHOD, channel, 13, NACK, tag, 2, 0xCE)


def body(channel: int, text: bytes, largest: int) -> list[bytes]:
    """Return the frames of a message's body; none where it is empty."""
    if len(text) <= largest:
        return [head.pack(BODY, channel, len(text)), text, END] if text else []
    parts: list[bytes] = []
    for at in range(0, len(text), largest):
        piece = text[at : at + largest]
        parts += (head.pack(BODY, channel, len(piece)), piece, END)
    return parts


def short(text: str) -> bytes:
    """Return a text of at most 255 bytes as AMQP writes it."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _what(data: bytes) -> str:
    if data.startswith(b"AMQP"):
        version = ".".join(str(it) for it in data[5:8])
        return f"it speaks another version of AMQP ({version})"
    if data.startswith(b"HTTP"):
        return "it speaks HTTP: that is another port of it"
    if data[:1] in (b"\x15", b"\x16"):
        return "it speaks TLS: write amqps://"
    return f"it begins with {data[:8]!r}"
