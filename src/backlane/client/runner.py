"""Runners: they take the steps of the core, on httpx2, blocking or in an event loop.

A runner knows connections and nothing of retries. What breaks becomes `Lost`, with
whether the request can have been sent; redirects are not followed, so that the token
goes to the address it was given for and to no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any, TypeVar

import httpx2

from backlane.client.step import (
    Answer,
    Emit,
    Lost,
    Open,
    Read,
    Request,
    Send,
    Sleep,
    Step,
    Steps,
)
from backlane.client.timekeeper import Timekeeper
from backlane.errors import WrongUse

T = TypeVar("T")

# Without one of these the request was not sent in whole, or not at all.
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)

# uvicorn closes a connection that was idle for 5 s: let go a little before it.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.5)


# Ours ends a try after those of httpx2, which know whether there was a connection at all.
_GRACE = 0.05


def lost(error: Exception) -> Lost:
    """Return what came of a request that ended in this error."""
    return Lost(error, sent=not isinstance(error, _UNSENT))


class BlockingRunner:
    """Takes steps on the calling thread."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._time = Timekeeper(http)

    def run(self, steps: Steps[T]) -> T:
        """Take all steps, and return what they come to."""
        reply: Any = None
        with closing(steps):
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as done:
                    value: T = done.value
                    return value
                reply = self._take(step)

    def follow(self, steps: Steps[None]) -> Iterator[Any]:
        """Take the steps, and yield what they emit."""
        reply: Any = None
        stream: _Stream | None = None
        with closing(steps):
            try:
                while True:
                    try:
                        step = steps.send(reply)
                    except StopIteration:
                        return
                    reply = None
                    match step:
                        case Emit(value):
                            yield value
                        case Open():
                            if stream is not None:
                                stream.close()
                            stream, reply = self._open(step)
                        case Read():
                            reply = _NOT_OPEN if stream is None else stream.read()
                        case _:
                            reply = self._take(step)
            finally:
                if stream is not None:
                    stream.close()

    def _take(self, step: Step) -> Any:
        match step:
            case Send():
                return self._send(step)
            case Sleep(seconds):
                time.sleep(seconds)
                return None
            case _:
                raise AssertionError(step)

    def _send(self, sent: Send) -> Answer | Lost:
        _check_open(self._http)
        try:
            with self._time.ending(time.monotonic() + sent.timeout):
                response = self._http.request(**_arguments(sent.request, sent.timeout))
                return _answer(response, response.content)
        except httpx2.HTTPError as error:
            return lost(error)

    def _open(self, step: Open) -> tuple[_Stream | None, Answer | Lost]:
        _check_open(self._http)
        try:
            with self._time.ending(time.monotonic() + step.timeout):
                sent = self._http.build_request(**_streaming(step))
                response = self._http.send(sent, stream=True)
                if response.status_code < 300:
                    return _Stream(response), _answer(response, b"")
                with closing(response):
                    return None, _answer(response, response.read())
        except httpx2.HTTPError as error:
            return None, lost(error)


class _Stream:
    """The body of an answer, as it comes."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._parts = response.iter_bytes()

    def read(self) -> bytes | Lost | None:
        try:
            return next(self._parts, None)
        except httpx2.HTTPError as error:
            return lost(error)

    def close(self) -> None:
        self._response.close()


class AsyncRunner:
    """Takes steps in the running event loop."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def run(self, steps: Steps[T]) -> T:
        """Take all steps, and return what they come to."""
        reply: Any = None
        with closing(steps):
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as done:
                    value: T = done.value
                    return value
                reply = await self._take(step)

    async def follow(self, steps: Steps[None]) -> AsyncIterator[Any]:
        """Take the steps, and yield what they emit."""
        reply: Any = None
        stream: _AsyncStream | None = None
        with closing(steps):
            try:
                while True:
                    try:
                        step = steps.send(reply)
                    except StopIteration:
                        return
                    reply = None
                    match step:
                        case Emit(value):
                            yield value
                        case Open():
                            if stream is not None:
                                await stream.close()
                            stream, reply = await self._open(step)
                        case Read():
                            reply = _NOT_OPEN if stream is None else await stream.read()
                        case _:
                            reply = await self._take(step)
            finally:
                if stream is not None:
                    await stream.close()

    async def _take(self, step: Step) -> Any:
        match step:
            case Send():
                return await self._send(step)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return None
            case _:
                raise AssertionError(step)

    async def _send(self, sent: Send) -> Answer | Lost:
        _check_open(self._http)
        # `timeout` of httpx2 begins anew with each byte: it alone would not end a trickle.
        try:
            async with asyncio.timeout(sent.timeout + _GRACE):
                response = await self._http.request(**_arguments(sent.request, sent.timeout))
        except TimeoutError:
            error = httpx2.ReadTimeout(f"no whole answer within {sent.timeout:.1f} s")
            return Lost(error, sent=True)
        except httpx2.HTTPError as error:
            return lost(error)
        return _answer(response, response.content)

    async def _open(self, step: Open) -> tuple[_AsyncStream | None, Answer | Lost]:
        _check_open(self._http)
        try:
            sent = self._http.build_request(**_streaming(step))
            async with asyncio.timeout(step.timeout + _GRACE):
                response = await self._http.send(sent, stream=True)
                if response.status_code < 300:
                    return _AsyncStream(response), _answer(response, b"")
                async with aclosing(response):
                    return None, _answer(response, await response.aread())
        except TimeoutError:
            return None, Lost(httpx2.ReadTimeout("no answer in time"), sent=True)
        except httpx2.HTTPError as error:
            return None, lost(error)


class _AsyncStream:
    """The body of an answer, as it comes."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._parts = response.aiter_bytes()

    async def read(self) -> bytes | Lost | None:
        try:
            return await anext(self._parts, None)
        except httpx2.HTTPError as error:
            return lost(error)

    async def close(self) -> None:
        await self._response.aclose()


_NOT_OPEN = Lost(ConnectionError("the stream is not open"), sent=False)


def _check_open(http: httpx2.Client | httpx2.AsyncClient) -> None:
    if http.is_closed:
        raise WrongUse("this client is closed; make another one, or keep it open for longer")


def _arguments(request: Request, timeout: float) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.params) or None,
        "headers": dict(request.headers),
        "content": request.body,
        "timeout": timeout,
    }


def _streaming(step: Open) -> dict[str, Any]:
    timeouts = httpx2.Timeout(step.timeout, read=step.silence)
    return {**_arguments(step.request, step.timeout), "timeout": timeouts}


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)
