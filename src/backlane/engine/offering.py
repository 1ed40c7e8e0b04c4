"""Offering: ready jobs that a transport is carrying to a worker.

A broker that brings jobs to workers holds a small window of them, by id; the store
holds the jobs. A job of that window is *offered*: still ready in every respect (its
state, its place, its counters, its limits, who may change it), but not named again
until it has left ready, or its offer is void. So nothing begins before its worker
claims it by id, and what never arrives is named again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.model.job import JobRecord, Lane


class Offer(msgspec.Struct, frozen=True):
    """What is asked of a queue: as many jobs as there is room for in its window.

    `window` is the most jobs of this queue and lane that are offered at a time. `void_ms`
    is a time of the store (as `Offered.now_ms` tells it): offers made before it count no
    more, for what was published later has arrived. None: none is known to be void.
    """

    queue: str
    window: int
    lane: Lane = Lane.SHARED
    void_ms: int | None = None


class Carried(msgspec.Struct, frozen=True):
    """A job that was offered: what its message says, and where it goes."""

    job: bytes
    queue: str
    lane: Lane = Lane.SHARED
    group: str | None = None


class Offered(msgspec.Struct, frozen=True):
    """Jobs to be published, and what the one who asked should know for the next time."""

    jobs: list[Carried] = []  # of each queue in the order in which a claim would give them
    now_ms: int = 0  # by the store's wall clock; the offers above were made at it
    more: list[tuple[str, Lane]] = []  # windows that are full while jobs wait behind them
    doubtful: list[tuple[str, Lane]] = []  # windows with an offer that is older than `for_ms`
    next_due_ms: int | None = None  # as of a claim
    buried: list[JobRecord] = []  # as of a claim


class Offering(Protocol):
    """The verbs of a store that a transport can be put before."""

    def offer(self, offers: Sequence[Offer], for_ms: int) -> Plan[Offered]:
        """Name ready jobs that are not offered, and remember that they are.

        First does for these queues what a claim does before it takes: due, lapsed and
        woken jobs become ready. Names none of a queue that is paused, or whose own limit has
        no room (its room less what is offered is the most), and none whose resource is down.
        Limits and the deadlines of single jobs are judged by their claim. An offer that is
        younger than `for_ms` is never void, whatever `void_ms` says; what is void is forgotten.
        An offer further than `for_ms` in the future (the store's clock was set back) is as old
        as one before `void_ms`. A store that is being moved names none.

        Nothing that can be seen of a job changes: no revision, token, counter or event.
        A job that leaves ready, by whatever verb, is offered no more; where it comes back
        it is named again. Two calls at the same time never name the same job. Offers need
        not survive a crash of the store, nor a move: what is named twice is claimed once.
        """

    def withdraw(self, jobs: Sequence[bytes]) -> Plan[None]:
        """Forget that these jobs are offered: their messages were not published, or are
        gone while their claim was refused. What is not offered is passed over."""


class Ledger(Engine, Offering, Protocol):
    """An engine that a transport can be put before: it holds the backlog."""
