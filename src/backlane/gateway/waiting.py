"""Waiting: until a job is as a request wants it, or its time is over.

A wait ends early when the caller leaves or the gateway stops; it is then answered with
the job as it is, as a wait that came to nothing would be.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress

from backlane.engine.selection import Selection
from backlane.errors import JobNotFound
from backlane.gateway.site import Receive, Site
from backlane.model.job import JobRecord


async def found(site: Site, job: bytes) -> JobRecord:
    """Read a job.

    Raises:
        JobNotFound: it is not stored.
    """
    engine = site.app.engine
    page = await engine.arun(engine.find(Selection(ids=(job,)), limit=1))
    if not page.records:
        raise JobNotFound(
            f"no job {uuid.UUID(bytes=job)} is stored: it was deleted, or its history has been "
            "pruned; check the id"
        )
    return page.records[0]


async def until(
    site: Site,
    job: bytes,
    is_enough: Callable[[JobRecord], bool],
    seconds: float,
    receive: Receive,
) -> JobRecord:
    """Return the job once it is as wanted, or as it is when the time is over.

    Raises:
        JobNotFound: it is not stored.
    """
    record = await found(site, job)
    if is_enough(record) or seconds <= 0:
        return record
    follower = site.hub.follow(job, record.revision)
    left = asyncio.create_task(departure(receive))
    left.add_done_callback(lambda _: follower.wake())
    loop = asyncio.get_running_loop()
    over = loop.time() + seconds
    try:
        while not left.done() and not follower.is_over and (rest := over - loop.time()) > 0:
            record = await follower.newer(rest) or record
            if is_enough(record):
                break
    finally:
        follower.close()
        left.cancel()
        with suppress(asyncio.CancelledError):
            await left
    return record


async def departure(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
