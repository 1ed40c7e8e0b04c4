"""Limits over HTTP: listed, tuned, and told by metrics and by the jobs that wait."""

from __future__ import annotations

import pytest
from tests.gateway.served import Served
from tests.gateway.test_submit import kind

from backlane.engine.limiting import Declared
from backlane.engine.protocol import Admission
from backlane.model.ids import new_id
from backlane.model.job import Job
from backlane.model.limit import Limit, Rate, Use

NOTHING = {"concurrency": None, "rate": None, "burst": None}


@pytest.fixture
def limited(fresh: Served) -> Served:
    """Three jobs under a limit that allows one."""
    engine, now = fresh.app.engine, fresh.app.clock.wall_ms()
    engine.run(engine.regulate("stripe", Declared(Limit(1, Rate(10, 60_000)))))
    jobs = [
        Job(id=new_id(now), queue="mail", task="mail.send", body=b"{}", uses=(Use("stripe"),))
        for _ in range(3)
    ]
    engine.run(engine.append(jobs, Admission()))
    return fresh


def test_limits_are_listed(limited: Served):
    listed = limited.client.get("/v1/limits").json()

    declared = {"concurrency": 1, "rate": "10/m", "burst": 1}
    assert listed == {
        "limits": [
            {
                "name": "stripe",
                "per_group": False,
                "limit": declared,
                "declared": declared,
                "tuned": None,
                "running": 0,
                "blocked": 2,
            }
        ]
    }


def test_a_limit_is_tuned_and_reset(limited: Served):
    tuned = limited.client.patch("/v1/limits/stripe", json={"concurrency": 5, "burst": 3}).json()
    lifted = limited.client.patch("/v1/limits/stripe", json={"rate": None}).json()
    free = limited.client.patch("/v1/limits/stripe", json={"concurrency": None}).json()
    reset = limited.client.patch("/v1/limits/stripe", json={"reset": True}).json()

    assert tuned["limit"] == tuned["tuned"] == {"concurrency": 5, "rate": "10/m", "burst": 3}
    assert lifted["limit"] == {"concurrency": 5, "rate": None, "burst": None}
    assert free["limit"] == NOTHING
    assert (reset["limit"]["concurrency"], reset["tuned"]) == (1, None)


def test_a_queue_can_be_given_a_limit(limited: Served):
    given = limited.client.patch("/v1/limits/queue:mail", json={"rate": "50/s"}).json()

    assert given["limit"] == {"concurrency": None, "rate": "50/s", "burst": 5}
    assert given["declared"] == NOTHING


def test_an_unknown_limit_is_not_found(limited: Served):
    answer = limited.client.patch("/v1/limits/strpe", json={"concurrency": 5})

    assert (answer.status_code, kind(answer)) == (404, "unknown-limit")
    assert "did you mean 'stripe'?" in answer.json()["detail"]


@pytest.mark.parametrize(
    "bad",
    [
        {"concurrency": 0},
        {"concurrency": "5"},
        {"rate": "fast"},
        {"rate": "2000000/s"},
        {"rate": "0/s"},
        {"burst": 0},
        {"burst": None},
        {"conc": 3},
        {},
        [],
    ],
)
def test_bad_tuning_is_refused(limited: Served, bad):
    answer = limited.client.patch("/v1/limits/stripe", json=bad)

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")
    assert limited.client.get("/v1/limits").json()["limits"][0]["tuned"] is None


def test_a_job_tells_what_it_waits_for(limited: Served):
    waiting = limited.client.get("/v1/limits").json()["limits"][0]["blocked"]
    submitted = limited.submit("nothing").json()

    assert waiting == 2
    assert (submitted["blocked_on"], submitted["waits_for"]) == (None, 0)


def test_metrics_tell_what_runs_and_waits(limited: Served):
    told = limited.client.get("/metrics").text

    assert 'backlane_limit_running{limit="stripe"} 0' in told
    assert 'backlane_limit_blocked{limit="stripe"} 2' in told
    assert 'backlane_limit_concurrency{limit="stripe"} 1' in told
