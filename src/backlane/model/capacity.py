"""Capacity: what a number of slots can take, and what jobs then wait.

The line is an M/M/c queue: jobs come at random, run times vary as much as their mean,
`slots` of them run at a time. Jobs that all run equally long wait about half of it.
Sources: A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of
Significance in Automatic Telephone Exchanges", 1917 (the formula that has his name);
J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", 1961; L. Kleinrock,
"Queueing Systems", volume 1, 1975, section 3.5 (the waits).
"""

from __future__ import annotations

import math

import msgspec

MOST_SLOTS = 1_000_000  # more were never asked for, and would be counted one by one


class Load(msgspec.Struct, frozen=True):
    """Work that comes to a queue, and the slots that run it."""

    arrivals: float  # jobs a second
    service_s: float  # mean run time of a job, in seconds
    slots: int

    @property
    def offered(self) -> float:
        """Slots that are busy on average, if there are enough (Little): in erlangs."""
        return self.arrivals * self.service_s

    @property
    def utilisation(self) -> float:
        """The busy part of the slots; from 1.0 on the line grows without end."""
        return self.offered / self.slots if self.slots else math.inf

    @property
    def is_stable(self) -> bool:
        """Say whether the line comes to an end."""
        return self.utilisation < 1 or not self.offered

    @property
    def throughput(self) -> float:
        """Jobs a second that the slots can take."""
        return self.slots / self.service_s if self.service_s else math.inf


def blocking(offered: float, slots: int) -> float:
    """Return Erlang's B: how probable it is that all slots are taken, without a line.

    By the recurrence B(n) = a B(n-1) / (n + a B(n-1)), which stays between 0 and 1 where
    the factorials of the formula itself leave every range (Kleinrock, 3.6).
    """
    share = 1.0
    for taken in range(1, slots + 1):
        share = offered * share / (taken + offered * share)
    return share


def waiting(load: Load) -> float:
    """Return Erlang's C: how probable it is that a job waits at all.

    C = B / (1 - u (1 - B)) with the utilisation u; 1.0 for a line that grows.
    """
    if not load.offered:
        return 0.0
    return _waiting(load, blocking(load.offered, load.slots)) if load.is_stable else 1.0


def _waiting(load: Load, blocked: float) -> float:
    return blocked / (1 - load.utilisation * (1 - blocked))


def mean_wait_s(load: Load) -> float:
    """Return the mean wait, W = C s / (c - a): of all jobs, also those that do not wait."""
    return _mean_s(load, waiting(load))


def _mean_s(load: Load, probability: float) -> float:
    if not load.is_stable:
        return math.inf
    return probability * load.service_s / (load.slots - load.offered) if load.offered else 0.0


def percentile_wait_s(load: Load, percent: float) -> float:
    """Return the wait that so many per cent of all jobs do not exceed.

    P(W > t) = C exp(-(c - a) t / s), solved for t: those who wait at all wait
    exponentially long.
    """
    return _percentile_s(load, waiting(load), percent)


def _percentile_s(load: Load, probability: float, percent: float) -> float:
    above = 1 - percent / 100
    if not load.is_stable:
        return math.inf
    if probability <= above:
        return 0.0
    if above <= 0:
        return math.inf
    return math.log(probability / above) * load.service_s / (load.slots - load.offered)


def slots_for(
    arrivals: float, service_s: float, wait_s: float, percent: float | None = None
) -> int | None:
    """Return the fewest slots with which jobs wait at most `wait_s`.

    On average, or with `percent` so many per cent of them. None: more than a million.
    """
    offered = arrivals * service_s
    if offered >= MOST_SLOTS:
        return None
    blocked = 1.0
    for slots in range(1, MOST_SLOTS + 1):
        # The recurrence of `blocking`, carried on from one number of slots to the next.
        blocked = offered * blocked / (slots + offered * blocked)
        load = Load(arrivals, service_s, slots)
        if not load.is_stable:
            continue
        probability = _waiting(load, blocked) if offered else 0.0
        if percent is None:
            wait = _mean_s(load, probability)
        else:
            wait = _percentile_s(load, probability, percent)
        if wait <= wait_s:
            return slots
    return None


def bound_for(load: Load, wait_s: float) -> int:
    """Return the `max_jobs` that keeps the wait of an accepted job within `wait_s`.

    Little again: the line moves at the speed of all slots together, so it may be as long
    as what they take in that time; the jobs that run count against the bound too.
    """
    if not load.service_s:
        return load.slots
    return load.slots + math.floor(wait_s * load.throughput + 1e-9)
