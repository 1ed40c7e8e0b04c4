"""Jobs over HTTP: what became of one, its result, cancelling it, running it again."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest
from tests.gateway.served import Served, passed
from tests.gateway.test_submit import kind
from tests.hand import fail, only, succeed, take


def submitted(site: Served, **options: Any) -> str:
    """Submit a call and return the job's path."""
    path: str = site.submit("mail.send", arguments={"user_id": 7}, **options).headers["location"]
    return path


def test_an_unfinished_job_says_when_to_ask_again(fresh: Served):
    answer = fresh.client.get(submitted(fresh))

    assert (answer.status_code, answer.headers["retry-after"]) == (200, "1")
    assert answer.headers["cache-control"] == "no-store"


def test_a_finished_job_has_its_result(fresh: Served):
    path = submitted(fresh)
    succeed(fresh.app, "done", "mail")

    job = fresh.client.get(path)
    result = fresh.client.get(f"{path}/result")

    assert (job.json()["state"], job.json()["result"]) == ("succeeded", "done")
    assert "retry-after" not in job.headers
    assert (result.status_code, result.json()) == (200, "done")


def test_a_failed_job_tells_its_error_and_no_traceback(fresh: Served):
    path = submitted(fresh)
    fail(fresh.app, "mail")

    job = fresh.client.get(path).json()
    result = fresh.client.get(f"{path}/result")

    assert (job["state"], job["reason"]) == ("failed", "error")
    assert job["error"]["kind"] == "builtins.OSError"
    assert set(job["error"]) == {"kind", "message", "attempt", "at", "fingerprint"}
    assert (result.status_code, kind(result)) == (409, "job-failed")
    assert result.json()["error"]["message"] == "no route to host"


def test_the_result_of_an_unfinished_job_is_not_there_yet(fresh: Served):
    answer = fresh.client.get(f"{submitted(fresh)}/result")

    assert (answer.status_code, kind(answer)) == (409, "not-finished")
    assert answer.headers["retry-after"] == "1"


def test_a_waiting_job_is_cancelled_at_once(fresh: Served):
    path = submitted(fresh)

    answer = fresh.post(f"{path}/cancel")
    again = fresh.post(f"{path}/cancel")
    result = fresh.client.get(f"{path}/result")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert again.status_code == 200
    assert kind(result) == "job-cancelled"


def test_a_running_job_is_asked_to_stop(fresh: Served):
    path = submitted(fresh)
    take(fresh.app, "mail")

    answer = fresh.post(f"{path}/cancel").json()

    assert (answer["state"], answer["cancelling"]) == ("running", True)


def test_a_failed_job_runs_again(fresh: Served):
    path = submitted(fresh)
    fail(fresh.app, "mail")

    answer = fresh.post(f"{path}/retry").json()

    assert (answer["state"], answer["attempt"]) == ("ready", 0)
    only(take(fresh.app, "mail"))


def test_a_job_that_runs_cannot_run_again(fresh: Served):
    path = submitted(fresh)
    take(fresh.app, "mail")

    answer = fresh.post(f"{path}/retry")

    assert (answer.status_code, kind(answer)) == (409, "not-redrivable")


# -- waiting --


def test_a_long_poll_ends_when_the_job_does(fresh: Served):
    path = submitted(fresh)
    began = time.monotonic()
    later = threading.Timer(0.3, lambda: succeed(fresh.app, "x", "mail"))
    later.start()

    answer = fresh.client.get(path, params={"wait": 20})
    later.join()

    assert answer.json()["state"] == "succeeded"
    assert passed(0.3, began)


def test_a_long_poll_ends_when_its_time_is_over(fresh: Served):
    path, began = submitted(fresh), time.monotonic()

    answer = fresh.client.get(path, params={"wait": 0.4})

    assert answer.json()["state"] == "ready"
    assert passed(0.4, began)


def test_a_long_poll_for_a_revision_ends_at_the_next_one(fresh: Served):
    path = submitted(fresh)
    seen = fresh.client.get(path).json()["revision"]
    later = threading.Timer(0.2, lambda: take(fresh.app, "mail"))
    later.start()

    answer = fresh.client.get(path, params={"wait": 20, "revision": seen}).json()
    later.join()

    assert (answer["state"], answer["revision"] > seen) == ("running", True)


def test_a_revision_of_the_past_is_answered_at_once(fresh: Served):
    began = time.monotonic()

    answer = fresh.client.get(submitted(fresh), params={"wait": 20, "revision": 0})

    assert answer.status_code == 200
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "", "1e", "∞"])
def test_a_wait_that_is_no_number_is_refused(fresh: Served, wait: str):
    answer = fresh.client.get(submitted(fresh), params={"wait": wait})

    assert answer.status_code == 422


# -- no such job --


@pytest.mark.parametrize(
    "job",
    [
        "x",
        str(uuid.UUID(int=5, version=4)),
        "0" * 32,
        "01a20273-f20e-757c-b58b-b11a906b77dc",
        "%00",
        "ü",
    ],
)
@pytest.mark.parametrize("verb", ["", "/result", "/cancel", "/retry"])
def test_what_is_no_job_is_not_found(site: Served, job: str, verb: str):
    method = "POST" if verb in ("/cancel", "/retry") else "GET"

    answer = site.client.request(method, f"/v1/jobs/{job}{verb}")

    assert (answer.status_code, kind(answer)) == (404, "unknown-job")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs/x", "GET, HEAD"),
        ("GET", "/v1/jobs/x/cancel", "POST"),
        ("GET", "/v1/tasks/nothing/jobs", "POST"),
        ("PUT", "/v1/queues/mail", "GET, HEAD, PATCH"),
        ("OPTIONS", "/v1/queues", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_are_allowed(
    site: Served, method: str, path: str, allowed: str
):
    answer = site.client.request(method, path)

    assert (answer.status_code, kind(answer)) == (405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


def test_head_is_get_without_a_body(site: Served):
    answer = site.client.head(submitted(site))

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/job", "/v1/tasks/a/b/jobs", "/v1/jobs/x/y/z"]
)
def test_an_unknown_path_is_a_problem_too(site: Served, path: str):
    answer = site.client.post(path)

    assert (answer.status_code, kind(answer)) == (404, "unknown-path")
