"""Limiting: the verbs of limits, and what limits mean to all other verbs.

Limits are known by name; `task:<task>` and `queue:<queue>` are those of a task and a
queue, others are the application's. A job is under the limits of its `uses`, and under
`queue:<its queue>` if there is one that is not per group. What is declared travels with
appends (`Admission.limits`); what was tuned in the store goes before it. A name that the
store has no limit of bounds nothing.

The rules, the same on every engine:
- **Parts**: each use (limit, part, turn) is counted by itself, whatever its limit says of
  groups; `queue:<queue>` of all its jobs is the part "".
- **Room** of a use is what its limit still allows: concurrency less those that hold it, and
  no more than the tokens of its rate. A lease, and what was acquired, holds its concurrency
  until it is settled, lapsed and reaped, or released. A lease takes a token when given, of
  each limit it is under.
- A **turn** has room for one. Its job holds it from when it first gets in line and finds it
  free until its end (or deletion): while it is ready, blocked on something else, runs, or waits
  for a retry, a snooze or for jobs. Who holds a turn has room in it.
- **In line**: whenever a job would become ready (append, due, back from a lease, unblocked,
  redriven, moved), it becomes blocked instead if, for one of its uses, as many jobs of its queue
  that use it are ready already as there is room, or one of its queue that goes before it waits
  blocked for it. It is blocked on the first such use; turns are looked at before limits. The
  queue's own limit is not looked at.
- **Woken**: a claim, before it takes anything, makes blocked jobs of the queues it wants ready:
  for each use as many as it has room beyond those ready in these queues, by rank, place and
  order of append (a turn: by place and order of append alone), at most 1,000 in all. One
  that has to wait for another of its uses then is blocked on that one, and counts as one of the
  1,000, but not as made ready. Uses are gone through by limit, part and turn. Which uses may
  have room is kept, so that full ones are not looked at: a claim costs the same however many
  jobs are blocked. (With `ids`, the queues are those of these jobs.)
- **Taken**: a ready job with a use that has no room is not leased; it becomes blocked on the
  first such use, at most 1,000 a claim. Of a queue that is paused, of another kind, or whose
  own limit has no room nothing is taken, and nothing in it is moved or woken, nor counted as
  ready when others are woken. A sealed store wakes nothing.
- What frees room rings the queues that have jobs blocked on it (a queue's own limit: the queue);
  `Claimed.next_due_ms` counts the next token of a rate that jobs of the wanted queues wait for,
  and is 0 where 1,000 were moved.
- A blocked job counts in its queue's depth, expires, and can be cancelled, deleted, moved and
  reprioritised as a ready one. Ageing passes it by. Its record tells `due_ms` as a ready one's.
- A job under several limits starts when all of them have room at one time: none is kept free
  for it while it waits for another.

In a fair queue the place of a job that gets in line (ready, or blocked on a use) is its virtual
time (start-time fair queueing): S = max(V, F), and F of its group becomes S + c. Its place is S,
but never before the latest place its group got. V is the greatest place that a claim took; it
becomes max(V, now) when a job gets in line while nothing of the queue is ready or running, or
no V is known. c is the mean run time of the group (jobs without one are one) in whole ms, at
least 1: m // 1000, where an attempt of r ms makes m (first: 1000 r) to (4 m + 1000 r) // 5;
until a group has an m, that of the queue, which all its attempts count for; until that has one,
c is 100. Settling an attempt, but by `Released`, moves F of its group, if there is one, by
max(1, r) - c; then m counts it. A job keeps its place until it is due anew (retry, snooze,
redrive) or moved; `due_ms` stays when it was due, and ageing goes by that.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.model.limit import Limit, LimitRecord, Use


class Declared(msgspec.Struct, frozen=True):
    """What the application's code says of a limit. What was tuned goes before it."""

    limit: Limit


class Tuned(msgspec.Struct, frozen=True):
    """What a person sets at run time in its place; None forgets that."""

    limit: Limit | None


class Acquired(msgspec.Struct, frozen=True):
    """Whether a place was given; if not, after how long to ask again (None: not known)."""

    is_given: bool
    wait_ms: int | None = None


class Limiting(Protocol):
    """Each makes a fresh plan. What it does, it does atomically."""

    def list_limits(self) -> Plan[list[LimitRecord]]:
        """Return the limits by name, at most 1,000."""

    def regulate(self, name: str, change: Declared | Tuned) -> Plan[LimitRecord | None]:
        """Declare or tune a limit. It counts from the next claim on; what runs beyond a
        lowered concurrency runs on. `Tuned` of an unknown limit answers None, but for
        `queue:<a known queue>`, which it makes (declared as `Limit()`). Rings `queue:`'s
        queue, and those that have jobs blocked on it. An append that is accepted declares
        what its `Admission.limits` holds."""

    def acquire(
        self, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Plan[Acquired]:
        """Take a place (and a token) under a limit outside of jobs, for `lease_ms`.

        Of a holder that has one, the end of its lease moves to now + `lease_ms`, and no
        token is taken. A lease that ended frees its place at the next look. An unknown limit is
        made as declared; one that is known stays as it is. `wait_ms` is known where only
        a token is missing.
        """

    def release(self, use: Use, holder: bytes) -> Plan[bool]:
        """Give a place back; False: the holder had none any more."""
