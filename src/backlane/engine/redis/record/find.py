"""Find: job records by what a person knows of them, newest enqueued first.

A call is some short scripts: each looks at no more than `STEP` rows, so that nobody else
waits for long. They begin where there are fewest jobs (`lua/select.lua`).
"""

from __future__ import annotations

from typing import Any

from backlane.engine.redis.record.sheet import (
    NUMBERS,
    encode,
    job_record,
    raw,
    read_row,
    read_sheet,
    tag_name,
    workflow_name,
)
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.selection import Page, Selection
from backlane.model.job import JobRecord

READ = 10_000  # rows a call looks at, at most
STEP = 1_000  # of these in one script: about 3 ms
NEWEST = 2**48 - 1  # behind every sequence

FIND = Script("find", "model", "moves", "select")


async def find(
    tx: RedisTx, selection: Selection, limit: int, cursor: bytes | None, *, brief: bool
) -> Page:
    """Read one page of records."""
    before = begins(cursor)
    is_whole = bool(selection.ids) and not brief
    packed = packed_selection(selection)
    found: list[JobRecord] = []
    read = 0
    while True:
        answer = await tx.call(
            FIND, packed, limit - len(found), before, min(STEP, READ - read), is_whole
        )
        _, next_before, looked, queues, jobs = answer
        found += _records(queues, jobs, is_whole=is_whole)
        read += looked
        if next_before is None:
            return Page(found)
        if len(found) >= limit or read >= READ:
            return Page(found, next_before.to_bytes(8))
        before = next_before


def begins(cursor: bytes | None) -> int:
    """Return the sequence below which a call goes on."""
    return min(int.from_bytes(cursor), NEWEST) if cursor else NEWEST


def packed_selection(selection: Selection) -> list[Any]:
    """Return a selection as `lua/select.lua` reads it."""
    return [
        [raw(job) for job in dict.fromkeys(selection.ids)] if selection.ids else False,
        {NUMBERS[state]: True for state in selection.states},
        {str(reason): True for reason in selection.reasons},
        _or_false(selection.queue),
        False if selection.task is None else raw(encode(selection.task)),
        _or_false(selection.key),
        _or_false(selection.group),
        False if selection.text is None else folded(selection.text),
        False if selection.tag is None else raw(tag_name(selection.tag)),
        False if selection.workflow is None else raw(workflow_name(selection.workflow)),
        False if selection.since_ms is None else selection.since_ms,
        False if selection.before_ms is None else selection.before_ms,
    ]


def _or_false(text: str | None) -> str | bool:
    return False if text is None else text


def folded(text: str) -> str:
    """Lower case in ASCII alone, as the scripts do it."""
    return text.encode().lower().decode()


def _records(queues: list[Any], jobs: list[Any], *, is_whole: bool) -> list[JobRecord]:
    names = {queues[at]: queues[at + 1].decode() for at in range(0, len(queues), 2)}
    found = []
    for at in range(0, len(jobs), 6):
        job, text, sheet, progress, result, errors = jobs[at : at + 6]
        row = read_row(text)
        found.append(
            job_record(
                job,
                row,
                names[row.queue],
                read_sheet(sheet),
                progress,
                (result, errors) if is_whole else None,
            )
        )
    return found
