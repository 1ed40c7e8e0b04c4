"""Arriving: whole jobs that another store had, on their way into the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.moving import Whole
from backlane.engine.plan import Sql
from backlane.engine.postgres.append.enter import encode_policy, make_line
from backlane.engine.postgres.limits import limits, resource
from backlane.engine.postgres.limits.limits import TAKE_TURNS
from backlane.engine.postgres.record.extra import EDGES, HOLDS, HOPES, by_job, packed, traits
from backlane.engine.postgres.record.moves import FINAL_CODES, Moves, Placed, many
from backlane.engine.postgres.record.steps import KEEP as KEEP_STEPS
from backlane.engine.postgres.store.text import stored, stored_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep import edges
from backlane.engine.postgres.upkeep.redrive import until_ms
from backlane.model.job import DEFAULT_POLICY, JobRecord, Key, State, When
from backlane.model.limit import Use
from backlane.model.queue import DEFAULT_BOUNDS, Kind

NUMBERS: Sql[tuple[int]] = Sql(
    """
    select nextval('backlane.job_seq')
    from generate_series(1, $1::int)
    """
)
# One that somebody else takes in at this moment is his.
INSERT: Sql[tuple[bytes]] = Sql(
    """
    insert into backlane.job (seq, place, enqueued_ms, deadline_ms, started_ms, queue, lane,
        size, attempts, priority, id, owner, task, key_scope, key_name, group_name, parent,
        policy, headers, body, extra, gates, limits, workflow, keep_ms, traits)
    select seq, place, enqueued_ms, deadline_ms, started_ms, queue, lane, size, attempts,
        priority, id, owner, task, key_scope, key_name, group_name, parent, policy, headers, body,
        extra, gates::bigint[], limits::int[], workflow, keep_ms, traits
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[],
        $7::int[], $8::int[], $9::int[], $10::smallint[], $11::bytea[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[], $18::bytea[],
        $19::bytea[], $20::bytea[], $21::bytea[], $22::text[], $23::text[], $24::bytea[],
        $25::bigint[], $26::smallint[]) as given (seq, place, enqueued_ms, deadline_ms,
        started_ms, queue, lane, size, attempts, priority, id, owner, task, key_scope, key_name,
        group_name, parent, policy, headers, body, extra, gates, limits, workflow, keep_ms, traits)
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
    insert into backlane.unique_key as held (seq, digest, id, until_ms, hold)
    select seq, backlane.digest(scope, name), id, until_ms, hold
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::smallint[])
        with ordinality as given (scope, name, seq, id, until_ms, hold, at)
    where until_ms is null
    or until_ms > coalesce($7::bigint, backlane.now_ms())
    order by 2, at
    on conflict do nothing
    """
)
# A key whose window is over gives way.
END_WINDOWS: Sql[tuple[()]] = Sql(
    """
    delete from backlane.unique_key
    using unnest($1::text[], $2::text[]) as given (scope, name)
    where digest = backlane.digest(given.scope, given.name)
    and until_ms <= coalesce($3::bigint, backlane.now_ms())
    """
)
KEEP_TAGS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.tag (seq, name)
    select *
    from unnest($1::bigint[], $2::text[])
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
LINES: Sql[tuple[str, int]] = Sql(
    """
    select name, id
    from backlane.queue
    where name = any ($1::text[])
    """
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
        self._tags: list[tuple[int, str]] = []
        self._waited: list[tuple[int, bytes, int, bool]] = []
        self._tied: list[tuple[int, bytes, When]] = []
        self._ended: list[tuple[bytes, int]] = []

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
            (*_row(whole.record, one), *_used(whole.record, numbers), *_kept(whole))
            for whole, one in zip(jobs, placed, strict=True)
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
                self._tie(whole, one.seq)
        await self._take_keys()
        await many(tx, SET_DEADLINES, self._deadlines)
        await many(tx, KEEP_PROGRESS, self._progress)
        await many(tx, KEEP_ERRORS, self._errors)
        await many(tx, KEEP_STEPS, self._steps)
        await many(tx, TAKE_TURNS, self._turns)
        await many(tx, KEEP_TAGS, self._tags)
        await self._moves.store(tx)
        await many(tx, edges.KEEP, self._waited)
        await edges.tie(tx, self._tied)
        await edges.follow(tx, self._ended)
        tx.rings.jobs += taken
        return taken

    def _tie(self, whole: Whole, seq: int) -> None:
        """Note what it is found by, what it waits for, and who may have waited for it."""
        record = whole.record
        self._tags += [(seq, stored(tag)) for tag in dict.fromkeys(record.tags)]
        if record.state.is_final:
            self._ended.append((record.id, FINAL_CODES[record.state]))
            return
        still = {edge.job for edge in whole.open}
        after = by_job(record.after)
        waited = {job: HOPES[when] for job, when in after.items()}
        waited |= dict.fromkeys(whole.waited, HOPES[When.ENDED])
        self._waited += [
            (seq, job, hope, False) for job, hope in waited.items() if job not in still
        ]
        self._tied += [(seq, edge.job, edge.when) for edge in whole.open]

    async def _take_keys(self) -> None:
        """Take the keys that nobody holds."""
        if self._keys:
            scopes, names, *rest = (list(column) for column in zip(*self._keys, strict=True))
            await self._tx.rows(END_WINDOWS, scopes, names, self._tx.wall_ms)
            await self._tx.rows(TAKE_FREE_KEYS, scopes, names, *rest, self._tx.wall_ms)

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
        if record.key and _holds(record):
            until, hold = until_ms(record.enqueued_ms, record.rule), HOLDS[record.rule.until]
            self._keys.append((*_stored(record.key), one.seq, record.id, until, hold))
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
        if record.deadline_ms is not None:
            self._deadlines.append((record.deadline_ms, one.seq))
        self._tx.rings.queues.add(record.queue)

    def _end(self, record: JobRecord, one: Placed) -> None:
        if record.policy.keep_ms is None:
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


def _kept(whole: Whole) -> tuple[bytes | None, int | None, int | None]:
    """Its workflow, for how long it is kept, and its traits."""
    record = whole.record
    marks = traits(record) or 0
    if whole.open or whole.waited:
        marks |= EDGES
    return record.workflow, record.policy.keep_ms, marks or None


def _holds(record: JobRecord) -> bool:
    """Whether a job holds its key, if it does for as long as its window goes."""
    if record.rule.window_ms is not None:
        return True
    if record.rule.until == "started":
        return not record.token and not record.state.is_final
    if record.rule.until == "succeeded" and record.state is State.FAILED:
        return True
    return not record.state.is_final


def _gate(use: Use, numbers: Mapping[str, int]) -> tuple[int, int]:
    number = -numbers[use.limit] if use.turn else numbers[use.limit]
    return limits.gate(number, use.part), number


def _stored(key: Key) -> tuple[str, str]:
    return stored(key.scope), stored(key.name)
