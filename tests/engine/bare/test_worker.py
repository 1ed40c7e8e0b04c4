"""A real worker at a real broker without a ledger: what applications meet."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.servers import rabbitmq
from tests.servers.missing import Missing, give_up
from tests.servers.rabbitmq import Node

HERE = Path(__file__).parent
LOADED = """
import os, sys, time
sys.path.insert(0, os.environ["PARLOUR_HOME"])
from parlour import *
from backlane import QueueFull
"""


class Parlour:
    """The application with a URL of its own, its workers and what its tasks wrote."""

    def __init__(self, url: str, folder: Path) -> None:
        self.diary = folder / "diary"
        self.diary.touch()
        self.environment = {
            **os.environ,
            "PARLOUR_URL": url,
            "PARLOUR_DIARY": str(self.diary),
            "PARLOUR_HOME": str(HERE),
            "PYTHONPATH": str(HERE),
        }
        self.url = url
        self.workers: list[subprocess.Popen[bytes]] = []

    def run(self, code: str) -> str:
        """Run code of a program that has the application."""
        done = subprocess.run(
            [sys.executable, "-c", LOADED + code],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, code: str) -> subprocess.Popen[bytes]:
        """Start a program that has the application."""
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-c", LOADED + code],
                env=self.environment,
                start_new_session=True,
            )
        )
        return self.workers[-1]

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "backlane", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def work(self) -> subprocess.Popen[bytes]:
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "backlane", "worker", "parlour:app"],
                env=self.environment,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return self.workers[-1]

    def lines(self) -> list[str]:
        return self.diary.read_text().splitlines()

    def until(self, holds: Callable[[list[str]], bool], seconds: float = 30.0) -> list[str]:
        end = time.monotonic() + seconds
        while not holds(self.lines()):
            assert time.monotonic() < end, self.lines()
            time.sleep(0.02)
        return self.lines()

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@pytest.fixture
def parlour(rabbit_url: str, tmp_path: Path) -> Iterator[Parlour]:
    with contextlib.closing(Parlour(rabbit_url, tmp_path)) as made:
        yield made


@pytest.fixture(scope="session")
def node() -> Node:
    try:
        return rabbitmq.own()
    except Missing as why:
        give_up("rabbitmq", why)


def test_tasks_run_are_retried_put_off_and_die(parlour: Parlour) -> None:
    parlour.work()
    parlour.run("""
began = time.time()
note.using(delay=1).enqueue("later")
note.enqueue("now")
fail.enqueue("failing")
alone.enqueue("alone")
note.enqueue_many(((f"n{n}",), {}) for n in range(100))
""")

    lines = parlour.until(lambda lines: len(lines) >= 106 and "later" in lines)

    assert sorted(lines) == sorted(
        ["now", "later", "alone", *["failing"] * 3, *(f"n{n}" for n in range(100))]
    )
    dead = parlour.command("dead", "list", "--queue", "mail", "--url", parlour.url)
    assert "parlour.fail" in dead
    assert "attempts" in dead
    assert "no route to host" in dead
    assert "1 job" in parlour.command(
        "dead", "redrive", "--queue", "mail", "--yes", "--url", parlour.url
    )
    parlour.until(lambda lines: lines.count("failing") == 6)


def test_the_jobs_of_a_killed_worker_run_with_another(parlour: Parlour) -> None:
    parlour.run('linger.enqueue("long", 2); note.enqueue("short")')
    first = parlour.work()
    parlour.until(lambda lines: "long begins" in lines and "short" in lines)

    os.killpg(first.pid, signal.SIGKILL)
    parlour.work()
    lines = parlour.until(lambda lines: "long ends" in lines)

    assert lines.count("long begins") == 2
    assert lines.count("long ends") == 1


def test_a_worker_that_is_told_to_stop_finishes_what_it_runs(parlour: Parlour) -> None:
    parlour.run('linger.enqueue("long", 1)')
    worker = parlour.work()
    parlour.until(lambda lines: "long begins" in lines)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) == 0
    assert parlour.lines() == ["long begins", "long ends"]


def test_a_full_queue_refuses_and_says_when_to_come_back(parlour: Parlour) -> None:
    told = parlour.run("""
for n in range(5):
    little.enqueue(f"n{n}")
try:
    little.enqueue("too many")
except QueueFull as full:
    print(full.limit, full.jobs, full.bound, full.retry_after.total_seconds())
    print(full)
""")

    assert told.startswith("jobs 5 5 1.0\n")
    parlour.work()
    parlour.until(lambda lines: len(lines) == 5)
    parlour.run('little.enqueue("one more")')
    parlour.until(lambda lines: "one more" in lines)


def test_a_broker_short_of_memory_refuses_at_once_and_nothing_hangs(
    node: Node, tmp_path: Path
) -> None:
    with contextlib.closing(Parlour(f"{node.url}?prefix={rabbitmq.prefix()}", tmp_path)) as parlour:
        parlour.work()
        parlour.run('note.enqueue("before"); fail.enqueue("failing")')
        parlour.until(lambda lines: "before" in lines and lines.count("failing") == 3)
        with node.short_of_memory():
            told = parlour.run("""
began = time.monotonic()
for _ in range(3):
    try:
        note.enqueue("during")
    except QueueFull as full:
        print(full.limit, full.retry_after.total_seconds())
app.close()
print(time.monotonic() - began < 20)
""")
        parlour.run('note.enqueue("after")')
        parlour.until(lambda lines: "after" in lines)

    lines = told.split("\n")
    assert set(lines[:3]) <= {"broker 1.0"}
    assert lines[3] == "True"
    assert "during" not in parlour.lines()
