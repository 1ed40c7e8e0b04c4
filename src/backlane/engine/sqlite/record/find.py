"""Find: job records by what a person knows of them, newest enqueued first.

A call reads candidates in chunks from the narrowest list that holds all matches
(keys, groups, workflows, tags, failed, blocked, running, or else all jobs) and looks at
10,000 at most, so that it stays short on any history. The cursor is the order of the last
job looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.selection import Page, Selection
from backlane.engine.sqlite.record.record import (
    CODES,
    SEQS,
    job_record,
    standings,
    whole_records,
)
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.job import State

READ = 10_000  # rows a call looks at, at most
CHUNK = 1_000

ALL: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_job
    where seq < ?
    order by seq desc
    limit ?
    """
)
KEYED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_job
    where key_name = ?
    and seq < ?
    order by seq desc
    limit ?
    """
)
GROUPED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_job
    where group_name = ?
    and seq < ?
    order by seq desc
    limit ?
    """
)
OF_WORKFLOW: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_job
    where workflow = ?
    and seq < ?
    order by seq desc
    limit ?
    """
)
TAGGED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_tag
    where name = ?
    and seq < ?
    order by seq desc
    limit ?
    """
)
FAILED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_finished
    where state = 2
    and seq < ?
    order by seq desc
    limit ?
    """
)
BLOCKED: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_blocked
    where seq < ?
    order by seq desc
    limit ?
    """
)
RUNNING: Sql[tuple[int]] = Sql(
    """
    select seq
    from backlane_lease
    where seq < ?
    order by seq desc
    limit ?
    """
)
# ?2 is a set of states as bits; the other parameters are null where anything goes.
MATCHING: Sql[tuple[int]] = Sql(
    """
    select job.seq
    from carray(?1) as given
    cross join backlane_job as job on job.seq = given.value
    left join backlane_finished as finished on finished.seq = job.seq
    left join backlane_lease as lease on lease.id = job.id
    left join backlane_scheduled as scheduled
    on scheduled.due_ms = job.place
    and scheduled.seq = job.seq
    left join backlane_blocked as blocked on blocked.seq = job.seq
    where (
        ?2 is null
        or ?2 >> case
            when finished.seq is not null then finished.state
            when lease.seq is not null then 5
            when scheduled.seq is not null then 6
            when blocked.seq is not null then 8
            else 7
        end & 1
    )
    and (?3 is null or finished.reason in (select value from json_each(?3)))
    and (?4 is null or job.queue = (select id from backlane_queue where name = ?4))
    and (?5 is null or task = ?5)
    and (?6 is null or key_name = ?6)
    and (?7 is null or group_name = ?7)
    and (?9 is null or workflow = ?9)
    and (
        ?10 is null
        or exists (select 1 from backlane_tag as tag where tag.name = ?10 and tag.seq = job.seq)
    )
    and (?11 is null or enqueued_ms >= ?11)
    and (?12 is null or enqueued_ms < ?12)
    and (
        ?8 is null
        or exists (
            select 1
            from backlane_attempt_error as error
            where error.seq = job.seq
            and instr(lower(message), lower(?8))
        )
    )
    """
)


async def find(
    tx: SqliteTx, selection: Selection, limit: int, cursor: bytes | None, *, brief: bool
) -> Page:
    """Read one page of records."""
    seqs, cursor = await select(tx, selection, limit, cursor)
    if selection.ids and not brief:
        return Page(await whole_records(tx, seqs), cursor)
    return Page([job_record(one) for one in await standings(tx, seqs)], cursor)


async def select(
    tx: SqliteTx, selection: Selection, limit: int, cursor: bytes | None
) -> tuple[list[int], bytes | None]:
    """Return the seq of some matching jobs, newest first, and where to go on."""
    before = int.from_bytes(cursor) if cursor else 1 << 62
    found: list[int] = []
    looked_at = 0
    while looked_at < READ:
        seqs = await _candidates(tx, selection, before, CHUNK)
        if not seqs:
            return found, None
        looked_at += len(seqs)
        # A job asked for by its id alone, as each wait for a result does, is found already.
        is_found = selection == Selection(ids=selection.ids)
        matching = set(seqs if is_found else await _matching(tx, selection, seqs))
        for seq in seqs:
            if len(found) >= limit:
                return found, before.to_bytes(8)
            before = seq
            if seq in matching:
                found.append(seq)
        if len(seqs) < CHUNK:
            return found, None
    return found, before.to_bytes(8)


async def _candidates(tx: SqliteTx, selection: Selection, before: int, number: int) -> list[int]:
    """Return the next jobs of the narrowest list that holds all that match, newest first."""
    if selection.ids:
        rows = await tx.rows(SEQS, array(selection.ids))
        return [seq for (seq,) in rows if seq < before][:number]
    if selection.key is not None:
        rows = await tx.rows(KEYED, selection.key, before, number)
    elif selection.group is not None:
        rows = await tx.rows(GROUPED, selection.group, before, number)
    elif selection.workflow is not None:
        rows = await tx.rows(OF_WORKFLOW, selection.workflow, before, number)
    elif selection.tag is not None:
        rows = await tx.rows(TAGGED, selection.tag, before, number)
    elif selection.states == (State.FAILED,) or selection.reasons:
        rows = await tx.rows(FAILED, before, number)
    elif selection.states == (State.BLOCKED,):
        rows = await tx.rows(BLOCKED, before, number)
    elif selection.states == (State.RUNNING,):
        rows = await tx.rows(RUNNING, before, number)
    else:
        rows = await tx.rows(ALL, before, number)
    return [seq for (seq,) in rows]


async def _matching(tx: SqliteTx, selection: Selection, seqs: Sequence[int]) -> list[int]:
    states: Any = None
    if selection.states:
        states = sum(1 << CODES[state] for state in set(selection.states) if state in CODES)
    reasons = json.dumps(selection.reasons) if selection.reasons else None
    rows = await tx.rows(
        MATCHING,
        integers(seqs),
        states,
        reasons,
        selection.queue,
        selection.task,
        selection.key,
        selection.group,
        selection.text,
        selection.workflow,
        selection.tag,
        selection.since_ms,
        selection.before_ms,
    )
    return [seq for (seq,) in rows]
