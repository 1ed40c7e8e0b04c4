"""WSGI: a full queue anywhere in a web application becomes an answer that says when.

    application = BusyMiddleware(application)

For applications that let their errors through. A framework that answers errors itself,
such as Flask or Django, is to be told of `QueueFull` there; for Flask there is
`backlane.integrations.flask`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from backlane.errors import QueueFull
from backlane.problem import busy
from backlane.visit import showing


class BusyMiddleware:
    """Answers a `QueueFull` that leaves the application with 503 and `Retry-After`.

    The answer is a problem document with the figures, 429 where only the caller's own
    group is full, and carries a ticket in `Backlane-Ticket`. A request that brings such
    a ticket along has it used by whatever it enqueues before its response begins.

    .. versionadded:: 0.1
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, request: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        announced = False

        def noted(*given: Any) -> Callable[[bytes], object]:
            nonlocal announced
            announced = True
            return start_response(*given)

        with showing(request.get("HTTP_BACKLANE_TICKET")):
            try:
                answer = self._app(request, noted)
                if isinstance(answer, list | tuple):
                    return answer
                return _Begun(answer)
            except QueueFull as full:
                told = busy(full)
                head = f"{told.status} {HTTPStatus(told.status).phrase}", list(told.headers)
                # With the error's parts it replaces what was announced, and not begun.
                start_response(*head, *([sys.exc_info()] if announced else []))
                return [told.body]


class _Begun:
    """A response whose first part was made already, where an error could still be answered."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self._rest = iter(parts)
        try:
            self._first: bytes | None = next(self._rest, None)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        if self._first is not None:
            yield self._first
        yield from self._rest

    def close(self) -> None:
        close: Callable[[], Any] | None = getattr(self._parts, "close", None)
        if close is not None:
            close()
