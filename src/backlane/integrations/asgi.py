"""ASGI: a full queue anywhere in a web application becomes an answer that says when.

    app = Starlette(routes=routes, middleware=[Middleware(BusyMiddleware)])

Works in any ASGI framework, placed within whatever turns errors into 500: as one of the
framework's own middleware, not around the finished application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from backlane.errors import QueueFull
from backlane.problem import TICKET_HEADER, Problem, busy
from backlane.visit import showing

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TICKET = TICKET_HEADER.lower().encode()


class BusyMiddleware:
    """Answers a `QueueFull` that leaves the application with 503 and `Retry-After`.

    The answer is a problem document with the figures, 429 where only the caller's own
    group is full, and carries a ticket in `Backlane-Ticket`. A request that brings such
    a ticket along has it used by whatever it enqueues.

    An error of a group of tasks (`ExceptionGroup`) is answered so when all in it are
    `QueueFull`; with another error among them it goes on, because that one is not to be
    hidden. Once the response has begun, nothing can be said any more, and it goes on too.

    .. versionadded:: 0.1
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        with showing(_ticket(scope)):
            try:
                await self._app(scope, receive, watched)
            except (QueueFull, ExceptionGroup) as error:
                full = fullest(error)
                if full is None or has_begun:
                    raise
                await _answer(send, busy(full))


def fullest(error: Exception) -> QueueFull | None:
    """Return the refusal that takes longest, if there are refusals in `error` and nothing else."""
    if isinstance(error, QueueFull):
        return error
    if not isinstance(error, ExceptionGroup):
        return None
    refusals = [fullest(each) for each in error.exceptions]
    found = [each for each in refusals if each is not None]
    if len(found) < len(refusals):
        return None
    return max(found, key=_patience)


def _patience(full: QueueFull) -> float:
    if full.retry_after is None:
        return float("inf")
    return full.retry_after.total_seconds()


def _ticket(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _TICKET:
            text: str = value.decode("latin-1")
            return text
    return None


async def _answer(send: Send, problem: Problem) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body})
