"""What the fault tests share: the size of the run, and its seed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ASKED = "BACKLANE_PROVE"
SEED = "BACKLANE_SEED"
CLOCK = Path(__file__).with_name("clock.c")


@pytest.fixture
def proving() -> bool:
    """Whether the full sizes were asked for (`make prove`)."""
    return os.environ.get(ASKED) == "1"


@pytest.fixture
def chance(record_property: Callable[[str, object], None]) -> random.Random:
    """The chance of a run, whose seed is printed and can be given again."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**9))
    print(f"seed: {SEED}={seed}")
    record_property("seed", seed)
    return random.Random(seed)


@pytest.fixture(scope="session")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that sets the wall clock of a process wrong."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler, or not Linux")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK)]
    subprocess.run(command, check=True)
    return library
