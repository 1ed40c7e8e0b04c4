"""`import backlane` is quick, and loads nothing that an application may not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
started = time.process_time()
import {module}
print(time.process_time() - started)
"""

LOADED = """
import sys
import backlane
print("\\n".join(sys.modules))
"""


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def seconds(module: str, cache: Path) -> float:
    """Return the processor time of one import, from bytecode as an installed package has it."""
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)}
    return float(run(TIMED.format(module=module), **compiled))


def test_importing_costs_at_most_twice_what_asyncio_costs(tmp_path):
    """The least of several interleaved runs: noise only ever adds."""
    for module in ("asyncio", "backlane"):
        seconds(module, tmp_path)

    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(seconds("asyncio", tmp_path))
        ours.append(seconds("backlane", tmp_path))
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
