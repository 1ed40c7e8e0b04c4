"""What could not be tried here: named at the end of the run, a failure in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

missing: dict[str, str] = {}  # servers this run could not try, and why


class Missing(Exception):
    """A server that cannot be had here; says what to install."""


def give_up(name: str, why: object) -> NoReturn:
    """Skip the test, or fail it where nothing may be left out."""
    missing[name] = str(why)
    if os.environ.get("CI") or os.environ.get("REQUIRE_ENGINES") == "all":
        pytest.fail(f"{name} is not tested: {why}")
    pytest.skip(f"{name}: {why}")
