"""Every command on every store that processes share: it works, and shows no password.

The password is real where the server asks for none: it is sent and not looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.engine.contract import engines

from backlane import Backlane, State
from backlane.cli import main
from backlane.engine.connect import connect
from backlane.engine.protocol import Wanted
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock
from backlane.model.outcome import ErrorRecord, Failed, Reason, Settlement, Succeeded

PASSWORD = "open-sesame"
SHARED = [maker for maker in engines.MAKERS if maker.name != "memory"]

SHOP = """
import os
from backlane import Backlane

app = Backlane(os.environ["SHOP_URL"])

@app.task(name="ship", queue="mail", resource="carrier")
def ship(order: int) -> int:
    return order
"""


@pytest.fixture(params=SHARED, ids=lambda maker: maker.name)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store; where there is a server, its URL has a password."""
    with request.param.place(tmp_path, SystemClock()) as url:
        yield with_password(url)


def with_password(url: str) -> str:
    if url.startswith("postgresql://"):
        return f"{url}&password={PASSWORD}" if "?" in url else f"{url}?password={PASSWORD}"
    return url


@pytest.fixture
def here(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shop.py").write_text(SHOP)
    yield tmp_path
    sys.modules.pop("shop", None)  # or the next test's `shop` would be this one


def told(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, (arguments, result.output)
    assert PASSWORD not in result.output
    return result.stdout


def asked(url: str, *arguments: str) -> Any:
    return json.loads(told(*arguments, "--url", url, "--json"))


@pytest.fixture
def dead(url: str, here: Path) -> uuid.UUID:
    """A dead letter, among other jobs."""
    for order in range(3):
        told("enqueue", "shop:app", "ship", f"order={order}")
    told("enqueue", "shop:app", "ship", "order=7", "--delay", "900")
    with closing(connect(url, SystemClock())) as engine:
        wanted = Wanted("ann", 1, 30_000, ("mail",), lane=None)
        (lease,) = engine.run(engine.claim(wanted)).leases
        outcome = Failed(Reason.ERROR, ErrorRecord("ValueError", "boom"))
        engine.run(engine.settle([Settlement(lease.job, lease.token, outcome)]))
    return uuid.UUID(bytes=lease.job)


def test_jobs_and_dead_letters(url, here, dead) -> None:
    listed = asked(url, "jobs", "list")
    shown = asked(url, "jobs", "show", str(dead))
    assert len(listed["jobs"] if isinstance(listed, dict) else listed) == 4
    assert "boom" in json.dumps(shown)
    assert "boom" in told("dead", "list", "--url", url)
    assert "1 job will run again" in told("dead", "redrive", "--all", "--yes", "--url", url)
    assert "1 job" in told("jobs", "cancel", str(dead), "--url", url)
    assert "1 job" in told("jobs", "retry", str(dead), "--url", url)
    assert "1 job" in told("jobs", "cancel", "--state", "scheduled", "--yes", "--url", url)
    assert "1 job" in told("jobs", "delete", str(dead), "--url", url)
    told("jobs", "show", str(dead), "--url", url, code=1)


def test_queues(url, here, dead) -> None:
    assert "mail" in told("queues", "list", "--url", url)
    assert asked(url, "queues", "list")[0]["name"] == "mail"
    assert "mail" in told("queues", "show", "mail", "--url", url)
    assert "paused" in told("queues", "pause", "mail", "--url", url)
    assert "running" in told("queues", "resume", "mail", "--url", url)
    assert "77" in told("queues", "tune", "mail", "--max-jobs", "77", "--url", url)
    assert "did you mean 'mail'" in CliRunner().invoke(
        main, ["queues", "show", "mial", "--url", url]
    ).output  # fmt: skip
    assert "jobs deleted" in told("queues", "purge", "mail", "--yes", "--url", url)


def test_a_look_says_what_it_was_asked_for_and_no_more(url, here, dead, caplog) -> None:
    """Each command on Redis began with what its server's settings risk."""
    caplog.clear()

    told("queues", "list", "--url", url)

    assert not caplog.records


def test_resources(url, here, dead) -> None:
    assert "carrier" in told("resources", "list", "--url", url)
    told("resources", "open", "carrier", "--for", "60", "--url", url)
    told("resources", "close", "carrier", "--url", url)


def test_capacity(url, here, dead) -> None:
    with closing(connect(url, SystemClock())) as engine:
        wanted = Wanted("ann", 1, 30_000, ("mail",), lane=None)
        (lease,) = engine.run(engine.claim(wanted)).leases
        engine.run(engine.settle([Settlement(lease.job, lease.token, Succeeded())]))

    answer = asked(url, "capacity", "--over", "0.3")

    assert answer["queues"][0]["queue"] == "mail"
    assert answer["overhead_ms"] > 0


def test_migrate_and_doctor(url, here, dead) -> None:
    assert asked(url, "migrate")["applied"] == []
    result = CliRunner().invoke(main, ["doctor", "--url", url, "--json"])
    assert PASSWORD not in result.output
    findings = json.loads(result.stdout)["findings"]
    assert any("no worker serves it" in it["text"] for it in findings)
    # The servers of the tests are told to do without the disk, which is not healthy.
    wrong = [it for it in findings if it["state"] == "error" and "fsync" not in it["text"]]
    assert wrong == []
    assert PASSWORD not in CliRunner().invoke(main, ["doctor", "--app", "shop:app"]).output


def test_a_worker_runs_what_was_enqueued(url, here) -> None:
    job = told("enqueue", "shop:app", "ship", "order=1").strip()
    worker = subprocess.Popen(
        [sys.executable, "-m", "backlane", "worker", "shop:app", "--processes", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with closing(Backlane(url)) as app:
            assert app.job(job).result(timeout=20) == 1
    finally:
        worker.terminate()
        said, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, said
    assert PASSWORD not in said


def test_a_wait_of_an_enqueue(url, here) -> None:
    job = told("enqueue", "shop:app", "ship", "order=1").strip()
    with closing(connect(url, SystemClock())) as engine:
        page = engine.run(engine.find(Selection(ids=(uuid.UUID(job).bytes,)), 1))
    assert [record.state for record in page.records] == [State.READY]
