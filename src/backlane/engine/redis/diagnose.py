"""Diagnose: settings and states of the server that lose jobs or time, and what mends them."""

from __future__ import annotations

from backlane.engine.protocol import Finding
from backlane.engine.redis.driver import Driver


def diagnose(driver: Driver) -> list[Finding]:
    """Return what is to be known of the server, of this client's way to it, and of the keys."""
    del driver
    return []
