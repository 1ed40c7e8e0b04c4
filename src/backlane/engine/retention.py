"""Retention: how long the history of jobs is kept, and what a sweep did about it."""

from __future__ import annotations

import msgspec


class Swept(msgspec.Struct, frozen=True):
    """What a sweep did; `more` says that it stopped at its limit."""

    lapsed: int = 0
    buried: list[bytes] = []
    expired: int = 0
    aged: int = 0
    pruned: int = 0
    more: bool = False


class Retention(msgspec.Struct, frozen=True):
    """How long the history of finished jobs is kept: by age and by number a queue.

    Nothing younger than `least_ms` is pruned whatever its number, so that sending an
    id again soon after is still answered with the first job.
    """

    done_ms: int = 24 * 3_600_000  # succeeded, cancelled, expired
    done_jobs: int = 1_000_000
    failed_ms: int = 30 * 24 * 3_600_000
    failed_jobs: int = 100_000
    least_ms: int = 60_000
