"""Recalling: steps that a job did already, and what jobs and tasks have resulted in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.model.job import State, Step


class Latest(msgspec.Struct, frozen=True):
    """The newest result of a task: of the succeeded job whose id is the greatest."""

    job: bytes
    ended_ms: int
    result: bytes


class Resulted(msgspec.Struct, frozen=True):
    """A job that is stored, and what it resulted in."""

    job: bytes
    state: State | None  # None: it has not ended
    result: bytes | None = None


class Recalling(Protocol):
    """Each makes a fresh plan."""

    def recall(self, job: bytes) -> Plan[list[Step]]:
        """Return the steps of a job in the order of their first note; kept as long as the
        job's record is, and through a redrive."""

    def results(self, jobs: Sequence[bytes]) -> Plan[list[Resulted]]:
        """Return what those of these jobs that are stored resulted in, in any order.

        A thousand at once at most. It is a part of what `find` reads, for a small part of its
        price: a map's leaves are read by it.
        """

    def latest(self, task: str) -> Plan[Latest | None]:
        """Return the newest result of a task whose policy `keeps_latest`.

        It is a copy, kept by `settle`, and never pruned: the next one replaces it. One
        that kept no result (None) leaves it as it is, and so does an earlier id that ends
        later.
        """
