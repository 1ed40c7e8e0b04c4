"""Enter: jobs that were admitted come in, all by one call of a function of the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from psycopg.errors import SerializationFailure

from backlane.engine.admission import Answer, Batch, Judging, Store
from backlane.engine.plan import Sql
from backlane.engine.postgres.append.credit import Purse
from backlane.engine.postgres.limits import limits, resource
from backlane.engine.postgres.record.extra import HOLDS, HOPES, by_job, packed, traits
from backlane.engine.postgres.store.seal import sealed_for_changes
from backlane.engine.postgres.store.text import stored, stored_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.model.job import DEFAULT_POLICY, DEFAULT_RULE, Job, Policy, Receipt, Refusal
from backlane.model.limit import Limit
from backlane.model.queue import Bounds

T = TypeVar("T")

ENTER: Sql[tuple[bool, int, int, int]] = Sql(
    """
    select is_admitted, entered, first_seq, now_ms
    from backlane.enter($1::bigint, $2::bigint[], $3::int[], $4::bytea[], $5::int[], $6::int[],
        $7::smallint[], $8::bigint[], $9::int[], $10::int[], $11::bigint[], $12::text[],
        $13::bytea[], $14::bytea[], $15::bytea[], $16::bytea[], $17::bigint[], $18::text[],
        $19::text[], $20::text[], $21::bytea[], $22::text[], $23::text[], $24::bigint,
        $25::boolean, $26::smallint[], $27::bigint[], $28::bigint[], $29::smallint[],
        $30::bytea[], $31::int[], $32::text[], $33::int[], $34::bytea[], $35::smallint[])
    """
)
NEW_LINE: Sql[tuple[int]] = Sql(
    """
    insert into backlane.queue (name, kind, declared_jobs, declared_bytes, declared_wait_ms,
        declared_share)
    values ($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::float8)
    on conflict (name) do update
    set name = excluded.name
    returning id
    """
)
SET_FAIR: Sql[tuple[()]] = Sql(
    """
    update backlane.queue
    set is_fair = $2::boolean
    where id = $1::int
    """
)
# Who stands for jobs that came in by another way in the same moment.
FIRSTS: Sql[tuple[bytes, bytes]] = Sql(
    """
    select given.id, coalesce(job.id, unique_key.id)
    from unnest($1::bytea[], $2::text[], $3::text[]) as given (id, scope, name)
    left join backlane.job on job.id = given.id
    left join backlane.unique_key
    on unique_key.digest = backlane.digest(given.scope, given.name)
    where job.id is null
    or job.seq < $4::bigint
    """
)


class Entered(NamedTuple):
    """What came of it: when, and who stands for jobs that were known after all."""

    now_ms: int
    firsts: dict[bytes, bytes]


class Numbers(NamedTuple):
    """What names of resources and limits are known by."""

    resources: Mapping[str, int]
    limits: Mapping[str, int]


async def prepare(tx: PostgresTx, purse: Purse, store: Store, batches: Sequence[Batch]) -> Numbers:
    """Make what was accepted is the first to name: queues, resources and limits; and take in
    what these batches say of them.

    Raises:
        SerializationFailure: the store was sealed while a queue that it did not know was made.
    """
    new = [line for line in store.entered.values() if not line.id]
    for line in new:
        line.id = await make_line(tx, line.name, line.kind, line.declared)
    if new and store.seal is None and (await sealed_for_changes(tx))[0] is not None:
        # A seal waits for the locks of the queues that it sees, and this one it did not.
        raise SerializationFailure("the store was sealed meanwhile")
    await _arrange(tx, purse, store, batches)
    resources: Mapping[str, int] = purse.resources
    named = {job.resource for job, _ in store.accepted if job.resource}
    if not named <= purse.resources.keys():
        found = await resource.number(tx, named)
        tx.then(lambda: purse.resources.update(found))  # not before the commit: they may be new
        resources = purse.resources | found
    used = {use.limit for job, _ in store.accepted for use in job.uses}
    if used <= purse.limits.keys():
        return Numbers(resources, purse.limits)
    numbered = await limits.number(tx, used)
    tx.then(lambda: purse.limits.update(numbered))
    return Numbers(resources, purse.limits | numbered)


async def _arrange(tx: PostgresTx, purse: Purse, store: Store, batches: Sequence[Batch]) -> None:
    """Take in which queues are fair, and what limits are declared: the last one is right."""
    said: dict[str, Limit] = {}
    fair: dict[str, bool] = {}
    for jobs, admission in batches:
        said |= admission.limits
        fair |= {name: name in admission.fair for name in {job.queue for job in jobs}}
    if said:
        await limits.declare(tx, said)
        tx.then(lambda: purse.declared.update(said))
    for line in store.entered.values():
        if line.is_fair != fair.get(line.name, line.is_fair):
            line.is_fair = fair[line.name]
            await tx.rows(SET_FAIR, line.id, line.is_fair)


async def enter(
    tx: PostgresTx, numbers: Numbers, store: Store, spent: Mapping[int, int]
) -> Entered | None:
    """Insert what was accepted, on credits by queue; None: one of them is gone."""
    jobs = [job for job, _ in store.accepted]
    predicted: list[int | None] = [None] * len(jobs)
    for index, expected_ms in store.predicted:
        predicted[index] = expected_ms
    is_admitted, entered, first_seq, now = (
        await tx.rows(
            ENTER,
            tx.wall_ms,
            list(spent.values()),
            list(spent),
            [job.id for job in jobs],
            _alike([line.id for _, line in store.accepted]),
            _alike([_lane(job, numbers.resources) for job in jobs]),
            _alike([job.priority for job in jobs]),
            _alike([job.delay_ms for job in jobs]),
            _alike([job.policy.attempts for job in jobs]),
            [job.size for job in jobs],
            _some(predicted),
            _alike([job.task for job in jobs]),
            _some([job.parent for job in jobs]),
            _some([_policy(job) for job in jobs]),
            _some([job.headers for job in jobs]),
            [job.body for job in jobs],
            *_rare(jobs),
            *_used(jobs, numbers.limits),
            tx.boot_ms,
            not tx.is_joined,
            *_kept(jobs),
        )
    )[0]
    if not is_admitted:
        return None
    tx.rings.queues |= store.entered.keys()
    if entered == len(jobs):
        return Entered(now, {})
    scopes = [job.key.scope if job.key else None for job in jobs]
    names = [stored(job.key.name) if job.key else None for job in jobs]
    firsts = await tx.rows(FIRSTS, [job.id for job in jobs], scopes, names, first_seq)
    return Entered(now, dict(firsts))


def _lane(job: Job, resources: Mapping[str, int]) -> int:
    return 2 * resources[job.resource] + job.lane if job.resource else int(job.lane)


def _policy(job: Job) -> bytes | None:
    return None if job.policy is DEFAULT_POLICY else encode_policy(job.policy)


def _rare(jobs: Sequence[Job]) -> Iterator[list[int | None] | list[str | None] | None]:
    """Yield what few jobs have: lives, scopes and names of keys, groups."""
    yield _some([job.expires_ms for job in jobs])
    yield _some([job.key.scope if job.key else None for job in jobs])
    yield _some([stored(job.key.name) if job.key else None for job in jobs])
    yield _some([stored_or_none(job.group) for job in jobs])


def _used(
    jobs: Sequence[Job], numbers: Mapping[str, int]
) -> tuple[list[bytes | None] | None, list[str | None] | None, list[str | None] | None]:
    """Return what fewer have: extras, the gates and the numbers of limits."""
    extras = _some([packed(job) for job in jobs])
    if extras is None:
        return None, None, None
    used = [limits.columns(job.uses, numbers) for job in jobs]
    gates, named = [it and it[0] for it in used], [it and it[1] for it in used]
    return extras, _some(gates), _some(named)


def _kept(jobs: Sequence[Job]) -> Iterator[list[Any] | None]:
    """Yield rules of keys, retention, traits, workflows, tags and edges."""
    keyed = [job.rule if job.key and job.rule is not DEFAULT_RULE else None for job in jobs]
    if keyed.count(None) < len(keyed):
        yield [HOLDS[rule.until] if rule else None for rule in keyed]
        yield _some([rule.window_ms if rule else None for rule in keyed])
    else:
        yield from (None, None)
    yield _some([job.policy.keep_ms for job in jobs])
    yield _some([traits(job) for job in jobs])
    yield _some([job.workflow for job in jobs])
    tags = [(at, stored(tag)) for at, job in enumerate(jobs, 1) for tag in dict.fromkeys(job.tags)]
    yield from _columns(tags, 2)
    edges = [
        (at, other, HOPES[when])
        for at, job in enumerate(jobs, 1)
        if job.after
        for other, when in by_job(job.after).items()
    ]
    yield from _columns(edges, 3)


def _columns(rows: Sequence[tuple[Any, ...]], number: int) -> list[list[Any] | None]:
    """Return the columns of rows, or that many times None."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [None] * number


