"""What the type checkers accept is what runs: the public hints, judged by both of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.typing import accepted

HERE = Path(__file__).parent
ACCEPTED, REJECTED = HERE / "accepted.py", HERE / "rejected.py"

Errors = Mapping[Path, Mapping[int, str]]  # by file and line


def mypy() -> Errors:
    """Return what `mypy --strict` says of both files."""
    said = ran("mypy", "--strict", "--no-error-summary", "--show-absolute-path")
    found: dict[Path, dict[int, str]] = {}
    for line in said.splitlines():
        match = re.fullmatch(r"(.+?\.py):(\d+): error: (.*)", line)
        if match:
            found.setdefault(Path(match[1]), {})[int(match[2])] = match[3]
    return found


def pyright() -> Errors:
    """Return what pyright says of both files."""
    said = json.loads(ran("pyright", "--outputjson", "--pythonpath", sys.executable))
    assert said["summary"]["filesAnalyzed"] == 2
    found: dict[Path, dict[int, str]] = {}
    for each in said["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found.setdefault(Path(each["file"]), {})[line] = each["message"]
    return found


def ran(checker: str, *options: str) -> str:
    command = [sys.executable, "-m", checker, *options, str(ACCEPTED), str(REJECTED)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=HERE.parent.parent
    )
    assert done.returncode in (0, 1), done.stderr or done.stdout
    return done.stdout


def marked(file: Path) -> set[int]:
    lines = file.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_checker_accepts_the_example_and_rejects_each_mistake(checker: Callable[[], Errors]):
    errors = checker()

    assert errors.get(ACCEPTED, {}) == {}
    rejected = errors.get(REJECTED, {})
    assert len(marked(REJECTED)) >= 50
    assert {line: said for line, said in rejected.items() if line not in marked(REJECTED)} == {}
    assert marked(REJECTED) - set(rejected) == set()


def test_what_the_checkers_accept_runs():
    accepted.in_a_test()
