"""The engines that the contract is run against.

To add one, add a `Maker`: how to make an empty engine, and why it cannot be made
here, if it cannot. An engine that is missing is named at the end of the run; where
`CI` is set it fails the run, so that nothing passes by not being tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Engine
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import Clock

missing: dict[str, str] = {}  # engines this run could not try, and why


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Maker:
    """How to get an empty engine of one kind."""

    name: str
    make: Callable[[Path, Clock], Engine]
    why_not: Callable[[], str | None] = _always  # a reason, when there is no server here


MAKERS = [
    Maker("memory", lambda _, clock: MemoryEngine(clock)),
    Maker("sqlite", lambda folder, clock: SqliteEngine(str(folder / "jobs.db"), clock=clock)),
]


def make(maker: Maker, folder: Path, clock: Clock) -> Engine:
    """Make the engine, or skip the test (fail it, in CI) naming what is missing."""
    why_not = maker.why_not()
    if why_not is None:
        return maker.make(folder, clock)
    missing[maker.name] = why_not
    if os.environ.get("CI"):
        pytest.fail(f"engine {maker.name} is not tested: {why_not}")
    pytest.skip(f"engine {maker.name}: {why_not}")