def _some(values: list[T | None]) -> list[T | None] | None:
    """Return None where no job has any."""
    return values if values.count(None) < len(values) else None


def _alike(values: list[T]) -> list[T]:
    """Return one for all where all are alike, as in a bulk: a third less work for the server."""
    return values[:1] if values.count(values[0]) == len(values) else values


def needed(store: Store) -> dict[str, tuple[int, int]]:
    """Return the places and bytes that what was accepted takes, by queue."""
    needs: dict[str, tuple[int, int]] = {}
    for job, line in store.accepted:
        jobs, size = needs.get(line.name, (0, 0))
        needs[line.name] = (jobs + 1, size + job.size)
    for queue, grown in store.grown.items():
        jobs, size = needs.get(queue, (0, 0))
        needs[queue] = (jobs, size + grown)
    return needs


def answers(
    batches: Sequence[Batch], judged: Sequence[Judging | Refusal], entered: Entered
) -> list[Answer]:
    now, firsts = entered
    answers = [
        one if isinstance(one, Refusal) else one.receipts(jobs, now)
        for one, (jobs, _) in zip(judged, batches, strict=True)
    ]
    return [_corrected(it, firsts) for it in answers] if firsts else answers


def _corrected(answer: Answer, firsts: Mapping[bytes, bytes]) -> Answer:
    """Say of a job that came in by another way in the same moment who stands for it."""
    if isinstance(answer, Refusal):
        return answer
    return [
        Receipt(it.job, firsts[it.job], it.pressure) if it.job in firsts and it.is_new else it
        for it in answer
    ]


async def make_line(tx: PostgresTx, name: str, kind: str, declared: Bounds) -> int:
    """Insert a queue and return its number."""
    said = (declared.max_jobs, declared.max_bytes, declared.max_wait_ms, declared.group_share)
    return (await tx.rows(NEW_LINE, name, kind, *said))[0][0]


@lru_cache(maxsize=1024)
def encode_policy(policy: Policy) -> bytes | None:
    """Return a policy as it is stored: nothing for the default, which most jobs have."""
    return None if policy == DEFAULT_POLICY else msgspec.json.encode(policy)


@lru_cache(maxsize=1024)
def decode_policy(stored: bytes | None) -> Policy:
    """Return a policy from its stored form.

    Raises:
        msgspec.DecodeError: the bytes are damaged.
    """
    return DEFAULT_POLICY if stored is None else msgspec.json.decode(stored, type=Policy)
