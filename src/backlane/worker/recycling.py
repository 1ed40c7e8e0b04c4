"""Recycling: executors that have done enough make room for fresh ones.

For code that leaks: a fresh process serves before the old one leaves, which finishes
what it runs, so recycling costs neither a slot nor an attempt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from backlane.errors import BadOption
from backlane.worker.channel import Ping
from backlane.worker.post import Phase, Post

LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Recycling:
    """After what an executor is replaced; None is never.

    Args:
        jobs: it has run so many.
        rss_mib: it holds so much resident memory, in MiB.
        age: it is so many seconds old.

    Raises:
        BadOption: a value cannot work.
    """

    jobs: int | None = None
    rss_mib: int | None = None
    age: float | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "rss_mib", "age"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadOption(f"recycling: {name} is {value!r}; use more than 0, or leave it out")

    @property
    def is_asked_for(self) -> bool:
        return self != NEVER

    def reason(self, post: Post, now: float) -> str | None:
        """Return why an executor is to be replaced, or None."""
        if post.phase is not Phase.READY or post.is_being_replaced:
            return None
        if self.jobs is not None and post.ran >= self.jobs:
            return f"it ran {post.ran} jobs"
        if self.age is not None and now - post.born_at >= self.age:
            return f"it is {now - post.born_at:.0f} s old"
        if self.rss_mib is not None:
            if post.rss_kib >= self.rss_mib * 1024:
                return f"it holds {post.rss_kib // 1024} MiB"
            post.send(Ping())  # its answer says how much it holds by then
        return None


NEVER = Recycling()


def worn_out(posts: list[Post], recycling: Recycling) -> list[tuple[Post, str]]:
    """Return the executors to be replaced, each with the reason."""
    now = time.monotonic()
    reasons = [(post, recycling.reason(post, now)) for post in posts]
    return [(post, reason) for post, reason in reasons if reason is not None]
