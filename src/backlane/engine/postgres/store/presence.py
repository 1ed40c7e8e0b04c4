"""Presence: an owner is there for as long as its session holds a lock of its own.

The server lets the lock go the moment the connection ends, however the process does. A
connection can end without its process, though, so a lock is death only if it stays free
for a second on a server that has been up for five: long enough to come back. Who lost a
connection of its own just now waits for five: what ended that one may have ended all, and
now they all come back at once. An owner that never enlisted (a receiver of raw messages)
is never known dead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.transaction import PostgresTx

FREE_SECONDS, FREE_IN_TROUBLE_SECONDS = 1.0, 5.0
# Owner, when it last took its lock (µs), whether it said that it leaves, whether the server
# has been up for long enough, whether it has leases.
Missing = tuple[str, int, bool, bool, bool]
FORGET_SECONDS = 120.0  # dead for so long: whatever it claimed at the end is in sight

ENLIST: Sql[tuple[int]] = Sql(
    """
    insert into backlane.enlisted (owner, key)
    values ($1::text, case when $2::boolean then hashtextextended($3::text || $1::text, 8022) end)
    on conflict (owner) do update
    set key = excluded.key,
        has_left = false
    returning coalesce(key, 0)
    """
)
LEAVE: Sql[tuple[()]] = Sql(
    """
    update backlane.enlisted
    set has_left = true
    where owner = $1::text
    """
)
# A lock that is tried for as long as the statement lasts, and shared: two that look at
# the same moment do not take each other for the owner.
MISSING: Sql[Missing] = Sql(
    """
    select owner, floor(extract(epoch from since) * 1000000)::bigint, has_left,
        pg_postmaster_start_time() < clock_timestamp() - interval '5 seconds',
        exists (select from backlane.lease where lease.owner = enlisted.owner)
    from backlane.enlisted
    where has_left
    or pg_try_advisory_xact_lock_shared(key)
    """
)
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane.enlisted
    where owner = any ($1::text[])
    and (has_left or pg_try_advisory_xact_lock_shared(key))
    """
)


async def enlist(tx: PostgresTx, owner: str, schema: str, *, has_lock: bool) -> int:
    """Enter an owner; return the number of the lock that it is to hold."""
    return (await tx.rows(ENLIST, owner, has_lock, f"backlane:{schema}:"))[0][0]


async def leave(tx: PostgresTx, owner: str) -> None:
    """Say that an owner has departed."""
    await tx.rows(LEAVE, owner)


class Sight:
    """Who was missing when, as one process saw it."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}  # by `time.monotonic`

    def look(
        self, missing: Sequence[Missing], now: float, lost: float = -math.inf
    ) -> tuple[list[str], list[str]]:
        """Return the dead that have leases, and those to forget.

        Who took its lock again in between, and lost it again, is missing anew.

        Args:
            missing: whose locks are free.
            now: by `time.monotonic`, as `lost`.
            lost: when this process lost a connection last.
        """
        is_in_trouble = now - lost < FREE_IN_TROUBLE_SECONDS
        patience = FREE_IN_TROUBLE_SECONDS if is_in_trouble else FREE_SECONDS
        since = self._since
        self._since = {row[:2]: since.get(row[:2], now) for row in missing}
        dead, forgotten = [], []
        for owner, taken, has_left, is_settled, has_leases in missing:
            absent = now - self._since[owner, taken]
            if not has_left and (not is_settled or absent < patience):
                continue
            if has_leases:
                dead.append(owner)
            elif absent > FORGET_SECONDS:
                forgotten.append(owner)
        return dead, forgotten


class Enlisted:
    """One owner's sign of life."""

    descriptors: tuple[int, ...] = ()  # the process that enlisted is the one that counts

    def __init__(self, depart: Callable[[], None]) -> None:
        self._depart: Callable[[], None] | None = depart

    def close(self) -> None:
        """Give the sign of life up: the owner has departed."""
        depart, self._depart = self._depart, None
        if depart is not None:
            depart()
