"""Both clients where something is wrong: nothing is done twice, and every wait ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections import Counter
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.client.proxy import proxied
from tests.serving import address, listening, served

from backlane import QueueFull, State
from backlane.client import AsyncClient, Client
from backlane.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown
from backlane.gateway import gateway
from backlane.model.ids import new_id
from backlane.worker import Worker

LATE = 8.0  # seconds, on a busy machine: as against 30 and more where a deadline is not kept


@contextmanager
def at_most(seconds: float):
    began = time.monotonic()
    yield
    assert time.monotonic() - began <= seconds


def appended(app, queue: str) -> int:
    [record] = [it for it in app.engine.run(app.engine.list_queues()) if it.name == queue]
    return record.appended


# -- answers that are lost --


def test_a_lost_answer_makes_no_second_job(caller, app, url):
    with proxied(url) as proxy:
        proxy.drops = 3
        client = caller.client(proxy.url)

        job = caller.get(client.submit("double", {"number": 21}))

        assert proxy.drops == 0
        assert caller.get(job.result(timeout=10)) == 42
    assert appended(app, "default") == 1


def test_a_lost_answer_makes_no_second_message(caller, app, idle_url):
    with proxied(idle_url) as proxy:
        proxy.drops = 3
        orders = caller.client(proxy.url).messages("orders")

        caller.get(orders.send(b"one"))
        received = caller.get(orders.receive(max=10))

    assert [message.body for message in received] == [b"one"]
    assert appended(app, "orders") == 1


def test_an_answer_that_never_comes_through_leaves_the_job_in_doubt(caller, app, idle_url):
    with proxied(idle_url) as proxy, at_most(LATE):
        proxy.drops = 1_000
        client = caller.client(proxy.url, deadline=1)

        with pytest.raises(OutcomeUnknown) as caught:
            caller.get(client.submit("double", {"number": 1}))

    [job] = caught.value.jobs
    assert app.job(job).state is State.READY
    assert appended(app, "default") == 1


def test_a_message_in_doubt_names_the_key_to_send_it_again_with(caller, app, idle_url):
    with proxied(idle_url) as proxy:
        proxy.drops = 1_000
        orders = caller.client(proxy.url, deadline=0.5).messages("orders")
        with pytest.raises(OutcomeUnknown) as caught:
            caller.get(orders.send(b"one"))

        proxy.drops = 0
        key = str(caught.value).rpartition("=")[2].strip("'")
        caller.get(orders.send(b"one", idempotency_key=key, deadline=20))

    assert appended(app, "orders") == 1


def test_a_stream_that_is_cut_brings_each_change_once(caller, url):
    with proxied(url) as proxy:
        client = caller.client(proxy.url)
        job = caller.get(client.submit("steps", {"number": 4}))
        proxy.cuts, proxy.cut_after = 2, 900  # the head of the answer, and not much more

        records = caller.list(job.events())

    revisions = [record.revision for record in records]
    assert proxy.cuts == 0
    assert revisions == sorted(set(revisions))
    assert records[-1].state is State.SUCCEEDED


# -- a full queue --


def test_refusals_are_obeyed_until_all_are_in(app):
    """Sixty callers at once for five places: each comes in, and none asks often."""
    statuses: Counter[int] = Counter()

    async def one(client: AsyncClient, number: int) -> int:
        job = await client.submit("brief", {"number": number})
        return await job.result(timeout=30)

    async def all_at_once(where: str) -> list[int]:
        async with AsyncClient(where, deadline=60) as client:
            return await asyncio.gather(*(one(client, number) for number in range(60)))

    with served(counted(gateway(app), statuses)) as where, Worker(app, concurrency=2):
        with Client(where) as client:  # so that something is known of the speed
            for number in range(30):
                client.submit("brief", {"number": number}, wait=5)
        statuses.clear()
        results = asyncio.run(all_at_once(where))

    assert results == list(range(60))
    assert appended(app, "small") == 90
    assert statuses[202] == 60
    assert statuses[503] <= 3 * 60


def counted(asgi: Any, statuses: Counter[int]) -> Any:
    """Return the application, with the answers to submissions counted by status."""

    async def counting(scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start" and scope["method"] == "POST":
                statuses[message["status"]] += 1
            await send(message)

        await asgi(scope, receive, sending)

    return counting


def test_a_queue_of_unknown_speed_is_told_as_full_at_the_deadline(caller, idle_url):
    client = caller.client(idle_url, deadline=2)
    for number in range(5):
        caller.get(client.submit("brief", {"number": number}))

    with at_most(LATE), pytest.raises(QueueFull) as caught:
        caller.get(client.submit("brief", {"number": 5}))

    full = caught.value
    assert (full.queue, full.limit, full.depth, full.bound) == ("small", "jobs", 5, 5)


# -- servers that are away, or as good as --


def test_a_gateway_that_is_away_is_waited_for_until_the_deadline(caller):
    with closing(listening()) as door:
        nobody = address(door)
    client = caller.client(nobody, deadline=0.6)

    with at_most(LATE), pytest.raises(GatewayUnavailable):
        caller.get(client.submit("double", {"number": 1}))


def test_a_server_that_says_nothing_is_waited_for_until_the_deadline(caller):
    with closing(listening()) as door, at_most(LATE):
        client = caller.client(address(door), deadline=0.6)

        with pytest.raises(OutcomeUnknown):
            caller.get(client.submit("double", {"number": 1}))


def test_a_server_that_trickles_is_waited_for_until_the_deadline(caller):
    async def trickle(_: Request) -> StreamingResponse:
        async def parts():
            for _ in range(600):
                yield b" "
                await asyncio.sleep(0.05)

        return StreamingResponse(parts())

    routes = [Route("/{path:path}", trickle, methods=["GET", "POST"])]
    with served(Starlette(routes=routes)) as where, at_most(LATE):
        client = caller.client(where, deadline=0.6)

        with pytest.raises(OutcomeUnknown):
            caller.get(client.submit("double", {"number": 1}))


@contextmanager
def trickling(head: bytes):
    """A server that answers with this head, or part of one, and then a byte now and then."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(head)
            while not over.wait(0.05):
                connection.sendall(b"x")

    def serve(door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()

    with closing(listening()) as door:
        threading.Thread(target=serve, args=(door,), daemon=True).start()
        yield address(door)
        over.set()
        door.shutdown(socket.SHUT_RDWR)


HEADS = [
    b"HTTP/1.1 200 OK\r\nX-Field: ",
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5;",
]


@pytest.mark.parametrize("head", HEADS)
def test_neither_head_nor_error_can_trickle_beyond_the_deadline(caller, head: bytes):
    with trickling(head) as where:
        client = caller.client(where, deadline=0.6, timeout=0.4)
        job = client.job(str(uuid.UUID(bytes=new_id(int(time.time() * 1000)))))

        with at_most(LATE), pytest.raises(OutcomeUnknown):
            caller.get(client.submit("double", {"number": 1}))
        with at_most(LATE), pytest.raises(GatewayUnavailable):
            caller.list(job.events())


def test_a_gateway_that_comes_back_is_found_again(caller, app):
    with closing(listening()) as door:
        where = address(door)
    client = caller.client(where)

    def serve() -> None:
        time.sleep(1)
        with served(gateway(app), int(where.rpartition(":")[2])):
            is_done.wait(20)

    is_done = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with at_most(20):
            job = caller.get(client.submit("double", {"number": 1}))
    finally:
        is_done.set()
        thread.join()

    assert job.submitted.state is State.READY


# -- whom a token is for --


def test_a_redirect_is_not_followed_and_the_token_stays_here(caller):
    seen = []

    async def elsewhere(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return Response()

    with served(Starlette(routes=[Route("/{path:path}", elsewhere, methods=["POST"])])) as other:

        async def redirect(_: Request) -> Response:
            return RedirectResponse(f"{other}/v1", 307)

        routes = [Route("/{path:path}", redirect, methods=["POST"])]
        with served(Starlette(routes=routes)) as where:
            client = caller.client(where, token="secret")

            with pytest.raises(GatewayRefused, match=other):
                caller.get(client.submit("double", {"number": 1}))

    assert seen == []
    assert "secret" not in repr(client)
