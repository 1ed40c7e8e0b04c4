"""ASGI: a full queue is answered from wherever it was raised, while that is possible."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.serving import served

from backlane import Backlane, Queue, QueueFull
from backlane.integrations.asgi import BusyMiddleware
from backlane.visit import shown


def full(seconds: float | None = 3.2, **parts: object) -> QueueFull:
    after = None if seconds is None else timedelta(seconds=seconds)
    figures = {"limit": "jobs", "depth": 1, "bound": 1, "ticket": "signed", **parts}
    return QueueFull("mail", retry_after=after, **figures)


async def refused(_: Request) -> PlainTextResponse:
    raise full()


async def refused_for_a_group(_: Request) -> PlainTextResponse:
    raise full(limit="group", group="acme")


def refused_in_a_thread(_: Request) -> PlainTextResponse:
    raise full()


async def refused_in_tasks(_: Request) -> PlainTextResponse:
    async def fail(seconds: float) -> None:
        raise full(seconds)

    async with asyncio.TaskGroup() as group:
        group.create_task(fail(2))
        group.create_task(fail(40))
    raise AssertionError


async def refused_beside_a_fault(_: Request) -> PlainTextResponse:
    raise ExceptionGroup("two", [full(), ValueError("a fault")])


async def refused_too_late(_: Request) -> StreamingResponse:
    async def parts():
        yield b"begun"
        raise full()

    return StreamingResponse(parts())


async def ticket(_: Request) -> PlainTextResponse:
    return PlainTextResponse(repr(shown.get()))


def ticket_in_a_thread(_: Request) -> PlainTextResponse:
    return PlainTextResponse(repr(shown.get()))


PLACES = [
    refused,
    refused_for_a_group,
    refused_in_a_thread,
    refused_in_tasks,
    refused_beside_a_fault,
    refused_too_late,
    ticket,
    ticket_in_a_thread,
]


@pytest.fixture(scope="module")
def web():
    routes = [Route(f"/{place.__name__}", place) for place in PLACES]
    app = Starlette(routes=routes, middleware=[Middleware(BusyMiddleware)])
    with served(app) as address, httpx2.Client(base_url=address) as http:
        yield http


def test_a_refusal_is_answered_with_when_to_come_back(web):
    answer = web.get("/refused")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "4"
    assert answer.headers["Backlane-Ticket"] == "signed"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["retry_after"] == 3.2


def test_the_share_of_a_group_is_the_callers_own(web):
    assert web.get("/refused_for_a_group").status_code == 429


@pytest.mark.parametrize("place", ["refused_in_a_thread", "refused_in_tasks"])
def test_a_refusal_is_answered_wherever_it_was_raised(web, place):
    assert web.get(f"/{place}").status_code == 503


def test_of_several_refusals_the_longest_is_told(web):
    assert web.get("/refused_in_tasks").json()["retry_after"] == 40


def test_a_fault_beside_a_refusal_is_not_hidden(web):
    assert web.get("/refused_beside_a_fault").status_code == 500


def test_a_response_that_has_begun_is_not_answered_twice(web):
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get("/refused_too_late")


@pytest.mark.parametrize("place", ["ticket", "ticket_in_a_thread"])
def test_a_ticket_is_shown_to_what_runs_within_its_request_and_to_nothing_else(web, place):
    with_one = web.get(f"/{place}", headers={"Backlane-Ticket": "mine"})
    without = web.get(f"/{place}")

    assert (with_one.text, without.text) == ("'mine'", "None")


def test_a_real_queue_is_answered_for():
    jobs = Backlane("memory://", queues=[Queue("mail", max_jobs=1)])

    @jobs.task(queue="mail", name="send")
    def send() -> None: ...

    async def post(_: Request) -> PlainTextResponse:
        job = await send.aenqueue()
        return PlainTextResponse(str(job.id), 202)

    routes = [Route("/", post, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(BusyMiddleware)])
    with served(app) as address, jobs:
        first = httpx2.post(address)
        second = httpx2.post(address, headers={"Backlane-Ticket": b"no ticket \xe9"})

    assert (first.status_code, second.status_code) == (202, 503)
    assert second.json()["queue"] == "mail"
    assert int(second.headers["Retry-After"]) >= 1
