"""Locks of queues: whose counts are judged or whose bounds change, nobody else does meanwhile."""

from __future__ import annotations

from backlane.engine.plan import Sql

# Sorted, so that two appends never wait for each other; the transaction's end lets go.
LOCK: Sql[tuple[None]] = Sql(
    """
    select pg_advisory_xact_lock(key)
    from (
        select distinct hashtextextended(name, tableoid::bigint) as key
        from unnest($1::text[]) as given (name)
        cross join (select tableoid from backlane.meta limit 1) as here
        order by key
    ) as ordered
    """
)
