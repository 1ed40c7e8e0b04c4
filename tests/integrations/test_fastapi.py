"""FastAPI: lifespan, dependencies and answers, with its test client and a real server."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.serving import served

from backlane import Backlane, Queue
from backlane.integrations.fastapi import App, Job, install, lifespan
from backlane.visit import shown
from backlane.worker import Worker


def shop(url: str = "memory://") -> Backlane:
    jobs = Backlane(url, queues=[Queue("mail", max_jobs=1), Queue("default")])

    @jobs.task(queue="mail", name="send")
    async def send(user: int) -> int:
        return user

    @jobs.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return jobs


def web_of(jobs: Backlane, **living: object) -> FastAPI:
    api = FastAPI(lifespan=lifespan(jobs, **living))
    install(api, jobs)

    @api.post("/send", status_code=202)
    async def post_send(app: App) -> dict[str, str]:
        job = await app.tasks["send"].aenqueue(7)
        return {"job": str(job.id)}

    @api.post("/send-from-a-thread", status_code=202)
    def post_send_from_a_thread(app: App) -> dict[str, str]:
        return {"job": str(app.tasks["send"].enqueue(7).id)}

    @api.post("/double", status_code=202)
    async def post_double(app: App, number: int) -> dict[str, str]:
        return {"job": str((await app.tasks["double"].aenqueue(number)).id)}

    @api.get("/jobs/{job_id}")
    async def show(job: Job) -> dict[str, str]:
        return {"state": (await job.arecord()).state}

    @api.get("/jobs/{job_id}/result")
    async def result(job: Job) -> int:
        return int(await job.aresult(timeout=10))

    @api.get("/ticket")
    def ticket() -> str:
        return repr(shown.get())

    return api


@pytest.mark.parametrize("path", ["/send", "/send-from-a-thread"])
def test_a_full_queue_is_answered_with_when_to_come_back(path):
    with TestClient(web_of(shop())) as web:
        first = web.post(path)
        second = web.post(path)

    assert first.status_code == 202
    assert second.status_code == 503
    assert second.headers["content-type"] == "application/problem+json"
    assert int(second.headers["retry-after"]) >= 1
    assert second.json()["queue"] == "mail"


def test_a_job_is_found_by_the_id_in_the_path():
    with TestClient(web_of(shop())) as web:
        job = web.post("/send").json()["job"]

        assert web.get(f"/jobs/{job}").json() == {"state": "ready"}


@pytest.mark.parametrize("job", [uuid.UUID("01900000-0000-7000-8000-000000000000"), uuid.uuid4()])
def test_a_job_that_is_not_there_is_a_problem(job):
    with TestClient(web_of(shop())) as web:
        answer = web.get(f"/jobs/{job}")

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:backlane:unknown-job"


def test_an_application_that_was_not_installed_is_told_as_such():
    api = FastAPI()

    @api.get("/")
    async def index(app: App) -> str:
        return app.url

    with TestClient(api) as web, pytest.raises(RuntimeError, match="install"):
        web.get("/")


def test_a_ticket_is_shown_to_what_runs_within_its_request():
    with TestClient(web_of(shop())) as web:
        with_one = web.get("/ticket", headers={"Backlane-Ticket": "mine"})
        without = web.get("/ticket")

    assert (with_one.json(), without.json()) == ("'mine'", "None")


def test_a_worker_lives_as_long_as_the_server(tmp_path):
    jobs = shop(f"sqlite:///{tmp_path}/jobs.db")
    api = web_of(jobs, worker=lambda: Worker(jobs))

    for _ in range(2):  # a lifespan may begin anew, as with --reload
        with served(api) as address, httpx2.Client(base_url=address) as web:
            job = web.post("/double", params={"number": 21}).json()["job"]

            assert web.get(f"/jobs/{job}/result").json() == 42


def test_a_lifespan_of_ones_own_is_within():
    told = []
    jobs = shop()

    @asynccontextmanager
    async def own(api: FastAPI):
        told.append(api.state.backlane is jobs)
        yield
        told.append("over")

    with TestClient(web_of(jobs, inner=own)):
        assert told == [True]

    assert told == [True, "over"]
