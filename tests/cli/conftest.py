"""A store, an application beside it, and the command line in that directory."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.engine.contract.engines import lay

from backlane.cli import main
from backlane.engine.connect import connect
from backlane.engine.protocol import Admission, Engine, Wanted
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job, Policy
from backlane.model.outcome import ErrorRecord, Failed, Outcome, Reason, Settlement

SHOP = """
from datetime import date

from backlane import Backlane

app = Backlane("sqlite:///shop.db")
unrelated = 7


@app.task
def ship(order: int, day: date, note: str = "") -> str:
    return f"{order} on {day:%A} {note}".strip()


@app.task(queue="mail")
def send_mail(to: str) -> None:
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the application `shop:app`; nothing of it stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKLANE_URL", raising=False)
    monkeypatch.delenv("BACKLANE_APP", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shop.py").write_text(SHOP)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin and Path(origin).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def url(here: Path) -> str:
    return "sqlite:///shop.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The store that `url` names, open."""
    lay(Path(url.removeprefix("sqlite:///")))
    with closing(connect(url, SystemClock())) as opened:
        yield opened


@pytest.fixture
def backlane(here: Path) -> Callable[..., Result]:
    """The command line: `backlane("jobs", "list")`."""

    def run(*args: str, **extra: Any) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False, **extra)

    return run


@pytest.fixture
def shown(backlane: Callable[..., Result], url: str) -> Callable[..., Any]:
    """What a command prints with `--json`, decoded."""

    def run(*args: str) -> Any:
        result = backlane(*args, "--url", url, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


class Stage:
    """Brings jobs into the states that tests look at."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def enqueued(self, queue: str = "mail", number: int = 1, **fields: Any) -> list[str]:
        """Append jobs and return their ids as text."""
        fields = {"task": "send_mail", "body": b'{"to":"a@b"}', **fields}
        jobs = [
            Job(id=new_id(SystemClock().wall_ms()), queue=queue, **fields) for _ in range(number)
        ]
        self.engine.run(self.engine.append(jobs, Admission()))
        return [str(uuid.UUID(bytes=job.id)) for job in jobs]

    def ended(self, outcome: Outcome, queue: str = "mail", ran_ms: int = 0, **fields: Any) -> str:
        """Append a job, claim it, settle it."""
        (made,) = self.enqueued(queue, policy=Policy(attempts=3), **fields)
        token = self.claimed(made)
        settlement = Settlement(uuid.UUID(made).bytes, token, outcome, ran_ms)
        self.engine.run(self.engine.settle([settlement]))
        return made

    def failed(self, message: str = "no route", queue: str = "mail") -> str:
        error = ErrorRecord("OSError", message, f"Traceback\nOSError: {message}", "f1")
        return self.ended(Failed(Reason.ERROR, error), queue)

    def claimed(self, job: str) -> int:
        """Claim that very job and return the token of its lease."""
        wanted = Wanted(
            owner="w", number=1, lease_ms=60_000, lane=None, ids=(uuid.UUID(job).bytes,)
        )
        (lease,) = self.engine.run(self.engine.claim(wanted)).leases
        return lease.token


@pytest.fixture
def stage(engine: Engine) -> Stage:
    return Stage(engine)
