"""Restore: whole jobs and settings that another store had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.moving import Part, Whole
from backlane.engine.moving import Repeat as MovedRepeat
from backlane.engine.plan import Sql
from backlane.engine.postgres import limits, resource
from backlane.engine.postgres.enter import encode_policy, make_line
from backlane.engine.postgres.extra import packed
from backlane.engine.postgres.limits import TAKE_TURNS
from backlane.engine.postgres.moves import Moves, Placed, many
from backlane.engine.postgres.steps import KEEP as KEEP_STEPS
from backlane.engine.postgres.text import stored, stored_or_none
from backlane.engine.postgres.transaction import PostgresTx
from backlane.model.job import DEFAULT_POLICY, JobRecord, Key, State
from backlane.model.limit import Use
from backlane.model.queue import DEFAULT_BOUNDS, Kind

NUMBERS: Sql[tuple[int]] = Sql(
    """
    select nextval('backlane.job_seq')
    from generate_series(1, $1::int)
    """
)
KNOWN: Sql[tuple[bytes]] = Sql(
    """
    select id
    from unnest($1::bytea[]) as given (wanted)
    join backlane.job on id = wanted
    """
)
# One that somebody else takes in at this moment is his.
INSERT: Sql[tuple[bytes]] = Sql(
    """
    insert into backlane.job (seq, place, enqueued_ms, deadline_ms, started_ms, queue, lane,
        size, attempts, priority, id, owner, task, key_scope, key_name, group_name, parent,
        policy, headers, body, extra, gates, limits)
    select seq, place, enqueued_ms, deadline_ms, started_ms, queue, lane, size, attempts,
        priority, id, owner, task, key_scope, key_name, group_name, parent, policy, headers, body,
        extra, gates::bigint[], limits::int[]
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[],
        $7::int[], $8::int[], $9::int[], $10::smallint[], $11::bytea[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[], $18::bytea[],
        $19::bytea[], $20::bytea[], $21::bytea[], $22::text[], $23::text[]) as given (seq, place,
        enqueued_ms, deadline_ms, started_ms, queue, lane, size, attempts, priority, id, owner,
        task, key_scope, key_name, group_name, parent, policy, headers, body, extra, gates, limits)
    on conflict (id) do nothing
    returning id
    """
)
# Those of fair queues get their places there.
PLACE_FAIRLY: Sql[tuple[int, int]] = Sql(
    """
    with fair as (
        select backlane.virtual_places(coalesce($2::bigint, backlane.now_ms()), array(
            select job.seq
            from unnest($1::bigint[]) with ordinality as given (seq, nth)
            join backlane.job on job.seq = given.seq
            join backlane.queue on queue.id = job.queue
            where is_fair
            order by nth
        ), true) as found
    )
    update backlane.job
    set due_ms = job.place,
        place = given.place
    from fair
    cross join unnest((found).seqs, (found).places) as given (seq, place)
    where job.seq = given.seq
    returning job.seq, job.place
    """
)
TAKE_FREE_KEYS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.unique_key (seq, digest, id)
    select seq, backlane.digest(scope, name), id
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
        with ordinality as given (scope, name, seq, id, at)
    order by 2, at
    on conflict do nothing
    """
)
SET_DEADLINES: Sql[tuple[()]] = Sql(
    """
    insert into backlane.deadline (deadline_ms, seq)
    select *
    from unnest($1::bigint[], $2::bigint[])
    """
)
KEEP_PROGRESS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.progress (seq, token, fraction, message)
    select *
    from unnest($1::bigint[], $2::bigint[], $3::float8[], $4::text[])
    """
)
KEEP_ERRORS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.attempt_error (seq, token, attempt, at_ms, kind, message, traceback,
        fingerprint)
    select *
    from unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::text[],
        $7::text[], $8::text[])
    """
)
# One whose time is over gives way.
KEEP_REPEATS: Sql[tuple[()]] = Sql(
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
    where known.until_ms <= coalesce($6::bigint, backlane.now_ms())
    """
)
ARRIVED: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane.meta
    where name = $1::text
    """
)
SET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.meta (name, value)
    values ($1::text, $2::bytea)
    on conflict (name) do update
    set value = excluded.value
    """
)
FORGET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    delete from backlane.meta
    where name = $1::text
    """
)
LINES: Sql[tuple[str, int]] = Sql(
    """
    select name, id
    from backlane.queue
    where name = any ($1::text[])
    """
)


