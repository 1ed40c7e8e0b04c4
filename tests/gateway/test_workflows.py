"""Workflows over HTTP: shown, cancelled, run again."""

from __future__ import annotations

import pytest
from tests.gateway.served import Served
from tests.gateway.test_submit import kind

from backlane.engine.protocol import Admission, Wanted
from backlane.model.ids import new_id
from backlane.model.job import Edge, Job
from backlane.model.outcome import ErrorRecord, Failed, Reason, Settlement

FAILED = Failed(Reason.ERROR, ErrorRecord("ValueError", "no"))


@pytest.fixture
def flow(fresh: Served) -> str:
    """Two jobs, the second of which waits for the first."""
    engine, now = fresh.app.engine, fresh.app.clock.wall_ms()
    first, last = new_id(now), new_id(now)
    jobs = [
        Job(id=first, queue="mail", task="mail.send", body=b"{}", workflow=last),
        Job(
            id=last,
            queue="mail",
            task="mail.send",
            body=b"{}",
            workflow=last,
            after=(Edge(first),),
        ),
    ]
    engine.run(engine.append(jobs, Admission()))
    return last.hex()


def fail_first(served: Served) -> None:
    engine = served.app.engine
    wanted = Wanted(owner="ann", number=1, lease_ms=30_000, queues=("mail",))
    (lease,) = engine.run(engine.claim(wanted)).leases
    engine.run(engine.settle([Settlement(lease.job, lease.token, FAILED)]))


def test_a_workflow_is_shown(fresh: Served, flow: str):
    response = fresh.client.get(f"/v1/workflows/{flow}")

    told = response.json()
    assert response.status_code == 200
    assert response.headers["Retry-After"] == "1"
    assert (told["state"], told["done"], told["total"], told["failed"]) == ("ready", 0, 2, 0)
    assert [node["state"] for node in told["nodes"]] == ["ready", "blocked"]
    assert told["nodes"][1]["waits_for"] == 1


def test_a_workflow_is_cancelled(fresh: Served, flow: str):
    told = fresh.client.post(f"/v1/workflows/{flow}/cancel").json()

    assert (told["changed"], told["workflow"]["state"]) == (2, "cancelled")


def test_a_workflow_runs_again(fresh: Served, flow: str):
    fail_first(fresh)
    failed = fresh.client.get(f"/v1/workflows/{flow}").json()

    told = fresh.client.post(f"/v1/workflows/{flow}/retry").json()

    assert (failed["state"], failed["failed"]) == ("failed", 2)
    assert (told["changed"], told["workflow"]["state"]) == (2, "running")


@pytest.mark.parametrize("id_", ["01890000-0000-7000-8000-000000000000", "nonsense"])
def test_what_is_no_workflow_is_not_found(fresh: Served, id_: str):
    response = fresh.client.get(f"/v1/workflows/{id_}")

    assert (response.status_code, kind(response)) == (404, "unknown-job")


def test_a_job_is_no_workflow(fresh: Served):
    engine, now = fresh.app.engine, fresh.app.clock.wall_ms()
    job = Job(id=new_id(now), queue="mail", task="mail.send", body=b"{}")
    engine.run(engine.append([job], Admission()))

    response = fresh.client.post(f"/v1/workflows/{job.id.hex()}/cancel")

    assert response.status_code == 404
