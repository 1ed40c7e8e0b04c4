"""Limits: how many jobs of a kind run at a time, and how many begin in a time.

A rate is a token bucket kept as one number, the theoretical arrival time of the generic
cell rate algorithm (ITU-T I.371): `spent_us` is the moment at which the bucket will be
full again. All of it is whole microseconds, so that every store computes the same. Where it is
further ahead than it can be, the clock was set back or the rate changed: the bucket is full.
"""

from __future__ import annotations

import msgspec


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """`number` beginnings in `per_ms`, of which up to `burst` at once."""

    number: int
    per_ms: int
    burst: int = 1

    @property
    def interval_us(self) -> int:
        """What one beginning costs; rounded up, so that the rate is never passed."""
        return -(-self.per_ms * 1000 // self.number)


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """How many at a time, and how fast; None: any number. `per_group`: for each group."""

    concurrency: int | None = None
    rate: Rate | None = None
    per_group: bool = False


class Use(msgspec.Struct, frozen=True, array_like=True):
    """A limit that a job is under; with `part` (a group) that part of it alone.

    `turn` needs no limit of that name: the jobs of a part run one at a time, in the order
    of their append whatever their priority, and each keeps its turn until it has ended,
    through retries and snoozes.
    """

    limit: str
    part: str = ""
    turn: bool = False


class LimitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as the engine has it, over all its parts."""

    name: str
    limit: Limit  # in force: tuned, else declared
    declared: Limit
    tuned: Limit | None = None
    running: int = 0  # jobs that run under it, and what was acquired outside of jobs
    blocked: int = 0  # jobs that wait for it, of all queues


# Further ahead than a whole bucket and this, what was spent says nothing: the clock was set
# back, or the rate changed. A second: transactions side by side see clocks that differ a little.
SLACK_US = 1_000_000


def tokens(spent_us: int, rate: Rate, now_us: int) -> int:
    """Return how many may begin now."""
    whole_us = rate.burst * rate.interval_us
    return (whole_us - _missing_us(spent_us, rate, now_us)) // rate.interval_us


def spend(spent_us: int, rate: Rate, number: int, now_us: int) -> int:
    """Return the bucket's state once `number` began; the caller has seen the tokens."""
    return now_us + _missing_us(spent_us, rate, now_us) + number * rate.interval_us


def token_in_us(spent_us: int, rate: Rate, now_us: int) -> int:
    """Return how long until the next token; 0: there is one."""
    whole_us = rate.burst * rate.interval_us
    ahead_us = _missing_us(spent_us, rate, now_us) and spent_us - now_us
    return max(0, ahead_us + rate.interval_us - whole_us)


def _missing_us(spent_us: int, rate: Rate, now_us: int) -> int:
    """Return what a bucket lacks: no more than all of it, and nothing where nothing is known."""
    whole_us = rate.burst * rate.interval_us
    ahead_us = max(0, spent_us - now_us)
    return 0 if ahead_us > whole_us + SLACK_US else min(ahead_us, whole_us)