async def restore(tx: PostgresTx, part: Part, move: bytes) -> list[bytes]:
    """Take whole jobs in; return those that were new."""
    new = await _new(tx, part.jobs, await _arrived(tx, move))
    taken: set[bytes] = set()
    if new:
        taken = await Arriving(tx).take_in(new)
    if part.repeats:
        await _keep_repeats(tx, part.repeats)
    if move:
        name = f"arrived {move.hex()}"
        if part.jobs:
            await tx.rows(SET_ARRIVED, name, b"".join(whole.record.id for whole in part.jobs))
        else:
            await tx.rows(FORGET_ARRIVED, name)
    return [whole.record.id for whole in new if whole.record.id in taken]


async def _arrived(tx: PostgresTx, move: bytes) -> set[bytes]:
    """Return the jobs of the latest part of this move."""
    rows = await tx.rows(ARRIVED, f"arrived {move.hex()}") if move else []
    ids = rows[0][0] if rows else b""
    return {ids[at : at + 16] for at in range(0, len(ids), 16)}


async def _new(tx: PostgresTx, jobs: Sequence[Whole], known: set[bytes]) -> list[Whole]:
    if not jobs:
        return []
    ids = [whole.record.id for whole in jobs]
    known = known | {job for (job,) in await tx.rows(KNOWN, ids)}
    return [whole for whole in jobs if whole.record.id not in known]


async def _keep_repeats(tx: PostgresTx, repeats: Sequence[MovedRepeat]) -> None:
    await tx.rows(
        KEEP_REPEATS,
        [stored(one.scope) for one in repeats],
        [stored(one.name) for one in repeats],
        [one.job for one in repeats],
        [one.print for one in repeats],
        [one.until_ms for one in repeats],
        tx.wall_ms,
    )


class Arriving:
    """The jobs of one part, on their way into the tables."""

    def __init__(self, tx: PostgresTx) -> None:
        self._tx = tx
        self._moves = Moves()
        self._keys: list[tuple[Any, ...]] = []
        self._deadlines: list[tuple[int, int]] = []
        self._progress: list[tuple[Any, ...]] = []
        self._errors: list[tuple[Any, ...]] = []
        self._steps: list[tuple[int, str, bytes]] = []
        self._turns: list[tuple[int, int, int]] = []

    async def take_in(self, jobs: Sequence[Whole]) -> set[bytes]:
        """Insert new jobs in this order; return those that nobody else took in meanwhile."""
        tx = self._tx
        records = [whole.record for whole in jobs]
        queues = await _queues(tx, records)
        named = {record.resource for record in records if record.resource}
        resources = await resource.number(tx, named)
        seqs = [seq for (seq,) in await tx.rows(NUMBERS, len(jobs))]
        placed = [
            _placed(
                whole,
                seq,
                queues[whole.record.queue],
                resources[whole.record.resource] if whole.record.resource else 0,
            )
            for seq, whole in zip(seqs, jobs, strict=True)
        ]
        numbers = await limits.number(tx, {use.limit for it in records for use in it.uses})
        rows = [
            (*_row(record, one), *_used(record, numbers))
            for record, one in zip(records, placed, strict=True)
        ]
        columns = (list(column) for column in zip(*rows, strict=True))
        taken = {job for (job,) in await tx.rows(INSERT, *columns)}
        fair = await self._place_fairly(records, placed)
        for whole, one in zip(jobs, placed, strict=True):
            if whole.record.id in taken:
                one = one._replace(place=fair.get(one.seq, one.place))
                self._add(whole.record, one, numbers)
                self._turns += [(*_gate(use, numbers), one.seq) for use in whole.turns]
                self._steps += [(one.seq, stored(it.name), it.result) for it in whole.steps]
        await many(tx, TAKE_FREE_KEYS, self._keys)
        await many(tx, SET_DEADLINES, self._deadlines)
        await many(tx, KEEP_PROGRESS, self._progress)
        await many(tx, KEEP_ERRORS, self._errors)
        await many(tx, KEEP_STEPS, self._steps)
        await many(tx, TAKE_TURNS, self._turns)
        await self._moves.store(tx)
        tx.rings.jobs += taken
        return taken

    async def _place_fairly(
        self, records: Sequence[JobRecord], placed: Sequence[Placed]
    ) -> dict[int, int]:
        """Place those that are in line in fair queues; return where."""
        in_line = [
            one.seq
            for record, one in zip(records, placed, strict=True)
            if record.state is State.READY or record.blocked_on
        ]
        return dict(await self._tx.rows(PLACE_FAIRLY, in_line, self._tx.wall_ms))

    def _add(self, record: JobRecord, one: Placed, numbers: Mapping[str, int]) -> None:
        moves = self._moves
        if record.progress is not None:
            message = stored_or_none(record.progress.message)
            self._progress.append((one.seq, record.token, record.progress.fraction, message))
        for number, kept in enumerate(record.errors, 1 - len(record.errors)):
            error = kept.error
            text = (error.kind, error.message, error.traceback, error.fingerprint)
            self._errors.append(
                (one.seq, record.token + number, kept.attempt, kept.at_ms, *map(stored, text))
            )
        if record.state.is_final:
            self._end(record, one)
            return
        moves.at(one.queue, one.priority).bytes += one.size
        moves.gather(one.queue, stored_or_none(record.group), 1)
        if record.state is State.BLOCKED:
            on = next((use for use in record.uses if use.limit == record.blocked_on), None)
            gate, limit_no = _gate(on, numbers) if on else (None, None)
            moves.block(one, waits_for=record.waits_for, gate=gate, limit_no=limit_no)
        else:
            moves.wait(one, is_due=record.state is not State.SCHEDULED)
        if record.key:
            self._keys.append((*_stored(record.key), one.seq, record.id))
        if record.deadline_ms is not None:
            self._deadlines.append((record.deadline_ms, one.seq))
        self._tx.rings.queues.add(record.queue)

    def _end(self, record: JobRecord, one: Placed) -> None:
        self._moves.at(one.queue, one.priority).keep(record.state, 1)
        row = (
            *(one.seq, one.queue, one.attempt, one.token, one.revision, one.started_ms),
            *(record.ended_ms or 0, record.ran_ms or 0, one.owner),
        )
        if record.state is State.FAILED:
            self._moves.bury(row, str(record.reason))
        else:
            self._moves.finish(row, record.state, record.result)


