"""Bodies: read in whole, no longer than allowed, and within a time.

Who sends too much is told so before the rest is read; who sends too slowly is cut off, so
that a thousand idle uploads hold nothing but themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from backlane.gateway.answer import tell
from backlane.gateway.declined import Declined, decline, misfit
from backlane.gateway.pointer import pointer
from backlane.gateway.site import Headers, Limits, Receive, Send, text
from backlane.model.codec.proof import Found, narrowed
from backlane.problem import Problem, problem

T = TypeVar("T")

LINGER_SECONDS = 1.0
SEARCHED_BYTES = 64 * 1024  # naming a key takes many decodings, and a stranger may have sent it

_JSON_KIND = re.compile(r"application/[\w.!#$&^-]+\+json")


class Cut(Exception):
    """The body ends here: its sender is told this problem, and the connection ends."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.status)


class Gone(Exception):
    """The caller has left; there is nobody to answer."""


async def whole(headers: Headers, receive: Receive, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises:
        Cut: it is too large, or comes too slowly.
        Gone: the caller left in the middle of it.
    """
    announced = text(headers, b"content-length")
    if announced is not None and announced.isdecimal() and int(announced) > limits.max_body:
        raise Cut(_too_large(limits))
    if limits.body_seconds is None:
        return await _read(receive, limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read(receive, limits)
    except TimeoutError:
        raise Cut(too_slow(limits.body_seconds)) from None


async def _read(receive: Receive, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part: bytes = message.get("body", b"")
        if len(body) + len(part) > limits.max_body:
            raise Cut(_too_large(limits))
        if not message.get("more_body", False):
            return bytes(body + part) if body else part
        body += part


async def cut(receive: Receive, send: Send, told: Problem) -> None:
    """Answer, then let the sender read that before the connection ends.

    A connection that is closed with bytes unread is reset, and the answer would be lost
    with it: so what still comes is read for a moment, and thrown away.
    """
    await tell(send, told, more=True, close=True)
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def check_json(headers: Headers, body: bytes) -> None:
    """Refuse a body that says it is something else than JSON.

    An unnamed type is refused too: a page of any other site may make a browser send it.
    """
    if not body:
        return
    given = text(headers, b"content-type") or ""
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not _JSON_KIND.fullmatch(kind):
        decline(
            415,
            "unsupported-media-type",
            "The body is to be JSON",
            f"Content-Type is {given[:100]!r}; send JSON, with Content-Type: application/json",
            (("Accept", "application/json"),),
        )


def fitting(decode: Callable[[bytes], T], headers: Headers, body: bytes) -> T:
    """Return a body of JSON as what it is to be.

    Raises:
        Declined: 415 and 400 for what is no JSON, 422 for JSON that does not fit.
    """
    check_json(headers, body)
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        at = (
            narrowed(error, body, decode) if len(body) <= SEARCHED_BYTES else Found("$", str(error))
        )
        raise misfit(f"the body does not fit: {at.message}", (pointer(at.path), at.why)) from None
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200] or "nested too deeply"
        told = problem(400, "malformed", "The body is not JSON", text)
        raise Declined(told) from None


def _too_large(limits: Limits) -> Problem:
    return problem(
        413,
        "too-large",
        "The body is too large",
        f"a body of up to {limits.max_body:,} bytes is read; store large data elsewhere and send "
        "where, or let the gateway take more (--max-body)",
        max_body=limits.max_body,
    )


def too_slow(seconds: float) -> Problem:
    """Return the answer to a body that did not come in time."""
    return problem(
        408,
        "too-slow",
        "The body came too slowly",
        f"the whole body is to come within {seconds:g} s",
    )
