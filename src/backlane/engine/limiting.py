"""Limiting: the verbs of limits, and what limits mean to all other verbs.

Limits are known by name; `task:<task>` and `queue:<queue>` are those of a task and a
queue, others are the application's. A job is under the limits of its `uses`, and under
`queue:<its queue>` if there is one that is not per group. What is declared travels with
appends (`Admission.limits`); what was tuned in the store goes before it. A name that the
store has no limit of bounds nothing.

The rules, the same on every engine:
- **Room** of a use is what its limit still allows: concurrency less those that hold it, and
  no more than the tokens of its rate. A lease, and what was acquired, holds its concurrency
  until it is settled, lapsed and reaped, or released. A lease takes a token when given. A
  `turn` has room for one; its job holds it from its first lease until its end (or deletion),
  also while it waits for a retry, a snooze or for jobs. Who holds a use has room in it.
- **In line**: whenever a job would become ready (append, due, back from a lease, unblocked,
  redriven), it becomes blocked instead if, for one of its uses, as many jobs of its queue that
  use it are ready already as there is room, or more wait blocked for it. It is blocked on the
  first such use.
- **Woken**: a claim, before it takes anything, makes blocked jobs of the queues it wants ready:
  for each use as many as it has room beyond those ready in these queues, by rank, place and
  order of append (a turn: by place and order of append alone), at most 1,000 in all. Which uses
  may have room is kept, so that full ones are not looked at: a claim costs the same however
  many jobs are blocked.
- **Taken**: a ready job with a use that has no room is not leased; it becomes blocked on
  that use, at most 1,000 a claim. Of a queue whose own limit has no room nothing is taken, and
  nothing in it is moved.
- What frees room rings the queues that have jobs blocked on it; `Claimed.next_due_ms` counts
  the next token of a rate that jobs wait for.
- A blocked job counts in its queue's depth, expires, and can be cancelled, deleted, moved and
  reprioritised as a ready one. Ageing passes it by.
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
        `queue:<a known queue>`, which it makes."""

    def acquire(
        self, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
    ) -> Plan[Acquired]:
        """Take a place (and a token) under a limit outside of jobs, for `lease_ms`.

        Of a holder that has one, the end of its lease moves to now + `lease_ms`, and no
        token is taken. A lease that ended frees its place at the next look. An unknown limit is
        made as declared.
        """

    def release(self, use: Use, holder: bytes) -> Plan[bool]:
        """Give a place back; False: the holder had none any more."""
