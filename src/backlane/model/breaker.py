"""Breakers: a resource that fails pauses the work that depends on it.

A pure state machine; engines keep its state and the clock is theirs.
"""

from __future__ import annotations

import msgspec


class ResourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as the engine knows it, and how its breaker stands."""

    name: str
    state: str  # "closed": work runs | "open": it waits | "trying": a few jobs run to see
    opens_in_ms: int | None = None  # until the next trial; None: closed, or open until told
    succeeded: int = 0  # attempts that count for the decision
    failed: int = 0
    trips: int = 0  # times in a row it opened