async def _queues(tx: PostgresTx, records: Sequence[JobRecord]) -> dict[str, int]:
    """Return the numbers of the queues of these jobs, made if they are new."""
    kinds = {
        record.queue: Kind.MESSAGES if record.task is None else Kind.TASKS for record in records
    }
    numbers = dict(await tx.rows(LINES, list(kinds)))
    for name, kind in sorted(kinds.items()):
        if name not in numbers:
            numbers[name] = await make_line(tx, name, kind.value, DEFAULT_BOUNDS)
    return numbers


def _placed(whole: Whole, seq: int, queue: int, resource: int) -> Placed:
    record = whole.record
    return Placed(
        seq=seq,
        queue=queue,
        lane=2 * resource + record.lane,
        place=record.enqueued_ms if record.due_ms is None else record.due_ms,
        priority=record.priority,
        attempt=record.attempt,
        token=record.token,
        revision=record.revision,
        crashes=whole.crashes,
        parked_ms=whole.parked_ms,
        size=len(record.body) + len(record.headers or b""),
        started_ms=record.started_ms,
        owner=stored_or_none(record.owner),
    )


def _row(record: JobRecord, one: Placed) -> tuple[Any, ...]:
    scope, name = _stored(record.key) if record.key else (None, None)
    return (
        one.seq,
        one.place,
        record.enqueued_ms,
        record.deadline_ms,
        one.started_ms,
        one.queue,
        one.lane,
        one.size,
        record.policy.attempts,
        one.priority,
        record.id,
        one.owner,
        record.task,
        scope,
        name,
        stored_or_none(record.group),
        record.parent,
        None if record.policy == DEFAULT_POLICY else encode_policy(record.policy),
        record.headers,
        record.body,
    )


def _used(
    record: JobRecord, numbers: Mapping[str, int]
) -> tuple[bytes | None, str | None, str | None]:
    return packed(record), *(limits.columns(record.uses, numbers) or (None, None))


def _gate(use: Use, numbers: Mapping[str, int]) -> tuple[int, int]:
    number = -numbers[use.limit] if use.turn else numbers[use.limit]
    return limits.gate(number, use.part), number


def _stored(key: Key) -> tuple[str, str]:
    return stored(key.scope), stored(key.name)
