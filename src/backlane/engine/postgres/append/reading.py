"""Reading: what the exact way of an append is judged by, under the locks of its queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backlane.engine.admission import Batch, Judging, Repeat, Repeats, Store, weigh
from backlane.engine.moving import Seal
from backlane.engine.plan import Sql
from backlane.engine.portion import Line
from backlane.engine.postgres.append.credit import LIFE_MS, Account, Purse, granted
from backlane.engine.postgres.append.replacing import REPLACING, unstarted
from backlane.engine.postgres.store.lock import LOCK
from backlane.engine.postgres.store.text import loaded, stored
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import Idempotency, Key, Refusal
from backlane.model.queue import Bounds

UNFOLDED = 2_000  # deltas of the queues of one append; a sweep folds all there are
FOLDED = 50_000  # in one call

LINES: Sql[tuple[Any, ...]] = Sql(
    """
    select id, name, kind, declared_jobs, declared_bytes, declared_wait_ms, declared_share,
        tuned_jobs, tuned_bytes, tuned_wait_ms, tuned_share, scheduled, bytes, ready, running,
        open_jobs, open_bytes, booked_jobs, booked_bytes, parts, is_fair
    from backlane.lines($1::text[])
    """
)
# All that most appends are judged by, for while it is read the queue is held: the time, how
# far history is forgotten, the seal, which ids are taken; then a row for each queue.
READ: Sql[tuple[Any, ...]] = Sql(
    """
    select state.now_ms, state.forgotten_ms, state.seal, state.taken, id, name, kind,
        declared_jobs, declared_bytes, declared_wait_ms, declared_share, tuned_jobs, tuned_bytes,
        tuned_wait_ms, tuned_share, scheduled, bytes, ready, running, open_jobs, open_bytes,
        booked_jobs, booked_bytes, parts, is_fair
    from (
        select coalesce($1::bigint, backlane.now_ms()) as now_ms,
            (select number from backlane.meta where name = 'forgotten_ms') as forgotten_ms,
            (select value from backlane.meta where name = 'seal') as seal,
            array(
                select job.id
                from unnest($2::bytea[]) as given (id)
                join backlane.job on job.id = given.id
            ) as taken
    ) as state
    left join backlane.lines($3::text[]) on true
    """
)
HOLDERS: Sql[tuple[str, str, bytes]] = Sql(
    """
    select scope, name, id
    from unnest($1::text[], $2::text[]) as given (scope, name)
    join backlane.unique_key on digest = backlane.digest(scope, name)
    where until_ms is null
    or until_ms > $3::bigint
    """
)
REPEATS: Sql[tuple[str, str, bytes, bytes, int]] = Sql(
    """
    select given.scope, given.name, id, print, until_ms
    from unnest($1::text[], $2::text[]) as given (scope, name)
    join backlane.idempotency on digest = backlane.digest(given.scope, given.name)
    where until_ms > $3::bigint
    """
)
# Keys and requests of a caller's open transaction are waited for, but not for long while
# the locks of queues are held: the driver lets go of them, and comes again.
IMPATIENT: Sql[tuple[str]] = Sql("select set_config('lock_timeout', '20ms', true)")
# One whose time is over, and that no sweep has met yet, gives way.
KEEP_REPEATS: Sql[tuple[str, str]] = Sql(
    """
    insert into backlane.idempotency as known (digest, scope, name, id, print, until_ms)
    select backlane.digest(scope, name), scope, name, id, print, until_ms
    from unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[])
        as given (scope, name, id, print, until_ms)
    order by 1
    on conflict (digest) do update
    set id = excluded.id,
        print = excluded.print,
        until_ms = excluded.until_ms
    where known.until_ms <= $6::bigint
    returning scope, name
    """
)
FORGET_REPEATS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.idempotency
    using unnest($1::text[], $2::text[]) as given (scope, name)
    where digest = backlane.digest(given.scope, given.name)
    """
)
GROUPS: Sql[tuple[int, str, int]] = Sql(
    """
    select queue, name, sum(jobs)::bigint
    from (
        select counter.queue, counter.name, counter.jobs
        from unnest($1::int[], $2::text[]) as given (queue, name)
        join backlane.group_counter as counter
        on counter.queue = given.queue
        and md5(counter.name) = md5(given.name)
        union all
        select tally.queue, tally.name, tally.jobs
        from unnest($1, $2) as given (queue, name)
        join backlane.group_tally as tally
        on tally.queue = given.queue
        and md5(tally.name) = md5(given.name)
        and (tally.xid is null or not pg_visible_in_snapshot(tally.xid, pg_current_snapshot()))
    ) as parts
    group by queue, name
    """
)
# Waits for those who are spending; what they spent is then counted where it is.
TAKE_BACK: Sql[tuple[int]] = Sql(
    """
    delete from backlane.credit
    where queue = any ($1::int[])
    and xid is null
    and ($2::text is null or owner = $2)
    returning id
    """
)
# Deltas come to their counters where there are so many that to sum them up takes time.
FOLD: Sql[tuple[int]] = Sql("select backlane.fold($1::int)")
GRANT: Sql[tuple[int, int]] = Sql(
    """
    insert into backlane.credit (queue, owner, jobs, bytes, until_ms)
    select queue, $1::text, jobs, bytes, $2::bigint
    from unnest($3::int[], $4::bigint[], $5::bigint[]) as given (queue, jobs, bytes)
    returning id, queue
    """
)


