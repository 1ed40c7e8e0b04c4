"""Routing: which of the broker's queues a job goes to, and how long it is kept on the way.

A delay that is longer than the broker can keep, or finer, is kept in several parts: the
letter says when it is due, and who receives it too early sends it on.
"""

from __future__ import annotations

import math

from backlane.engine.transport import Delays, Terms
from backlane.engine.transports.name import physical
from backlane.model.job import Lane

DEAD = ".dead"  # behind a queue's name: where its dead letters are

# Who is due so soon is not put off: the way through a delay takes longer than that.
SLIGHT_MS = 50
# A level that is longer than what is left by up to this part is taken: it comes later by
# that, and is spared the many short levels that the rest would take.
OVER = 0.1


def dead_queue(queue: str) -> str:
    """Return the queue that keeps the dead letters of a queue."""
    return queue if queue.endswith(DEAD) else queue + DEAD


def living_queue(queue: str) -> str:
    """Return the queue whose dead letters are in this one."""
    return queue.removesuffix(DEAD)


def broker_queue(prefix: str, queue: str, lane: Lane) -> str:
    """Return what the broker calls the queue of such a job."""
    return physical(prefix, queue, lane)


def can_delay(terms: Terms) -> bool:
    return bool(terms.delays.levels_ms or terms.delays.most_ms)


def hop_ms(delays: Delays, left_ms: int) -> int:
    """Return the delay to ask the broker for, of one of which so much is left."""
    if left_ms <= SLIGHT_MS:
        return 0
    if delays.most_ms:
        return min(left_ms, delays.most_ms)
    levels = delays.levels_ms
    if not levels:
        return 0
    over = next((it for it in levels if it >= left_ms), None)
    if over is not None and over <= math.ceil(left_ms * (1 + OVER)):
        return over
    under = [it for it in levels if it <= left_ms]
    return max(under) if under else min(levels)
