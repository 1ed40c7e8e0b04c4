"""Steps: what the client's logic asks of the world, as values.

The logic of the client is written once, as generators that yield steps and are sent
what came of each. Two small runners take the steps, one blocking and one in an event
loop; tests take them by hand, with a clock of their own.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True):
    """One HTTP request to the gateway; `path` is relative to the gateway's address."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}
    body: bytes | None = None

    def with_headers(self, more: Mapping[str, str]) -> Request:
        return msgspec.structs.replace(self, headers={**self.headers, **more})


class Answer(msgspec.Struct, frozen=True):
    """What the gateway (or something before it) answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Lost(msgspec.Struct, frozen=True):
    """There was no whole answer.

    `sent` says whether the request may have reached the gateway, so that what became
    of it is unknown. Where the connection could not be made it was surely not done.
    """

    error: Exception
    sent: bool


class Send(msgspec.Struct, frozen=True):
    """Send a request and wait for the whole answer; is sent an `Answer` or `Lost`."""

    request: Request
    timeout: float  # seconds, for all of it


class Sleep(msgspec.Struct, frozen=True):
    """Let time pass; is sent None."""

    seconds: float


class Open(msgspec.Struct, frozen=True):
    """Send a request and wait for the head of the answer; is sent an `Answer` or `Lost`.

    The body of a status below 300 is left to `Read`; of any other it is in the answer.
    An earlier stream of the same follower is closed.
    """

    request: Request
    timeout: float  # seconds for the head
    silence: float  # seconds without a byte after which the stream counts as lost


class Read(msgspec.Struct, frozen=True):
    """Read on in the open stream; is sent bytes, None at its end, or `Lost`."""


class Emit(msgspec.Struct, frozen=True):
    """Give a value to whoever iterates; is sent None."""

    value: Any


Step = Send | Sleep | Open | Read | Emit
Steps = Generator[Step, Any, T]


def sending(request: Request, timeout: float) -> Steps[Answer | Lost]:
    """Send once, and return what came of it."""
    reply: Answer | Lost = yield Send(request, timeout)
    return reply
