"""Redrive: jobs that ended are ready again, as far as their keys are free and there is room.

The locks of their queues are held from the sum of what those hold to the commit, as by
an append that goes the exact way; so a redrive never passes a bound either.
"""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.portion import Line
from backlane.engine.postgres.append.reading import GROUPS, LINES, TAKE_BACK, line_of
from backlane.engine.postgres.record.extra import HOLDS, unpacked
from backlane.engine.postgres.record.forget import FORGET_PROGRESS
from backlane.engine.postgres.record.moves import Moves, Placed
from backlane.engine.postgres.record.record import Standing
from backlane.engine.postgres.record.taking import take_out
from backlane.engine.postgres.store.lock import LOCK
from backlane.engine.postgres.store.text import loaded
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep.edges import Renewed
from backlane.engine.selection import Skipped
from backlane.model.job import KeyRule
from backlane.model.queue import group_places

# In the order of the digests, as appends do, so that two never wait for each other. A key
# that is the job's own already, or whose window is over, is taken as well.
TAKE_KEYS: Sql[tuple[int]] = Sql(
    """
    insert into backlane.unique_key as held (seq, digest, id, until_ms, hold)
    select seq, backlane.digest(scope, name), id, until_ms, hold
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::smallint[])
        with ordinality as given (scope, name, seq, id, until_ms, hold, at)
    order by 2, at
    on conflict (digest) do update
    set seq = excluded.seq,
        id = excluded.id,
        until_ms = excluded.until_ms,
        hold = excluded.hold
    where held.seq = excluded.seq
    or held.until_ms <= $7::bigint
    returning seq
    """
)
HOLDERS: Sql[tuple[int, bytes]] = Sql(
    """
    select given.seq, unique_key.id
    from unnest($1::text[], $2::text[], $3::bigint[]) as given (scope, name, seq)
    join backlane.unique_key on digest = backlane.digest(scope, name)
    where unique_key.seq <> given.seq
    and (until_ms is null or until_ms > $4::bigint)
    """
)
NO_DEADLINES: Sql[tuple[()]] = Sql(
    """
    update backlane.job
    set deadline_ms = null
    where seq = any ($1::bigint[])
    and deadline_ms is not null
    """
)


