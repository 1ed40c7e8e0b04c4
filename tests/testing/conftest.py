"""An application to put under test."""

from __future__ import annotations

import pytest

from backlane import Backlane, Queue


@pytest.fixture
def app() -> Backlane:
    """Its own store is one that must never be opened."""
    return Backlane(
        "sqlite:////nowhere/at/all.db",
        queues=[Queue("mail", max_jobs=5), Queue("video", runs_in="process"), Queue("orders")],
    )
