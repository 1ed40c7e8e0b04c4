"""Tests of an application: its jobs in memory, its time in your hands.

    with testing(app) as t:
        job = send_mail.enqueue(7)
        t.drain()
        assert job.result() == "sent"

Within the block the application's store is an empty one in memory and its clock stands
still until the test moves it; what runs a job is the worker's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backlane.testing.inline import Ran as Ran
    from backlane.testing.kit import Testing as Testing
    from backlane.testing.kit import testing as testing
    from backlane.testing.sight import Sighting as Sighting

__all__ = ["Ran", "Sighting", "Testing", "testing"]

_HOMES = {"Ran": "inline", "Sighting": "sight", "Testing": "kit", "testing": "kit"}


def __getattr__(name: str) -> Any:
    """Import on first use: pytest imports this package at the start of every run."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
