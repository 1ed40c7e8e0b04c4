"""References: what other jobs resulted in is put among the arguments of a job that starts."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.selection import Page, Selection
from backlane.errors import ResultGone
from backlane.model.codec.envelope import Reference, What, as_list, filled, joined, opened
from backlane.model.codec.json import encode
from backlane.model.failure import failure
from backlane.model.job import JobRecord, Lease, State
from backlane.model.outcome import Outcome, Reason
from backlane.model.retry import DEFAULT_RETRY
from backlane.model.workflow import GATHER_TASK
from backlane.worker.verdict import judge, spoilt

if TYPE_CHECKING:
    from backlane.app import Backlane

READ_AT_ONCE = 200  # a slice results in some kilobytes
HOPS = 100  # from a job that was skipped to the one that failed

Reading = Generator[Plan[Any], Any, bytes]


def resolve(app: Backlane, lease: Lease) -> bytes | Outcome:
    """Return a job's arguments with all results put in; or what becomes of it instead."""
    if lease.task == GATHER_TASK:  # who reads what it results in reads those
        return lease.body
    try:
        return _resolved(app.engine, lease.body)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is an error of this job
        return _unresolved(app, lease, error)


async def aresolve(app: Backlane, lease: Lease) -> bytes | Outcome:
    """Like `resolve`."""
    try:
        return await _aresolved(app.engine, lease.body)
    except Exception as error:  # noqa: BLE001 - as above
        return _unresolved(app, lease, error)


def _unresolved(app: Backlane, lease: Lease, error: Exception) -> Outcome:
    if isinstance(error, ResultGone):
        return spoilt(Reason.UNDECODABLE, error)
    task = app.tasks.get(lease.task or "")
    return judge(error, lease, task.retry if task else DEFAULT_RETRY, None)


def _resolved(engine: Engine, body: bytes) -> bytes:
    reading, answer = _read(engine, body), None
    while True:
        try:
            plan = reading.send(answer)  # None begins it
        except StopIteration as done:
            resolved: bytes = done.value
            return resolved
        answer = engine.run(plan)


async def _aresolved(engine: Engine, body: bytes) -> bytes:
    reading, answer = _read(engine, body), None
    while True:
        try:
            plan = reading.send(answer)
        except StopIteration as done:
            resolved: bytes = done.value
            return resolved
        answer = await engine.arun(plan)


def _read(engine: Engine, body: bytes) -> Reading:
    envelope, arguments = opened(body)
    values = yield from _values(engine, envelope.references)
    # The whole record only where more is to be told: that of a slice is as large as its leaves.
    wanted = dict.fromkeys(
        job
        for reference in envelope.references
        for job in reference.ids
        if reference.what is What.FAILURE or job not in values
    )
    records = yield from _records(engine, list(wanted))
    failures: dict[bytes, bytes] = {}
    for reference in envelope.references:
        if reference.what is What.FAILURE:
            job = reference.ids[0]
            failures[job] = yield from _failure(engine, records, job)

    def value(reference: Reference) -> bytes:
        if reference.what is What.FAILURE:
            return failures[reference.ids[0]]
        results = [
            values[job] if job in values else _lacking(records.get(job), job, reference)
            for job in reference.ids
        ]
        match reference.what:
            case What.LIST:
                return as_list(results)
            case What.JOINED:
                return joined(b"[]" if it == b"null" else it for it in results)
            case _:
                return results[0]

    return filled(arguments, envelope.references, value)


def _values(
    engine: Engine, references: Iterable[Reference]
) -> Generator[Plan[Any], Any, dict[bytes, bytes]]:
    """Read what those of the jobs resulted in that have a result."""
    ids = list({job: None for reference in references for job in reference.ids})
    values: dict[bytes, bytes] = {}
    for at in range(0, len(ids), READ_AT_ONCE):
        found = yield engine.results(ids[at : at + READ_AT_ONCE])
        values |= {one.job: one.result for one in found if one.result is not None}
    return values


def _records(
    engine: Engine, ids: Sequence[bytes]
) -> Generator[Plan[Any], Any, dict[bytes, JobRecord]]:
    records: dict[bytes, JobRecord] = {}
    for at in range(0, len(ids), READ_AT_ONCE):
        part = Selection(ids=tuple(ids[at : at + READ_AT_ONCE]))
        page = yield engine.find(part, READ_AT_ONCE)
        records |= {record.id: record for record in page.records}
    return records


def _lacking(record: JobRecord | None, job: bytes, reference: Reference) -> bytes:
    """Return what stands for a result that is not there; only some may be missing."""
    if reference.partial and (record is None or record.state is not State.SUCCEEDED):
        return b"null"
    where = "/".join(map(str, reference.at))
    name = f"job {uuid.UUID(bytes=job)}"
    if record is None:
        why = f"{name} is not stored any more: it was deleted, or its history has been pruned"
    elif record.state is not State.SUCCEEDED:
        why = f"{name} ({record.task}) ended as {record.state.value}; retry the workflow from it"
    else:
        why = f"{name} ({record.task}) kept no result; declare its task without keep_result=False"
    raise ResultGone(f"argument {where!r} is the result of another job, and there is none: {why}")


def _failure(
    engine: Engine, records: dict[bytes, JobRecord], job: bytes
) -> Generator[Plan[Page], Page, bytes]:
    """Return what is told of a failure: of a job that was skipped, of the one that failed."""
    record = records.get(job)
    for _ in range(HOPS):
        if record is None or not _was_skipped(record):
            break
        page = yield engine.find(Selection(ids=tuple(edge.job for edge in record.after)), 1_000)
        bad = _first_bad(page.records)
        if bad is None:
            break
        record = bad
    if record is None:
        raise ResultGone(
            f"job {uuid.UUID(bytes=job)}, whose failure is told, is not stored any more"
        )
    return encode(failure(record))


def _was_skipped(record: JobRecord) -> bool:
    return bool(record.errors) and record.errors[-1].error.kind == "Skipped"


def _first_bad(records: Iterable[JobRecord]) -> Any:
    bad = [it for it in records if it.state.is_final and it.state is not State.SUCCEEDED]
    failed = [it for it in bad if it.state is State.FAILED]
    return next(iter(failed or bad), None)
