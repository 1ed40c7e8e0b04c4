"""Flask: answers, tickets and tasks within the application, on a real server."""

from __future__ import annotations

import uuid

import httpx2
import pytest
from flask import Flask, current_app
from tests.serving import served_wsgi

from backlane import Backlane, JobFailed, Queue, WrongUse
from backlane.integrations.flask import BacklaneFlask
from backlane.testing import testing
from backlane.visit import shown
from backlane.worker import Worker


def shop(extension: BacklaneFlask, url: str = "memory://") -> Backlane:
    jobs = Backlane(
        url,
        queues=[Queue("mail", max_jobs=1), Queue("default")],
        middleware=[extension.middleware],
    )

    @jobs.task(queue="mail", name="send")
    def send(user: int) -> int:
        return user

    @jobs.task(name="plain")
    def plain() -> str:
        return current_app.config["GREETING"]

    @jobs.task(name="async")
    async def in_a_loop() -> str:
        return current_app.config["GREETING"]

    return jobs


def web_of(extension: BacklaneFlask, jobs: Backlane) -> Flask:
    flask = Flask("shop")
    flask.config["GREETING"] = "hello"
    extension.init_app(flask, jobs)

    @flask.post("/send")
    def post_send():
        return {"job": str(extension.app.tasks["send"].enqueue(7).id)}, 202

    @flask.get("/jobs/<uuid:job>")
    def show(job):
        return {"state": extension.app.job(job).state}

    @flask.get("/ticket")
    def ticket():
        return repr(shown.get())

    return flask


@pytest.fixture
def web():
    extension = BacklaneFlask()
    jobs = shop(extension)
    with (
        jobs,
        served_wsgi(web_of(extension, jobs)) as address,
        httpx2.Client(base_url=address) as http,
    ):
        yield http


def test_a_full_queue_is_answered_with_when_to_come_back(web):
    first = web.post("/send")
    second = web.post("/send")

    assert first.status_code == 202
    assert second.status_code == 503
    assert second.headers["Content-Type"] == "application/problem+json"
    assert int(second.headers["Retry-After"]) >= 1
    assert second.json()["queue"] == "mail"


def test_a_job_that_is_not_there_is_a_problem(web):
    job = web.post("/send").json()["job"]

    assert web.get(f"/jobs/{job}").json() == {"state": "ready"}
    assert web.get(f"/jobs/{uuid.UUID('01900000-0000-7000-8000-000000000000')}").status_code == 404


def test_a_ticket_is_shown_to_what_runs_within_its_request_and_to_nothing_else(web):
    with_one = web.get("/ticket", headers={"Backlane-Ticket": "mine"})
    without = web.get("/ticket")

    assert (with_one.text, without.text) == ("'mine'", "None")


def test_a_ticket_is_forgotten_behind_a_request_that_fails(web):
    web.get("/nowhere", headers={"Backlane-Ticket": "mine"})

    assert web.get("/ticket").text == "None"


@pytest.mark.parametrize("task", ["plain", "async"])
def test_tasks_run_within_the_application(task):
    extension = BacklaneFlask()
    jobs = shop(extension)
    web_of(extension, jobs)

    with testing(jobs) as kit:
        job = jobs.tasks[task].enqueue()
        kit.drain()

        assert job.result(timeout=0) == "hello"


def test_a_worker_makes_the_application_that_no_request_needed(tmp_path):
    made = []

    def create() -> Flask:
        made.append(1)
        return web_of(extension, jobs)

    extension = BacklaneFlask(create)
    jobs = shop(extension, f"sqlite:///{tmp_path}/jobs.db")

    with jobs, Worker(jobs):
        results = [jobs.tasks["plain"].enqueue().result(timeout=20) for _ in range(3)]

    assert results == ["hello"] * 3
    assert made == [1]


def test_a_task_without_an_application_says_what_to_do():
    jobs = shop(BacklaneFlask())

    with testing(jobs) as kit:
        job = jobs.tasks["plain"].enqueue()
        kit.drain()

        with pytest.raises(JobFailed, match="create"):
            job.result(timeout=0)


def test_an_application_that_was_not_initialised_is_told_as_such():
    with Flask("other").app_context(), pytest.raises(WrongUse, match="init_app"):
        _ = BacklaneFlask().app
