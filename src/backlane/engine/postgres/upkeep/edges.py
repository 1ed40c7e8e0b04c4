"""Edges: jobs that wait for others, where people change, redrive or move them.

What happens when jobs end by themselves is for the schema to say (`0012_edges.sql`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.record.extra import HOPES, by_job, unpacked
from backlane.engine.postgres.record.moves import many
from backlane.engine.postgres.record.record import STATES, Standing
from backlane.engine.postgres.store.text import loaded
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Edge, When

WHENS = {code: when for when, code in HOPES.items()}
CANCELLED = 3

FOLLOW: Sql[tuple[list[int] | None, list[bytes] | None]] = Sql(
    """
    select rung, changed
    from backlane.follow_all(coalesce($1::bigint, backlane.now_ms()), $2::bigint, $3::bytea[],
        $4::smallint[])
    """
)
PIN: Sql[tuple[list[int]]] = Sql("select states from backlane.pin($1::bytea[])")
TIE: Sql[tuple[list[int] | None]] = Sql(
    """
    select backlane.tie(coalesce($1::bigint, backlane.now_ms()), $2::bigint, $3::bigint[],
        $4::bytea[], $5::smallint[], true, true)
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    insert into backlane.edge (waiting, awaited, hope, is_open)
    select *
    from unnest($1::bigint[], $2::bytea[], $3::smallint[], $4::boolean[])
    on conflict (awaited, waiting) do update
    set hope = excluded.hope,
        is_open = excluded.is_open
    """
)
# They have ended, and what that meant for who waited for them stays so.
CLOSE: Sql[tuple[()]] = Sql(
    """
    update backlane.edge
    set is_open = false
    where awaited = any ($1::bytea[])
    and is_open
    """
)
# They are gone, and nobody waits for them any more.
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane.edge
    where awaited = any ($1::bytea[])
    """
)
# Of those that wait: whom for, how that is to end, and whether it has not yet.
OF_WAITING: Sql[tuple[int, bytes, int, bool]] = Sql(
    """
    select waiting, awaited, hope, is_open and ended.seq is null
    from backlane.edge
    left join lateral (
        select id, seq
        from backlane.job
        where job.id = edge.awaited
        limit 1
    ) as job on true
    left join lateral (
        select seq
        from backlane.ended
        where ended.seq = job.seq
        limit 1
    ) as ended on true
    where waiting = any ($1::bigint[])
    order by awaited
    """
)
QUEUE_NAMES: Sql[tuple[str]] = Sql(
    """
    select name
    from backlane.queue
    where id = any ($1::int[])
    """
)


async def follow(tx: PostgresTx, ended: Sequence[tuple[bytes, int]]) -> None:
    """Follow the edges of jobs that ended, each in this state (its code)."""
    if not ended:
        return
    ids, states = [job for job, _ in ended], [state for _, state in ended]
    rung, changed = (await tx.rows(FOLLOW, tx.wall_ms, tx.boot_ms, ids, states))[0]
    tx.rings.jobs += changed or ()
    await _ring(tx, rung)


async def tie(tx: PostgresTx, edges: Sequence[tuple[int, bytes, When]]) -> None:
    """Let blocked jobs (seq) wait for others, also for such as are still to come."""
    if edges:
        waiting, awaited, whens = zip(*edges, strict=True)
        hopes = [HOPES[when] for when in whens]
        rung = (await tx.rows(TIE, tx.wall_ms, tx.boot_ms, waiting, awaited, hopes))[0][0]
        await _ring(tx, rung)


async def _ring(tx: PostgresTx, queues: Sequence[int] | None) -> None:
    if queues:
        tx.rings.queues |= {loaded(name) for (name,) in await tx.rows(QUEUE_NAMES, queues)}


async def forget(tx: PostgresTx, jobs: Sequence[bytes]) -> None:
    """Forget the edges to jobs that are gone."""
    await tx.rows(FORGET, jobs)


class Renewed:
    """What jobs that are to begin anew wait for, as it is before they do."""

    def __init__(self, tx: PostgresTx) -> None:
        self._tx = tx
        self._states: dict[bytes, int] = {}  # of whom they wait for: 0 not ended, -1 not known
        self._after: dict[int, dict[bytes, When]] = {}  # by seq

    async def look(self, ended: Sequence[Standing]) -> None:
        """Hold whom these wait for."""
        self._after = {one.seq: by_job(unpacked(one.extra).after) for one in ended}
        awaited = sorted({job for edges in self._after.values() for job in edges})
        if awaited:
            states = (await self._tx.rows(PIN, awaited))[0][0]
            self._states = dict(zip(awaited, states, strict=True))

    def why_not(self, one: Standing) -> str | None:
        """Say why a job would wait in vain."""
        for job, when in self._after[one.seq].items():
            state = self._states[job]
            if state > 0 and not _is_met(when, state):
                text, ended = uuid.UUID(bytes=job), STATES[state]
                return f"job {text}, which it waits for, ended as {ended}"
        return None

    def waits_for(self, one: Standing) -> int:
        """Return how many jobs it waits for."""
        return sum(self._states[job] == 0 for job in self._after[one.seq])

    async def begin(self, renewed: Sequence[Standing]) -> None:
        """Keep what these wait for from now on; who waited for them is decided already."""
        await self._tx.rows(CLOSE, [one.id for one in renewed])
        edges = [
            (one.seq, job, HOPES[when], self._states[job] == 0)
            for one in renewed
            for job, when in self._after[one.seq].items()
            if self._states[job] >= 0
        ]
        await many(self._tx, KEEP, edges)


def _is_met(when: When, state: int) -> bool:
    return when is When.ENDED or (when is When.SUCCEEDED) == (state == 1)


async def edges_of(
    tx: PostgresTx, found: Sequence[Standing]
) -> dict[int, tuple[tuple[Edge, ...], tuple[bytes, ...]]]:
    """Return the open edges of jobs that wait, and whom else they waited for."""
    rows = await tx.rows(OF_WAITING, [one.seq for one in found]) if found else []
    open_of: dict[int, dict[bytes, Edge]] = {}
    others: dict[int, list[bytes]] = {}
    for seq, job, hope, is_open in rows:
        if is_open:
            open_of.setdefault(seq, {})[job] = Edge(job, WHENS[hope])
        else:
            others.setdefault(seq, []).append(job)
    edges = {}
    for one in found:
        after = by_job(unpacked(one.extra).after)
        still = open_of.get(one.seq, {})
        inline = [job for job in after if job in still] + [job for job in still if job not in after]
        waited = [job for job in others.get(one.seq, ()) if job not in after]
        edges[one.seq] = (tuple(still[job] for job in inline), tuple(waited))
    return edges
