"""The demonstration itself: real workers, a real kill, on a small directory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAST = re.compile(
    r"demo: files=(\d+) jobs=(\d+) done=(\d+) lost=0 repeated=(\d+) workers_killed=1 seconds=[\d.]+"
)


def demo(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backlane", "demo", *args],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A directory of small Python files, one of which cannot be parsed."""
    for number in range(60):
        (tmp_path / f"module_{number}.py").write_text(
            f"def work_{number}(value):\n" + "    value = value + 1\n" * 200 + "    return value\n"
        )
    (tmp_path / "broken.py").write_text("def = 1")
    return tmp_path


def test_every_file_is_indexed_though_a_worker_is_killed(sources):
    done = demo(str(sources))

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    figures = LAST.fullmatch(lines[-1])
    assert figures, lines[-1]
    assert figures.groups()[:3] == ("61", "61", "61")
    assert any(line.split()[:2] == ["value", "24,060"] or "value" in line for line in lines)
    assert any("broken.py: SyntaxError" in line for line in lines)


def test_json_has_the_account_and_the_index(sources):
    done = demo(str(sources), "--json")

    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (answer["account"]["done"], answer["account"]["lost"]) == (61, 0)
    assert answer["index"]["problems"][0]["path"].endswith("broken.py")
    assert LAST.fullmatch(done.stderr.splitlines()[-1])


def test_a_directory_with_no_python_in_it_is_told(tmp_path):
    done = demo(str(tmp_path))

    assert done.returncode == 1
    assert done.stderr == f"backlane: no Python files in {tmp_path}\n"


@pytest.mark.parametrize("name", ["missing", "file.py"])
def test_what_is_no_directory_is_wrong_use(tmp_path, name):
    (tmp_path / "file.py").write_text("")

    done = demo(str(tmp_path / name))

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_interrupted_it_ends_its_workers_too(sources):
    running = subprocess.Popen(
        [sys.executable, "-m", "backlane", "demo", str(sources)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    workers = children(running.pid)

    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert said.splitlines()[-1] == "backlane: interrupted"
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def children(pid: int) -> list[int]:
    """Wait until the process has started two others, and return their ids."""
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        found = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        pairs = [line.split() for line in found.stdout.splitlines()]
        below = [int(child) for child, parent in pairs if int(parent) == pid]
        if len(below) >= 2:
            return below
        time.sleep(0.05)
    raise AssertionError("it started no workers")
