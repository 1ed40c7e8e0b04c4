"""Recalling: what a job of several steps did already, and the newest result of a task."""

from __future__ import annotations

from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.model.job import Step


class Latest(msgspec.Struct, frozen=True):
    """The newest result of a task: of the succeeded job whose id is the greatest."""

    job: bytes
    ended_ms: int
    result: bytes


class Recalling(Protocol):
    """Each makes a fresh plan."""

    def recall(self, job: bytes) -> Plan[list[Step]]:
        """Return the steps of a job in the order of their first note; kept as long as the
        job's record is, and through a redrive."""

    def latest(self, task: str) -> Plan[Latest | None]:
        """Return the newest result of a task whose policy `keeps_latest`.

        It is a copy, kept by `settle`, and never pruned: the next one replaces it. One
        that kept no result (None) leaves it as it is, and so does an earlier id that ends
        later.
        """
