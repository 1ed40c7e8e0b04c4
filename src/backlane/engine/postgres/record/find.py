"""Find: job records by what a person knows of them, newest enqueued first.

A call reads candidates from the narrowest list that holds all matches (ids, keys, groups,
failed, running, or else all jobs) and looks at 10,000 at most, so that it stays short on
any history: a thousand first, for most pages are full by then. The cursor is the order of
the last job looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.postgres.record.record import (
    CODES,
    job_record,
    records_of,
    seqs_of,
    standings,
    whole_records_of,
    wholes,
)
from backlane.engine.postgres.store.text import stored, stored_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.selection import Page, Selection
from backlane.model.job import JobRecord, State

READ = 10_000  # rows a call looks at, at most
FIRST = 1_000
NEWEST = 1 << 62
LISTED = tuple(Selection(states=states) for states in ((), (State.FAILED,), (State.RUNNING,)))

ALL: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.job
    where seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
KEYED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.job
    where md5(key_name) = md5($3::text)
    and key_name is not null
    and seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
GROUPED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.job
    where md5(group_name) = md5($3::text)
    and group_name is not null
    and seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
# Served by tag_name.
TAGGED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.tag
    where md5(name) = md5($3::text)
    and name = $3
    and seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
# Served by job_workflow.
OF_WORKFLOW: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.job
    where workflow = $3::bytea
    and seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
FAILED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.failed
    where seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
# As long as the list of leases: no more than all workers have slots.
RUNNING: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane.lease
    where seq < $1::bigint
    order by seq desc
    limit $2::int
    """
)
# $2 is a set of states as bits; the other parameters are null where anything goes. The
# state is looked for only where it is asked for, and last, for it costs five look-ups.
MATCHING: Sql[tuple[int]] = Sql(
    """
    select job.seq
    from unnest($1::bigint[]) as given (seq)
    cross join lateral (
        select seq, id, queue, place, task, key_name, group_name, workflow, enqueued_ms
        from backlane.job
        where job.seq = given.seq
        offset 0
    ) as job
    where ($4::text is null or job.queue = (select id from backlane.queue where name = $4))
    and ($5::text is null or job.task = $5)
    and ($6::text is null or job.key_name = $6)
    and ($7::text is null or job.group_name = $7)
    and ($10::bytea is null or job.workflow = $10)
    and ($11::bigint is null or job.enqueued_ms >= $11)
    and ($12::bigint is null or job.enqueued_ms < $12)
    and case
        when $9::text is null then true
        else (
            select true
            from backlane.tag
            where tag.seq = job.seq
            and tag.name = $9
            limit 1
        )
    end
    and case
        when $3::text[] is null then true
        else (select reason from backlane.failed where failed.seq = job.seq) = any ($3)
    end
    and case
        when $2::int is null then true
        else $2 >> coalesce(
            (select state::int from backlane.ended where ended.seq = job.seq),
            (select 5 from backlane.lease where lease.id = job.id),
            (
                select 6
                from backlane.scheduled
                where scheduled.due_ms = job.place
                and scheduled.seq = job.seq
            ),
            (select 8 from backlane.blocked where blocked.seq = job.seq),
            7
        ) & 1 = 1
    end
    and case
        when $8::text is null then true
        else coalesce(
            (
                select bool_or(strpos(lower(message collate "C"), $8 collate "C") > 0)
                from backlane.attempt_error
                where attempt_error.seq = job.seq
            ),
            false
        )
    end
    order by job.seq desc
    """
)


async def find(
    tx: PostgresTx, selection: Selection, limit: int, cursor: bytes | None, *, brief: bool
) -> Page:
    """Read one page of records."""
    is_by_id = bool(selection.ids) and selection == Selection(ids=selection.ids)
    if is_by_id and len(selection.ids) <= min(limit, READ) and not cursor:
        read = records_of if brief else whole_records_of  # as each wait for a result does
        return Page(await read(tx, selection.ids), None)
    seqs, cursor = await select(tx, selection, limit, cursor)
    if selection.ids and not brief:
        records = [record for _, record in await wholes(tx, seqs)]
    else:
        records = [job_record(one) for one in await standings(tx, seqs)]
    # What changed since it was selected may be what was asked for no more.
    return Page([record for record in records if _is_still(record, selection)], cursor)


def _is_still(record: JobRecord, selection: Selection) -> bool:
    return (
        (not selection.states or record.state in selection.states)
        and (not selection.reasons or record.reason in selection.reasons)
        and selection.queue in (None, record.queue)
    )


async def select(
    tx: PostgresTx, selection: Selection, limit: int, cursor: bytes | None
) -> tuple[list[int], bytes | None]:
    """Return the seq of some matching jobs, newest first, and where to go on."""
    before = int.from_bytes(cursor) if cursor else NEWEST
    # What has no other condition than the one that its list is made by, is found already.
    is_found = selection in (Selection(ids=selection.ids), *LISTED)
    found: list[int] = []
    for number in (FIRST, READ - FIRST):
        seqs = await _candidates(tx, selection, before, number)
        found += seqs if is_found else await _matching(tx, selection, seqs)
        if len(found) > limit or (len(found) == limit and seqs and seqs[-1] < found[-1]):
            return found[:limit], found[limit - 1].to_bytes(8) if limit else cursor
        if len(seqs) < number:
            return found, None
        before = seqs[-1]
    return found, before.to_bytes(8)


async def _candidates(tx: PostgresTx, selection: Selection, before: int, number: int) -> list[int]:
    """Return the next jobs of the narrowest list that holds all that match, newest first."""
    if selection.ids:
        return [seq for seq in await seqs_of(tx, selection.ids) if seq < before][:number]
    if selection.key is not None:
        rows = await tx.rows(KEYED, before, number, stored(selection.key))
    elif selection.workflow is not None:
        rows = await tx.rows(OF_WORKFLOW, before, number, selection.workflow)
    elif selection.tag is not None:
        rows = await tx.rows(TAGGED, before, number, stored(selection.tag))
    elif selection.group is not None:
        rows = await tx.rows(GROUPED, before, number, stored(selection.group))
    elif selection.states == (State.FAILED,) or selection.reasons:
        rows = await tx.rows(FAILED, before, number)
    elif selection.states == (State.RUNNING,):
        rows = await tx.rows(RUNNING, before, number)
    else:
        rows = await tx.rows(ALL, before, number)
    return [seq for (seq,) in rows]


async def _matching(tx: PostgresTx, selection: Selection, seqs: Sequence[int]) -> list[int]:
    if not seqs:
        return []
    states: Any = None
    if selection.states:
        states = sum(1 << CODES[state] for state in set(selection.states) if state in CODES)
    rows = await tx.rows(
        MATCHING,
        seqs,
        states,
        [str(reason) for reason in selection.reasons] or None,
        stored_or_none(selection.queue),
        stored_or_none(selection.task),
        stored_or_none(selection.key),
        stored_or_none(selection.group),
        None if selection.text is None else stored(folded(selection.text)),
        stored_or_none(selection.tag),
        selection.workflow,
        selection.since_ms,
        selection.before_ms,
    )
    return [seq for (seq,) in rows]


def folded(text: str) -> str:
    """Return text in lower case in ASCII alone, as `lower` does under collation C."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
