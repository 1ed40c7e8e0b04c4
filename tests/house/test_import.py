"""`import backlane` loads nothing that an application may not need."""

from __future__ import annotations

import subprocess
import sys

MOST_MODULES = 85  # of ours: it was 79 when this was written
LIBRARIES = {"apsw", "sqlite3", "click", "rich", "uvloop", "pydantic", "attrs", "watchfiles"}
UPPER = (
    "backlane.engine.sqlite",
    "backlane.engine.memory",
    "backlane.worker",
    "backlane.testing",
    "backlane.cli",
)

LOADED = """
import sys
before = set(sys.modules)
import backlane
print("\\n".join(sys.modules.keys() - before))
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_importing_loads_little():
    """How long it takes beside `import asyncio` is measured by `python -m bench import`."""
    loaded = run(LOADED).split()

    ours = [name for name in loaded if name.startswith("backlane")]
    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names

    assert len(ours) <= MOST_MODULES, "load what is not always needed where it is needed"
    assert others == {"backlane", "msgspec", "typing_extensions"}  # msgspec imports the last


def test_importing_loads_no_engine_no_command_line_and_no_optional_library():
    loaded = set(run(LOADED).split())

    unwanted = {name for name in loaded if name in LIBRARIES or name.startswith(UPPER)}

    assert "backlane.app" in loaded
    assert unwanted == set()


def test_making_an_application_opens_nothing(tmp_path):
    program = "import backlane; backlane.Backlane('sqlite:///jobs.db')"

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)

    assert list(tmp_path.iterdir()) == []
