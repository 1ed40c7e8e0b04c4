"""Policies: how long a refused caller waits before it comes back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bench.storm.gate import Rule

BASE, CAP = 0.25, 30.0  # seconds; those of the library's own clients

Delay = Callable[[random.Random, int, float], float]  # attempts so far, the delay before


@dataclass(frozen=True, slots=True)
class Policy:
    """What the gate tells, and what callers do where it tells nothing."""

    name: str
    rule: Rule
    delay: Delay
    obeys: float = 1.0  # the share of callers that come back at all
    spread: float = 0.1  # that an obeying caller adds to what it is told


def _fixed(_rng: random.Random, _attempts: int, _before: float) -> float:
    return 1.0


def _exponential(_rng: random.Random, attempts: int, _before: float) -> float:
    return min(CAP, BASE * 2.0 ** min(attempts, 30))


def _full(rng: random.Random, attempts: int, before: float) -> float:
    return rng.uniform(0, _exponential(rng, attempts, before))


def _decorrelated(rng: random.Random, _attempts: int, before: float) -> float:
    return min(CAP, rng.uniform(BASE, 3 * max(BASE, before)))


FIXED = Policy("fixed 1 s", Rule.SILENT, _fixed)
EXPONENTIAL = Policy("exponential, no jitter", Rule.SILENT, _exponential)
FULL = Policy("full jitter", Rule.SILENT, _full)
DECORRELATED = Policy("decorrelated jitter", Rule.SILENT, _decorrelated)
NAIVE = Policy("same Retry-After for all", Rule.NAIVE, _full, spread=0.0)
SLOTS = Policy("virtual slots, no tickets", Rule.SLOTS, _full)
TICKETS = Policy("virtual slots, tickets", Rule.TICKETS, _full)

POLICIES = (FIXED, EXPONENTIAL, FULL, DECORRELATED, NAIVE, SLOTS, TICKETS)