class Reading:
    """What the exact way reads, under the locks of its queues."""

    def __init__(
        self, tx: PostgresTx, purse: Purse, batches: Sequence[Batch], *, are_ticks: bool = False
    ) -> None:
        self._tx = tx
        self._are_ticks = are_ticks
        self._purse = purse
        self._batches = batches
        self._jobs = [job for jobs, _ in batches for job in jobs]
        self._names = sorted({job.queue for job in self._jobs})
        self._open: dict[str, tuple[int, int, int]] = {}  # granted: jobs, bytes; parts to sum
        self.store = Store(set(), {}, {}, {}, 0, -1, 0)

    async def judge(self) -> list[Judging | Refusal]:
        """Judge all batches; take back what others were granted where it is needed."""
        if not self._jobs:
            return self._weighed()
        asked = [job.idempotency for job in self._jobs if job.idempotency]
        locks = self._names + [f"{one.scope} {one.name}" for one in asked]
        await self._tx.rows(LOCK, [stored(name) for name in locks])
        store = self.store = await self._read(asked)
        judged = self._weighed()
        short = [line for line in store.entered.values() if self._is_short(line)]
        if not short:
            return judged
        await self._tx.rows(TAKE_BACK, [line.id for line in short], None)
        self.store = await self._read(asked)
        return self._weighed()

    def _weighed(self) -> list[Judging | Refusal]:
        return [weigh(self.store, jobs, admission) for jobs, admission in self._batches]

    def _is_short(self, line: Line) -> bool:
        """Whether with these jobs, what others were granted does not fit any more."""
        jobs, size, _ = self._open.get(line.name, (0, 0, 0))
        bounds = self._bounds(line)
        return line.jobs + jobs > bounds.max_jobs or line.bytes + size > bounds.max_bytes

    def _bounds(self, line: Line) -> Bounds:
        """The narrowest bounds that these batches know of a queue."""
        said = [line.bounds(admission.declared.get(line.name)) for _, admission in self._batches]
        return min(said, key=lambda bounds: (bounds.max_jobs, bounds.max_bytes))

    async def _read(self, asked: Sequence[Idempotency]) -> Store:
        tx, jobs = self._tx, self._jobs
        ids = [job.id for job in jobs]
        ids += {edge.job for job in jobs for edge in job.after}
        found = await tx.rows(READ, tx.wall_ms, ids, self._names)
        now, forgotten_ms, seal, taken = found[0][:4]
        rows = [row[4:] for row in found if row[4] is not None]
        self._open = {row[1]: (row[15], row[16], row[19]) for row in rows}
        lines = {row[1]: line_of(row) for row in rows}
        keys = [job.key for job in jobs if job.key]
        repeats = await read_repeats(tx, asked, now) if asked else {}
        holders = await _holders(tx, keys, now)
        store = Store(set(taken), holders, repeats, lines, 0, forgotten_ms, now)
        await self._read_unstarted(store)
        store.seal = msgspec.json.decode(seal, type=Seal) if seal else None
        store.has_resources = any(job.resource for job in jobs)
        store.has_followers = len(self._batches) > 1
        store.are_ticks = self._are_ticks
        await self._read_groups(lines)
        return store

    async def _read_unstarted(self, store: Store) -> None:
        """Hold those holders of keys that may take the arguments of these jobs.

        One that started meanwhile may have freed its key: then it is looked who holds that.
        """
        tx = self._tx
        asking = [job for job in self._jobs if job.key and job.rule.conflict in REPLACING]
        met = {store.keys[job.key] for job in asking if job.key in store.keys}
        if not met:
            return
        await tx.rows(IMPATIENT)
        while met - store.unstarted.keys():
            store.unstarted |= await unstarted(tx, met)
            keys = [job.key for job in self._jobs if job.key]
            before, store.keys = store.keys, await _holders(tx, keys, store.now_ms)
            if store.keys == before:
                break
            met = {store.keys[job.key] for job in asking if job.key in store.keys}
        queues = {queue for queue, _ in store.unstarted.values()} - store.lines.keys()
        if queues:  # one may grow where nothing is appended
            rows = await tx.rows(LINES, sorted(queues))
            store.lines |= {row[1]: line_of(row) for row in rows}

    async def _read_groups(self, lines: dict[str, Line]) -> None:
        """Read how many jobs each group has, where it may have a share only."""
        groups = {(job.queue, job.group) for job in self._jobs if job.group is not None}
        said: list[float | None] = [
            line.tuned[3] or line.declared.group_share for line in lines.values()
        ]
        for _, admission in self._batches:
            said += [bounds.group_share for bounds in admission.declared.values()]
        if not groups or not any(said):
            return
        known = [(lines[queue], name) for queue, name in groups if queue in lines]
        by_id = {line.id: line for line, _ in known}
        named = [stored(name) for _, name in known if name is not None]
        for queue, name, jobs in await self._tx.rows(GROUPS, [line.id for line, _ in known], named):
            line = by_id[queue]
            line.groups = (line.groups or {}) | {loaded(name): jobs}

    async def grant(self) -> None:
        """Be granted places of the queues that this process fills."""
        tx, purse = self._tx, self._purse
        if sum(parts for _, _, parts in self._open.values()) > UNFOLDED:
            await tx.rows(FOLD, FOLDED)
        purse.forgotten_ms = self.store.forgotten_ms
        if tx.wall_ms is not None or tx.is_joined or self.store.seal:
            return
        shares = []
        for line in self.store.entered.values():
            if purse.is_busy(line.name):
                jobs, size, _ = self._open.get(line.name, (0, 0, 0))
                places, room = granted(line, self._bounds(line), jobs, size)
                if places:
                    shares.append((line, places, room))
        if not shares:
            return
        queues = [line.id for line, _, _ in shares]
        await tx.rows(TAKE_BACK, queues, purse.owner)
        rows = await tx.rows(
            GRANT,
            purse.owner,
            self.store.now_ms + LIFE_MS,
            queues,
            [places for _, places, _ in shares],
            [room for _, _, room in shares],
        )
        rights = {queue: credit for credit, queue in rows}
        tx.then(lambda: _keep(purse, shares, rights))


