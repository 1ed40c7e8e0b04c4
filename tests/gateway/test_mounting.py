"""The gateway inside another application, under a prefix, beside its own routes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.gateway.conftest import shop

from backlane import Backlane, BadOption
from backlane.gateway import gateway


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def test_mounted_in_starlette_it_knows_its_prefix(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app:
        mounted = Starlette(routes=[Route("/", hello), Mount("/shop/jobs", gateway(app))])
        client = TestClient(mounted)

        answer = client.post("/shop/jobs/v1/tasks/nothing/jobs")
        job = client.get(answer.headers["location"])

        assert answer.headers["location"].startswith("/shop/jobs/v1/jobs/")
        assert (job.status_code, job.json()["id"]) == (200, answer.json()["id"])
        assert client.get("/").text == "hello"
        assert client.get("/shop/jobs/v1/nothing").status_code == 404
        assert client.get("/v1/queues").status_code == 404


def test_mounted_in_fastapi_it_works_as_well(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app:
        mounted = FastAPI()
        mounted.mount("/jobs", gateway(app))
        client = TestClient(mounted)

        answer = client.post("/jobs/v1/tasks/mail.send/jobs", json={"arguments": {"user_id": 1}})

        assert answer.status_code == 202
        assert client.get(answer.headers["location"]).status_code == 200


def test_behind_a_proxy_that_cuts_a_prefix_off_it_tells_the_whole_path(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app:
        client = TestClient(gateway(app), root_path="/api")

        answer = client.post("/v1/tasks/nothing/jobs")

        assert answer.status_code == 202
        assert answer.headers["location"].startswith("/api/v1/jobs/")


@pytest.mark.parametrize(
    ("client", "public", "expected"),
    [
        ("127.0.0.1", False, 200),
        ("::1", False, 200),
        ("10.0.0.9", False, 403),
        ("10.0.0.9", True, 200),
    ],
)
def test_without_tokens_callers_from_elsewhere_are_refused(
    tmp_path: Path, client: str, public: bool, expected: int
):
    with shop(tmp_path / "jobs.db") as app:
        asked = TestClient(gateway(app, public=public), client=(client, 5000))

        assert asked.get("/v1/queues").status_code == expected


def test_a_web_socket_is_closed(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app, pytest.raises(WebSocketDisconnect) as closed:
        TestClient(gateway(app)).websocket_connect("/v1/queues").__enter__()

    assert closed.value.code == 1000


def test_its_lifespan_closes_the_application(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app, TestClient(gateway(app)) as client:
        assert client.post("/v1/tasks/nothing/jobs").status_code == 202


@pytest.mark.parametrize("options", [{"max_body": 0}, {"max_body": "1"}, {"tokens": "/no/file"}])
def test_what_cannot_work_is_refused_when_it_is_made(options: dict[str, object]):
    with pytest.raises(BadOption):
        gateway(Backlane("memory://"), **options)  # type: ignore[arg-type]


def test_only_an_application_has_a_gateway():
    with pytest.raises(BadOption):
        gateway("shop:app")  # type: ignore[arg-type]