class Redriving:
    """The redrive of some jobs whose rows we hold."""

    def __init__(self, tx: PostgresTx, moves: Moves, now: int) -> None:
        self.skipped: list[Skipped] = []
        self._tx = tx
        self._moves = moves
        self._now = now

    async def hasten(self, scheduled: Sequence[Standing]) -> None:
        """Let scheduled jobs be due now."""
        await take_out(self._tx, scheduled, self._moves)
        for one in scheduled:
            self._moves.line_up(_again(one, self._now), self._now)

    async def renew(self, ended: Sequence[Standing]) -> set[int]:
        """Let jobs that ended be as new; return which, and skip the others."""
        tx, moves = self._tx, self._moves
        await tx.rows(LOCK, sorted({one.queue_name for one in ended}))
        lines = await self._lines(ended)
        anew = Renewed(tx)
        await anew.look(ended)
        holders = await self._holders(ended)
        taken: dict[tuple[str | None, str], bytes] = {}
        renewed = []
        for one in ended:
            line = lines[one.queue_name]
            key = would_hold(one, self._now) and (one.key_scope, one.key_name or "")
            holder = holders.get(one.seq) or (taken.get(key) if key else None)
            why_not = _held(holder) or _no_room(line, one) or anew.why_not(one)
            if why_not:
                self.skipped.append(Skipped(one.id, why_not))
                continue
            if key:
                taken[key] = one.id
            line.jobs += 1
            line.bytes += one.size
            if one.group is not None and line.groups is not None:
                line.groups[loaded(one.group)] = line.groups.get(loaded(one.group), 0) + 1
            renewed.append(one)
        renewed = await self._take_keys(renewed)
        await take_out(tx, renewed, moves)
        for one in renewed:
            moves.at(one.queue, one.priority).bytes += one.size
            moves.gather(one.queue, one.group, 1)
            fresh = _again(one, self._now)._replace(attempt=0, crashes=0, parked_ms=None)
            moves.line_up(fresh, self._now, waits_for=anew.waits_for(one))
        await anew.begin(renewed)
        seqs = [one.seq for one in renewed]
        await tx.rows(NO_DEADLINES, seqs)
        await tx.rows(FORGET_PROGRESS, seqs)
        return set(seqs)

    async def _lines(self, ended: Sequence[Standing]) -> dict[str, Line]:
        """Return the queues of these jobs, with room that was granted elsewhere taken back
        where all of them would not fit beside it."""
        tx = self._tx
        names = sorted({one.queue_name for one in ended})
        rows = await tx.rows(LINES, names)
        if any(_is_short(row, ended) for row in rows):
            await tx.rows(TAKE_BACK, [row[0] for row in rows], None)
            rows = await tx.rows(LINES, names)
        lines = {row[1]: line_of(row) for row in rows}
        await self._read_groups(lines, ended)
        return lines

    async def _read_groups(self, lines: dict[str, Line], ended: Sequence[Standing]) -> None:
        """Read how many jobs each group has, where it may have a share only."""
        shared = {line.id: line for line in lines.values() if line.bounds(None).group_share}
        groups = {
            (one.queue, one.group) for one in ended if one.queue in shared and one.group is not None
        }
        for line in shared.values():
            line.groups = {}
        if not groups:
            return
        queues, names = [queue for queue, _ in groups], [name for _, name in groups]
        for queue, name, jobs in await self._tx.rows(GROUPS, queues, names):
            line = shared[queue]
            line.groups = (line.groups or {}) | {loaded(name): jobs}

    async def _holders(self, ended: Sequence[Standing]) -> dict[int, bytes]:
        """Return who else holds the keys that these jobs would hold."""
        keyed = [one for one in ended if would_hold(one, self._now)]
        if not keyed:
            return {}
        scopes, names = [one.key_scope for one in keyed], [one.key_name for one in keyed]
        rows = await self._tx.rows(HOLDERS, scopes, names, [one.seq for one in keyed], self._now)
        return dict(rows)

    async def _take_keys(self, renewed: Sequence[Standing]) -> list[Standing]:
        """Take the keys that these jobs hold; return those that got theirs, or need none."""
        keyed = [one for one in renewed if would_hold(one, self._now)]
        if not keyed:
            return list(renewed)
        rules = [unpacked(one.extra).rule for one in keyed]
        rows = await self._tx.rows(
            TAKE_KEYS,
            [one.key_scope for one in keyed],
            [one.key_name for one in keyed],
            [one.seq for one in keyed],
            [one.id for one in keyed],
            [until_ms(one.enqueued_ms, rule) for one, rule in zip(keyed, rules, strict=True)],
            [HOLDS[rule.until] for rule in rules],
            self._now,
        )
        lost = {one.seq for one in keyed} - {seq for (seq,) in rows}
        lines = [one for one in renewed if one.seq in lost]
        holders = await self._holders(lines)
        for one in lines:
            why = _held(holders.get(one.seq, b"")) or ""
            self.skipped.append(Skipped(one.id, why))
        return [one for one in renewed if one.seq not in lost]


def would_hold(one: Standing, now: int) -> bool:
    """Whether a job that waits again would hold its key, if nobody else did."""
    if one.key_name is None:
        return False
    rule = unpacked(one.extra).rule
    until = until_ms(one.enqueued_ms, rule)
    if until is not None:
        return until > now
    return rule.until != "started" or not one.token


def until_ms(enqueued_ms: int, rule: KeyRule) -> int | None:
    """Return until when a key is held whatever becomes of its job."""
    return None if rule.window_ms is None else enqueued_ms + rule.window_ms


def _held(holder: bytes | None) -> str | None:
    return None if holder is None else f"its key is held by job {holder.hex()}"


def _again(one: Standing, now: int) -> Placed:
    return Placed(
        seq=one.seq,
        queue=one.queue,
        lane=one.lane,
        place=now,
        priority=one.priority,
        attempt=one.attempt,
        token=one.token,
        revision=one.revision + 1,
        crashes=one.crashes,
        parked_ms=one.parked_ms,
        size=one.size,
        started_ms=one.started_ms,
        owner=one.owner,
    )


def _is_short(row: tuple[object, ...], ended: Sequence[Standing]) -> bool:
    """Whether these jobs do not all fit beside what was granted of the queue."""
    line, open_jobs, open_bytes = line_of(row), int(str(row[15])), int(str(row[16]))
    ours = [one for one in ended if one.queue_name == line.name]
    bounds = line.bounds(None)
    return (
        line.jobs + open_jobs + len(ours) > bounds.max_jobs
        or line.bytes + open_bytes + sum(one.size for one in ours) > bounds.max_bytes
    )


def _no_room(line: Line, one: Standing) -> str | None:
    bounds = line.bounds(None)
    if line.jobs + 1 > bounds.max_jobs or line.bytes + one.size > bounds.max_bytes:
        return f"queue {one.queue_name!r} is full"
    if one.group is None or bounds.group_share is None:
        return None
    group = loaded(one.group)
    if (line.groups or {}).get(group, 0) >= group_places(bounds):
        return f"group {group!r} fills its share of queue {one.queue_name!r}"
    return None
