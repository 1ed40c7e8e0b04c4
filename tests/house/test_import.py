"""`import backlane` is quick, and loads nothing that an application may not need."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 7
BUDGET = 2.0  # times `import asyncio`, which every application of ours pays anyway

LIBRARIES = {"apsw", "sqlite3", "click", "rich", "uvloop", "pydantic", "attrs", "watchfiles"}
UPPER = (
    "backlane.engine.sqlite",
    "backlane.engine.memory",
    "backlane.worker",
    "backlane.testing",
    "backlane.cli",
)

TIMED = """
import time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""

LOADED = """
import sys
import backlane
print("\\n".join(sys.modules))
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def seconds(module: str) -> float:
    return float(run(TIMED.format(module=module)))


def test_importing_costs_at_most_twice_what_asyncio_costs():
    """The least of several interleaved runs: noise only ever adds."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(seconds("asyncio"))
        ours.append(seconds("backlane"))
        if min(ours) <= BUDGET * min(theirs) and len(ours) >= 3:
            break

    assert min(ours) <= BUDGET * min(theirs), f"{min(ours) / min(theirs):.2f} times import asyncio"


def test_importing_loads_no_engine_no_command_line_and_no_optional_library():
    loaded = set(run(LOADED).split())

    unwanted = {name for name in loaded if name in LIBRARIES or name.startswith(UPPER)}

    assert "backlane.app" in loaded
    assert unwanted == set()


def test_making_an_application_opens_nothing(tmp_path):
    program = "import backlane; backlane.Backlane('sqlite:///jobs.db')"

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)

    assert list(tmp_path.iterdir()) == []
