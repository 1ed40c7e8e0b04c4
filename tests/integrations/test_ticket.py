"""Tickets: a request that comes back with one has the place that was kept for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.line import Line
from werkzeug.test import Client

from backlane import Queue
from backlane.integrations import asgi, wsgi
from backlane.integrations.fastapi import install
from backlane.integrations.flask import BacklaneFlask


def of_asgi(line: Line) -> TestClient:
    async def post(_: Request) -> Response:
        line.task.enqueue("ada")
        return Response(status_code=202)

    routes = [Route("/", post, methods=["POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(asgi.BusyMiddleware)]))


def of_fastapi(line: Line) -> TestClient:
    api = FastAPI()
    install(api, line.app)

    @api.post("/", status_code=202)
    def post() -> None:
        line.task.enqueue("ada")

    return TestClient(api)


def of_wsgi(line: Line) -> Client:
    def post(environ, start_response):
        line.task.enqueue("ada")
        start_response("202 Accepted", [])
        return []

    return Client(wsgi.BusyMiddleware(post))


def of_flask(line: Line) -> Client:
    flask = Flask("shop")
    BacklaneFlask().init_app(flask, line.app)

    @flask.post("/")
    def post():
        line.task.enqueue("ada")
        return "", 202

    return flask.test_client()


@pytest.mark.filterwarnings("ignore:enqueue .or send. inside a running event loop")
@pytest.mark.parametrize("web_of", [of_asgi, of_fastapi, of_wsgi, of_flask])
def test_whoever_comes_back_with_the_ticket_is_let_in_before_newcomers(web_of):
    line = Line(queue=Queue("mail", max_wait=5))
    web = web_of(line)
    line.warm()
    while web.post("/").status_code == 202:
        pass
    first = web.post("/")
    for _ in range(50):
        web.post("/")
    line.work(10)  # there is room again, and it is promised

    newcomer = web.post("/")
    line.wait_out(timedelta(seconds=int(first.headers["Retry-After"])))
    returned = web.post("/", headers={"Backlane-Ticket": first.headers["Backlane-Ticket"]})

    assert (newcomer.status_code, returned.status_code) == (503, 202)
    line.app.close()
