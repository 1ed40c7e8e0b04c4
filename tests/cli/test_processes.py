"""Commands that start processes: `worker`, `run`, `enqueue --wait`, `bench`, `demo`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from backlane.cli.reload import changes

BACKLANE = [sys.executable, "-m", "backlane"]


class Started:
    """A command that runs, with what it has said so far."""

    def __init__(self, here: Path, *args: str) -> None:
        self._said: IO[bytes] = (here / f"said-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(
            [*BACKLANE, *args], cwd=here, stdout=self._said, stderr=self._said
        )

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode()

    def end(self, number: int = signal.SIGTERM, within: float = 20) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)


@pytest.fixture
def start(here: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def run(*args: str) -> Started:
        started.append(Started(here, *args))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                each.end()
            each.process.kill()
            each.process.wait()


def eventually(holds: Callable[[], object], within: float = 20) -> None:
    """Wait until it holds: other processes have no clock of ours."""
    ends_at = time.monotonic() + within
    while not holds():
        assert time.monotonic() < ends_at, "it did not come to hold"
        time.sleep(0.05)


def enqueued(here: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [*BACKLANE, "enqueue", "shop:app", *args, "--timeout", "20"]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_jobs_until_it_is_told_to_stop(start, here, number):
    worker = start("worker", "shop:app")

    done = enqueued(here, "shop.ship", "order=7", "day=2030-01-01")

    assert done.stdout.splitlines()[1:] == ['"7 on Tuesday"'], worker.said()
    assert worker.end(number) == 0, worker.said()
    assert "Traceback" not in worker.said()


def test_a_worker_whose_application_cannot_be_imported_says_why_and_fails(start, here):
    (here / "broken.py").write_text("import backlane\n\nundefined\n")

    worker = start("worker", "broken:app")

    assert worker.process.wait(20) == 2
    assert "NameError: name 'undefined' is not defined" in worker.said()
    assert "broken.py, line 3" in worker.said()
    assert worker.said().count("\n") == 1


def test_a_worker_of_a_queue_that_does_not_exist_names_the_nearest(start):
    worker = start("worker", "shop:app", "--queues", "mial")

    assert worker.process.wait(20) == 2
    assert "mail" in worker.said()
    assert "Traceback" not in worker.said()


@pytest.mark.parametrize(
    "args",
    [
        ("worker",),
        ("worker", "shop.py"),
        ("worker", "shop:app", "--concurrency", "0"),
        ("worker", "shop:app", "--grace", "-1"),
        ("worker", "shop:app", "--queues", ""),
        ("worker", "shop:app", "--max-jobs", "0"),
        ("run", "shop:app", "--watch", "nowhere"),
    ],
)
def test_wrong_use_of_a_worker_is_told_before_anything_starts(backlane, args):
    result = backlane(*args)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_a_job_that_fails_makes_the_waiting_command_fail(start, here):
    (here / "shop.py").write_text(
        "from backlane import Backlane, Retry\n"
        "app = Backlane('sqlite:///shop.db', retry=Retry(attempts=1))\n"
        "@app.task(name='break_')\n"
        "def break_() -> None:\n"
        "    raise OSError('no route')\n"
    )
    start("worker", "shop:app")

    done = enqueued(here, "break_")

    assert done.returncode == 1
    assert "no route" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_development_worker_runs_the_code_as_it_is_now(start, here):
    running = start("run", "shop:app", "--port", "0")
    before = enqueued(here, "shop.ship", "order=1", "day=2030-01-01")

    changed = (here / "shop.py").read_text().replace('f"{order} on', 'f"order {order} on')
    (here / "shop.py").write_text(changed)
    eventually(lambda: "shop.py changed" in running.said())
    after = enqueued(here, "shop.ship", "order=2", "day=2030-01-01")

    assert before.stdout.splitlines()[1:] == ['"1 on Tuesday"'], running.said()
    assert after.stdout.splitlines()[1:] == ['"order 2 on Tuesday"'], running.said()
    assert running.end() == 0, running.said()


def test_a_development_worker_survives_code_that_cannot_be_imported(start, here):
    good = (here / "shop.py").read_text()
    running = start("run", "shop:app", "--port", "0")
    enqueued(here, "shop.ship", "order=1", "day=2030-01-01")

    (here / "shop.py").write_text("app = = 1")
    eventually(lambda: "started again when a file changes" in running.said())
    (here / "shop.py").write_text(good)
    after = enqueued(here, "shop.ship", "order=2", "day=2030-01-01")

    assert after.stdout.splitlines()[1:] == ['"2 on Tuesday"'], running.said()


def test_a_worker_replaces_its_executors_when_code_changes(start, here):
    worker = start("worker", "shop:app", "--reload", ".")
    enqueued(here, "shop.ship", "order=1", "day=2030-01-01")

    changed = (here / "shop.py").read_text().replace('f"{order} on', 'f"order {order} on')
    (here / "shop.py").write_text(changed)
    eventually(lambda: "reloaded" in worker.said())
    after = enqueued(here, "shop.ship", "order=2", "day=2030-01-01")

    assert after.stdout.splitlines()[1:] == ['"order 2 on Tuesday"'], worker.said()
    assert worker.end() == 0


def test_a_killed_development_worker_leaves_no_process_behind(start, here):
    running = start("run", "shop:app", "--port", "0")
    enqueued(here, "shop.ship", "order=1", "day=2030-01-01")
    below = descendants(running.process.pid)

    running.end(signal.SIGKILL)

    assert below
    eventually(lambda: not any(is_alive(pid) for pid in below), within=10)


def descendants(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(line.split()[0]): int(line.split()[1]) for line in found.stdout.splitlines()}
    below, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, its in parents.items() if its == parent]
        below += children
        todo += children
    return below


def is_alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def test_changes_are_seen_without_a_library(here, monkeypatch):
    monkeypatch.setattr("backlane.cli.reload.find_spec", lambda name: None)
    (here / "venv").mkdir()
    seen = changes([here])
    quiet = next(seen)

    (here / "venv" / "ignored.py").write_text("1")
    (here / "notes.txt").write_text("1")
    (here / "new.py").write_text("1")
    changed = next(seen)

    assert quiet == set()
    assert changed == {str(here / "new.py")}


def test_bench_measures_everything_in_the_time_it_is_given(here):
    done = subprocess.run(
        [*BACKLANE, "bench", "--seconds", "3", "--json", "--directory", str(here)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["figures"]) == 8
    assert all(figure["value"] > 0 for figure in answer["figures"])
    assert [path.name for path in here.iterdir()] == ["shop.py"]


def test_a_development_run_serves_what_its_worker_runs(start, here):
    running = start("run", "shop:app", "--port", "0")
    eventually(lambda: "http://127.0.0.1:" in running.said())
    url = next(line for line in running.said().splitlines() if line.startswith("http://"))

    request = urllib.request.Request(
        f"{url}/v1/tasks/shop.ship/jobs",
        data=b'{"arguments": {"order": 1, "day": "2030-01-01"}}',
        headers={"Content-Type": "application/json", "Prefer": "wait=20"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        job = json.loads(answer.read())

    assert job["result"] == "1 on Tuesday"
    assert running.end() == 0, running.said()