def _keep(purse: Purse, shares: Sequence[tuple[Line, int, int]], rights: Mapping[int, int]) -> None:
    for line, places, room in shares:
        account = Account(line, rights[line.id], places, room)
        account.renew()
        purse.keep(account)


def line_of(row: tuple[Any, ...]) -> Line:
    """Return a queue as `lines` reads it."""
    line = Line(row[0], row[1], row[2], Bounds(*row[3:7]), row[7:11])
    scheduled, size, ready, running = row[11:15]
    line.ready = list(ready)
    line.running = running
    line.jobs = scheduled + sum(ready) + running + row[17]  # booked places are taken
    line.bytes = size + row[18]
    line.is_fair = row[20]
    return line


async def _holders(tx: PostgresTx, keys: Sequence[Key], now_ms: int) -> dict[Key, bytes]:
    """Return who holds these keys."""
    if not keys:
        return {}
    names = [stored(it.name) for it in keys]
    rows = await tx.rows(HOLDERS, [it.scope for it in keys], names, now_ms)
    return {Key(scope, loaded(name)): job for scope, name, job in rows}


async def read_repeats(tx: PostgresTx, asked: Sequence[Idempotency], now_ms: int) -> Repeats:
    """Return what is known of these idempotency keys."""
    scopes, names = [stored(one.scope) for one in asked], [stored(one.name) for one in asked]
    rows = await tx.rows(REPEATS, scopes, names, now_ms)
    return {(loaded(row[0]), loaded(row[1])): Repeat(*row[2:]) for row in rows}


async def keep_repeats(tx: PostgresTx, repeats: Repeats, now_ms: int) -> list[tuple[str, str]]:
    """Remember what these idempotency keys stand for; return those that stood for nothing.

    Those of transactions that are still open are waited for.
    """
    kept = await tx.rows(
        KEEP_REPEATS,
        [stored(scope) for scope, _ in repeats],
        [stored(name) for _, name in repeats],
        [one.job for one in repeats.values()],
        [one.print for one in repeats.values()],
        [one.until_ms for one in repeats.values()],
        now_ms,
    )
    return [(loaded(scope), loaded(name)) for scope, name in kept]


async def forget_repeats(tx: PostgresTx, kept: Sequence[tuple[str, str]]) -> None:
    """Let these idempotency keys stand for nothing again."""
    scopes, names = [stored(scope) for scope, _ in kept], [stored(name) for _, name in kept]
    await tx.rows(FORGET_REPEATS, scopes, names)
