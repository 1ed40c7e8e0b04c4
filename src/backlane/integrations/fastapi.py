"""FastAPI: an application's lifespan, dependencies, and answers to what is refused.

    api = FastAPI(lifespan=lifespan(jobs))
    install(api, jobs)

    @api.post("/images", status_code=202)
    async def resize_image(path: str) -> dict[str, str]:
        job = await resize.aenqueue(path)
        return {"job": str(job.id)}

    @api.get("/jobs/{job_id}")
    async def show(job: Job) -> dict[str, str]:
        return {"state": (await job.arecord()).state}

The gateway is an ASGI application, which `api.mount` takes.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from backlane.app import Backlane
from backlane.errors import BadOption, JobNotFound, QueueFull, WrongUse
from backlane.handle import JobHandle
from backlane.problem import TICKET_HEADER, Problem, busy, problem
from backlane.visit import showing

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_TICKET = TICKET_HEADER.lower().encode()


def lifespan(
    app: Backlane,
    *,
    worker: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    inner: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
) -> Lifespan:
    """Return a lifespan that lets go of the store when the server ends.

    Args:
        app: whose store.
        worker: makes an embedded worker that runs meanwhile: `lambda: Worker(app)`.
        inner: a lifespan of your own, entered within this one.

    .. versionadded:: 0.1
    """

    @asynccontextmanager
    async def lives(api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(app.aclose)
            if worker is not None:
                await stack.enter_async_context(worker())
            if inner is not None:
                await stack.enter_async_context(inner(api))
            yield

    return lives


def install(api: FastAPI, app: Backlane) -> None:
    """Make `app` what the dependencies find, and answer its refusals as problem documents.

    `QueueFull` becomes 503 (429 for the share of a group) with `Retry-After` and a
    ticket; a request that brings the ticket back has it used by what it enqueues.
    `JobNotFound` becomes 404.

    .. versionadded:: 0.1
    """
    api.state.backlane = app
    api.add_middleware(_Tickets)
    api.add_exception_handler(QueueFull, _tell_full)
    api.add_exception_handler(JobNotFound, _tell_missing)


def found_app(request: Request) -> Backlane:
    """Return the application that was installed."""
    app = getattr(request.app.state, "backlane", None)
    if not isinstance(app, Backlane):
        raise WrongUse("no application is installed here; call install(api, app) first")
    return app


App = Annotated[Backlane, Depends(found_app)]


async def found_job(job_id: uuid.UUID, app: App) -> JobHandle[Any]:
    """Return the grip on the job that the path's `job_id` names.

    Raises:
        JobNotFound: there is none, which is answered with 404.
    """
    try:
        return await app.ajob(job_id)
    except BadOption as error:  # a UUID of another version: no job ever had it
        raise JobNotFound(f"there is no job {job_id}") from error


Job = Annotated[JobHandle[Any], Depends(found_job)]


class _Tickets:
    """Shows the ticket of a request to what is enqueued within it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ()) if scope["type"] == "http" else ()
        given = next((value for name, value in headers if name == _TICKET), b"")
        with showing(given.decode("latin-1")):
            await self._app(scope, receive, send)


async def _tell_full(_: Request, error: Exception) -> Response:
    if not isinstance(error, QueueFull):
        raise error
    return _response(busy(error))


async def _tell_missing(_: Request, error: Exception) -> Response:
    return _response(problem(404, "unknown-job", "There is no such job", str(error)))


def _response(told: Problem) -> Response:
    return Response(told.body, told.status, dict(told.headers))
