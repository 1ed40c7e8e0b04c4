"""Tickets: the place of a refused caller, signed, so that it is kept for that caller.

The store's secret signs, so every process of the application can check what another
gave out. Nothing is remembered of a ticket: whoever comes with it at its time, and for
some time after, has the place. The name of the queue is signed but not written.
"""

from __future__ import annotations

import base64
import struct

import msgspec

_FORM = struct.Struct(">QII")  # slot, seconds that it is kept, places
_MAC = 14  # bytes: nobody guesses one of 2^112, and 30 bytes are 40 letters without padding
_LEAST_KEPT_MS = 60_000
# A clock that the caller's retry was told by may be ahead of this one.
EARLY_MS = 100


class Ticket(msgspec.Struct, frozen=True):
    """A place in the line of those who were refused. Times are wall-clock milliseconds."""

    slot_ms: int  # when its turn comes
    until_ms: int  # how long the place is kept
    places: int  # the number of jobs it was given for

    def is_due(self, now_ms: int) -> bool:
        return self.slot_ms - EARLY_MS <= now_ms


def ticket(slot_ms: int, places: int, now_ms: int) -> Ticket:
    """Return a ticket given at `now_ms`, kept half as long again as its wait, at least 60 s."""
    kept = max(_LEAST_KEPT_MS, (slot_ms - now_ms) // 2)
    return Ticket(slot_ms, slot_ms + kept - kept % 1000, places)


def signed(given: Ticket, secret: bytes, queue: str, group: str | None = None) -> str:
    """Return the ticket as text that fits into an HTTP header or a URL."""
    kept = (given.until_ms - given.slot_ms) // 1000
    content = _FORM.pack(given.slot_ms, kept, given.places)
    return base64.urlsafe_b64encode(content + _mac(content, secret, queue, group)).decode()


def checked(
    text: str | None, secret: bytes, queue: str, now_ms: int, group: str | None = None
) -> Ticket | None:
    """Return the ticket if it is this queue's (and group's), whole, and still kept.

    Whatever else comes, from a typo to a forgery, counts as no ticket: it is not an
    error of the caller to have lost its place.
    """
    try:
        raw = base64.b64decode((text or "").encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        return None
    content, mac = raw[: _FORM.size], raw[_FORM.size :]
    from hmac import compare_digest  # see _mac

    if len(content) != _FORM.size or not compare_digest(mac, _mac(content, secret, queue, group)):
        return None
    slot_ms, kept, places = _FORM.unpack(content)
    found = Ticket(slot_ms, slot_ms + kept * 1000, places)
    return found if now_ms <= found.until_ms else None


def _mac(content: bytes, secret: bytes, queue: str, group: str | None) -> bytes:
    import hashlib  # loaded for the first refusal: it takes 2 ms
    import hmac

    # A zero byte is in no name, so no queue and group can be mistaken for another pair.
    scope = queue.encode() if group is None else f"{queue}\0{group}".encode()
    return hmac.digest(secret, content + scope, hashlib.sha256)[:_MAC]
