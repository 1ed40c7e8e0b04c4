"""Streams: a job's changes as server-sent events, while they happen.

    GET /v1/jobs/{id}/events
    event: change
    id: 3
    data: {"id": "…", "state": "running", …}

The id is the job's revision. A client that comes back with `Last-Event-ID` is told nothing
it has seen. A client that reads slowly is told the newest state, not each one between.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.responses import Response

from backlane.errors import JobNotFound
from backlane.gateway.answer import encode
from backlane.gateway.hub import Follower
from backlane.gateway.jobs import check_job, job_id
from backlane.gateway.resource import resource_of
from backlane.gateway.site import Exchange, Receive, Reply, Rule, Scope, Send
from backlane.gateway.waiting import departure, found
from backlane.model.job import JobRecord

log = logging.getLogger("backlane.gateway")

HEARTBEAT_SECONDS = 15.0  # below the 30 to 60 s after which proxies drop what is silent
# How long one event may take to be read; then the client is left to come back.
WRITE_SECONDS = 60.0
RETRY = b"retry: 2000\n\n"  # milliseconds until a client that was cut off comes back
HEARTBEAT = b":\n\n"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy that gathers events would make them late
]


async def events(exchange: Exchange) -> Reply:
    """Follow a job: its state now, then each change, until it has ended."""
    site = exchange.site
    record = await found(site, job_id(exchange))
    check_job(exchange, "read", record)
    seen = _seen(exchange)
    if record.state.is_final and record.revision <= seen:
        return Response(status_code=204)  # by which a browser knows not to come back
    if exchange.scope["method"] == "HEAD":
        return Stream(None, record, seen)
    return Stream(site.hub.follow(record.id, record.revision), record, seen)


ROUTES = [Rule("GET", "/v1/jobs/{job}/events", events, "read")]


def _seen(exchange: Exchange) -> int:
    """Return the revision that the client saw last; what is no number is ignored."""
    given = exchange.header(b"last-event-id") or ""
    return int(given) if given.isdecimal() and len(given) <= 18 else 0


class Stream:
    """A response that lasts as long as the job does."""

    status_code = 200

    def __init__(self, follower: Follower | None, record: JobRecord, seen: int) -> None:
        self._follower, self._seen = follower, seen
        self._first: JobRecord | None = record

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        follower = self._follower
        if follower is None:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        left = asyncio.create_task(departure(receive))
        left.add_done_callback(lambda _: follower.wake())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await _write(send, RETRY)
            await self._tell(follower, left, send)
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("a stream was ended: its client had not read for %g s", WRITE_SECONDS)
        finally:
            follower.close()
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left

    async def _tell(self, follower: Follower, left: asyncio.Task[None], send: Send) -> None:
        record, self._first = self._first, None
        while True:
            if record is not None and record.revision > self._seen:
                self._seen = record.revision
                await _write(send, event(record))
            if record is not None and record.state.is_final:
                return
            record = None  # it may be large, and the next may be long in coming
            with suppress(JobNotFound):
                record = await follower.newer(HEARTBEAT_SECONDS)
            if left.done():
                return
            if record is None:
                if follower.is_over:
                    return
                await _write(send, HEARTBEAT)


async def _write(send: Send, part: bytes) -> None:
    """Send a part; one that is not read in time ends the stream.

    Raises:
        TimeoutError: it was not read.
    """
    async with asyncio.timeout(WRITE_SECONDS):
        await send({"type": "http.response.body", "body": part, "more_body": True})


def event(record: JobRecord) -> bytes:
    """Return a record as an event."""
    # JSON has no line breaks of its own, so one line of data holds it.
    return b"event: change\nid: %d\ndata: %s\n\n" % (record.revision, encode(resource_of(record)))
