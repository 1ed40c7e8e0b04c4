"""Capabilities: what an engine may lack, and what is said where it is asked for."""

from __future__ import annotations

from enum import Enum, auto

from backlane.engine.address import shown
from backlane.errors import NotSupported


class Capability(Enum):
    """What an engine may lack. Read in one place: when a task or queue is declared."""

    RECORDS = auto()  # status, results, progress, find, amend
    KEYS = auto()  # uniqueness enforced by the store
    JOINS = auto()  # runs within the caller's transaction
    CANCELS = auto()
    EXACT_BOUNDS = auto()  # also of bytes, of a wait, and of the share of a group
    EMBEDDED = auto()  # other processes of this machine need no server to share it
    ORDER = auto()  # priorities, fairness between groups, the order within one
    LIMITS = auto()
    RESOURCES = auto()
    SCHEDULES = auto()
    EDGES = auto()  # jobs that wait for other jobs
    STEPS = auto()
    CONTROL = auto()  # pausing, tuning, moving: what is said of a queue to all processes


def lacking(
    capability: Capability, what: str, url: str, capabilities: frozenset[Capability]
) -> NotSupported:
    """Return the error of something that an engine with these capabilities cannot do."""
    if Capability.RECORDS not in capabilities:
        return needs_ledger(what, url)
    remedy = "use one that can, such as sqlite:///jobs.db or postgresql://"
    if capability is Capability.JOINS:
        remedy = "leave it out and enqueue after your commit, or " + remedy
    return NotSupported(
        f"{what} is not possible on {shown(url)}: that engine lacks {capability.name}; {remedy}"
    )


def needs_ledger(what: str, url: str) -> NotSupported:
    """Return the error of something that a transport cannot do without a ledger."""
    url = shown(url)
    sign = "&" if "?" in url else "?"
    return NotSupported(
        f"{what} needs a ledger, and {url} has none: write {url}{sign}ledger=postgresql://… "
        "(or sqlite:///…), the store that keeps the jobs while the broker carries them"
    )
