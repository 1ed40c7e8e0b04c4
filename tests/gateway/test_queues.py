"""Queues over HTTP: how full they are, pausing and tuning them."""

from __future__ import annotations

import pytest
from tests.gateway.served import Served
from tests.gateway.test_submit import kind
from tests.hand import take


def test_a_queue_tells_its_depth_its_bounds_and_its_counters(fresh: Served):
    for number in range(2):
        fresh.submit("tiny", arguments={"number": number})
    take(fresh.app, "tiny")

    queue = fresh.client.get("/v1/queues/tiny").json()

    assert (queue["name"], queue["kind"], queue["paused"]) == ("tiny", "tasks", False)
    assert queue["depth"]["jobs"] == 2
    assert (queue["depth"]["ready"], queue["depth"]["running"]) == (1, 1)
    assert queue["bounds"]["max_jobs"] == 2
    assert queue["pressure"] == 1.0
    assert queue["counters"]["appended"] == 2
    assert queue["oldest_ready_age"] >= 0


def test_all_queues_are_listed(fresh: Served):
    fresh.submit("nothing")
    fresh.submit("mail.send", arguments={"user_id": 1})

    listed = fresh.client.get("/v1/queues").json()["queues"]

    assert [queue["name"] for queue in listed] == ["default", "mail"]


def test_a_paused_queue_gives_nothing_until_it_is_resumed(fresh: Served):
    fresh.submit("nothing")

    paused = fresh.post("/v1/queues/default/pause").json()["paused"]
    taken = take(fresh.app)
    resumed = fresh.post("/v1/queues/default/resume").json()["paused"]

    assert (paused, taken, resumed) == (True, [], False)
    assert len(take(fresh.app)) == 1


def test_bounds_are_tuned_and_reset(fresh: Served):
    fresh.submit("nothing")

    tuned = fresh.client.patch(
        "/v1/queues/default", json={"max_jobs": 1, "max_wait": 2.5, "group_share": 0.5}
    ).json()
    full = fresh.submit("nothing")
    lifted = fresh.client.patch("/v1/queues/default", json={"max_wait": None}).json()
    reset = fresh.client.patch("/v1/queues/default", json={"reset": True}).json()

    assert tuned["bounds"] == {**tuned["bounds"], "max_jobs": 1, "max_wait": 2.5}
    assert full.status_code == 503
    assert (lifted["bounds"]["max_wait"], lifted["tuned"]["max_wait"]) == (None, 0.0)
    assert reset["tuned"] == dict.fromkeys(reset["tuned"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"max_jobs": 0}, "/max_jobs"),
        ({"max_jobs": "many"}, "/max_jobs"),
        ({"max_jobs": 2**70}, "/max_jobs"),
        ({"max_bytes": -1}, "/max_bytes"),
        ({"max_wait": 0}, "/max_wait"),
        ({"group_share": 1.5}, "/group_share"),
        ({"reset": 1}, "/reset"),
        ({"paused": True}, ""),
        ([], ""),
    ],
)
def test_a_bound_that_cannot_work_is_named(site: Served, body: object, pointer: str):
    site.submit("nothing")

    answer = site.client.patch("/v1/queues/default", json=body)

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")
    assert [it["pointer"] for it in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("POST", "/pause"), ("POST", "/resume")],
)
def test_a_queue_that_nobody_used_is_not_found(site: Served, method: str, path: str):
    body = {"json": {}} if method == "PATCH" else {}

    answer = site.client.request(method, f"/v1/queues/never{path}", **body)

    assert (answer.status_code, kind(answer)) == (404, "unknown-queue")
