"""`backlane workflows`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backlane import Backlane, WorkflowHandle, chain
from backlane.engine.protocol import Wanted
from backlane.model.outcome import ErrorRecord, Failed, Outcome, Reason, Settlement, Succeeded

FAILED = Failed(Reason.ERROR, ErrorRecord("ValueError", "no"))


@pytest.fixture
def app(here, url: str) -> Iterator[Backlane]:
    app = Backlane(url)

    @app.task(name="one")
    def one(number: int) -> int:
        return number

    @app.task(name="two")
    def two(number: int) -> int:
        return number

    with app:
        yield app


@pytest.fixture
def run(app: Backlane) -> WorkflowHandle[int]:
    return chain(app.tasks["one"].node(1), app.tasks["two"].node()).enqueue()


def end(app: Backlane, outcome: Outcome) -> None:
    """Let the job next in line end so."""
    wanted = Wanted(owner="ann", number=1, lease_ms=30_000, queues=("default",))
    (lease,) = app.engine.run(app.engine.claim(wanted)).leases
    app.engine.run(app.engine.settle([Settlement(lease.job, lease.token, outcome)]))


def test_a_workflow_is_shown_with_its_nodes(backlane, run, url):
    lines = backlane("workflows", "show", run.id, "--url", url).stdout.splitlines()

    assert lines[0] == f"workflow {run.id} is ready: 0 of 2 done"
    assert lines[1].split() == ["id", "task", "queue", "state", "note"]
    assert lines[2].split()[1:] == ["one", "default", "ready"]
    assert lines[3].split()[1:] == ["two", "default", "blocked", "waits", "for", "1", "job"]


def test_as_json(shown, app, run):
    end(app, Succeeded(b"1"))

    told = shown("workflows", "show", str(run.id))

    assert (told["id"], told["state"], told["done"], told["total"]) == (
        *(str(run.id), "running", 1, 2),
    )
    assert [node["state"] for node in told["nodes"]] == ["succeeded", "ready"]


def test_a_workflow_is_cancelled(backlane, run, url):
    said = backlane("workflows", "cancel", run.id, "--url", url).stdout

    assert said == f"2 jobs of workflow {run.id} cancelled\n"
    assert run.state == "cancelled"


def test_what_failed_runs_again(backlane, app, run, url):
    end(app, FAILED)
    shown = backlane("workflows", "show", run.id, "--url", url).stdout.splitlines()

    said = backlane("workflows", "retry", run.id, "--url", url).stdout

    assert shown[0] == (f"workflow {run.id} is failed: 2 of 2 done, 2 of them did not succeed")
    assert said == f"2 jobs of workflow {run.id} will run again\n"
    assert run.state == "running"


def test_one_node_runs_again(backlane, app, run, url):
    end(app, FAILED)

    said = backlane("workflows", "retry", run.id, "--node", run.nodes()[0].id.hex(), "--url", url)

    assert said.stdout == f"2 jobs of workflow {run.id} will run again\n"


def test_a_job_is_no_workflow(backlane, app, run, url):
    job = app.tasks["one"].enqueue(1)

    alone = backlane("workflows", "show", job.id, "--url", url)
    inner = backlane("workflows", "show", run.nodes()[0].id.hex(), "--url", url)
    unknown = backlane("workflows", "show", "01890000-0000-7000-8000-000000000000", "--url", url)

    assert (alone.exit_code, inner.exit_code, unknown.exit_code) == (2, 2, 1)
    assert f"is a job of workflow {run.id}" in inner.stderr
    assert "is a job of none" in alone.stderr
