"""What the fault tests share: the size of the run, and its seed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

ASKED = "BACKLANE_PROVE"
SEED = "BACKLANE_SEED"


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
