"""The web application: the pages, two ways in for work, and the gateway that shows it live."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from examples.timeline import page
from examples.timeline.jobs import app, fan_out, heart, people
from examples.timeline.people import FOLLOWERS, POSTER
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backlane.gateway import gateway
from backlane.integrations.asgi import BusyMiddleware
from backlane.worker import Worker

STATIC = Path(__file__).parent / "static"
LONGEST = 280  # characters of a post
MOST_BYTES = 8_192  # of a request: as many characters of four bytes, each written as %xx
WARM_UP = 12  # hearts for a first post, by which the speed of their queue is known
GRACE_SECONDS = 5.0

# No script, style or address but our own, and none written into the page.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Heart(msgspec.Struct, forbid_unknown_fields=True):
    """What a page sends for a heart: the id makes it the same heart however often it is sent."""

    post: int
    id: uuid.UUID


live = gateway(app)

# -- pages --


def home(_: Request) -> Response:
    """What Ada sees: her own timeline, and the work that her posts make."""
    poster = people.person(POSTER)
    if poster is None:  # the file was taken away from under us
        return HTMLResponse(page.nobody(POSTER), 404)
    return HTMLResponse(page.home(poster, people.timeline(POSTER), FOLLOWERS))


def reader(request: Request) -> Response:
    """What a follower sees."""
    person = people.person(request.path_params["handle"])
    if person is None:
        return HTMLResponse(page.nobody(request.path_params["handle"]), 404)
    return HTMLResponse(page.reader(person, people.timeline(person.handle)))


# -- work --


async def publish(request: Request) -> Response:
    """Store a post and show it to its author; everybody else gets it in the background."""
    form = parse_qs((await _body(request)).decode(errors="replace"))
    text = " ".join("".join(form.get("text", ())).split())
    if not 0 < len(text) <= LONGEST:
        return HTMLResponse(page.refusal(f"A post has 1 to {LONGEST} characters."), 422)
    post, job = await asyncio.to_thread(_published, text)
    if "application/json" not in request.headers.get("accept", ""):
        return RedirectResponse("/", 303)  # a browser without our script
    return JSONResponse({"post": post, "job": job, "followers": FOLLOWERS}, 202)


def _published(text: str) -> tuple[int, str]:
    """Store a post and the job that sends it out in one transaction: both, or neither."""
    with people.connection as db:
        post = people.add_post(POSTER, text, int(time.time() * 1000), FOLLOWERS)
        job = fan_out.using(connection=db).enqueue(post)
        people.is_sent_by(post, str(job.id))
    return post, str(job.id)


async def give_heart(request: Request) -> Response:
    """Take one heart, or raise `QueueFull`, which `BusyMiddleware` answers with 503."""
    try:
        given = msgspec.json.decode(await _body(request), type=Heart)
    except msgspec.DecodeError as error:
        return JSONResponse({"detail": str(error)}, 422)
    enqueuer = heart.using(id=given.id)
    ticket = request.headers.get("Backlane-Ticket")
    if ticket:  # of the refusal before: it keeps the place that was promised
        enqueuer = enqueuer.using(ticket=ticket)
    job = await enqueuer.aenqueue(given.post)
    return JSONResponse({"job": str(job.id)}, 202)


async def _body(request: Request) -> bytes:
    """Read what is sent, which is never much."""
    read = b""
    async for part in request.stream():
        read += part
        if len(read) > MOST_BYTES:
            raise HTTPException(413)
    return read


def hearts(request: Request) -> Response:
    """How many hearts a post has by now, and how full their queue is."""
    post = people.post(request.path_params["post"])
    queue = app.queue(heart.queue).record()
    held = {"held": queue.depth.jobs, "places": queue.bounds.max_jobs}
    return JSONResponse({"hearts": post.hearts if post else 0, **held})


# -- around them --


class Guard:
    """Refuses what another site sends in a visitor's name, and adds our headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"sec-fetch-site", b"none")
        if scope["method"] not in ("GET", "HEAD") and origin not in (b"none", b"same-origin"):
            await Response("from another site", 403)(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sent


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Make the tables, and run a worker for as long as the site is up."""
    await asyncio.to_thread(_settle_in)
    async with Worker(app, grace=GRACE_SECONDS):
        yield
    await app.aclose()


def _settle_in() -> None:
    app.engine.migrate()  # first, for a post's transaction needs the tables of the jobs
    if people.settle_in():
        newest = people.timeline(POSTER)[0]
        for _ in range(WARM_UP):
            heart.enqueue(newest.id)


def make() -> Starlette:
    """Return the site."""
    return Starlette(
        routes=[
            Route("/", home),
            Route("/people/{handle}", reader),
            Route("/posts", publish, methods=["POST"]),
            Route("/posts/{post:int}/hearts", hearts),
            Route("/hearts", give_heart, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
            Mount("/jobs", live),
        ],
        middleware=[Middleware(Guard), Middleware(BusyMiddleware)],
        lifespan=lifespan,
    )
