"""Results: what a workflow results in, read from the jobs that it is put together from."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.selection import Selection
from backlane.errors import JobCancelled, JobExpired, JobFailed, ResultGone, ResultTimeout
from backlane.model.codec import plain
from backlane.model.codec.envelope import Reference, What, filled_with, opened
from backlane.model.job import JobRecord, State
from backlane.model.workflow import GATHER_TASK, SLICE_TASK, SPREAD_TASK, leaf_task
from backlane.wait import Wait

T = TypeVar("T")

READ_AT_ONCE = 200  # whole jobs: a slice has its leaves' arguments with it

Decode = Callable[[bytes], Any]
Steps = Generator[Plan[Any], Any, T]  # plans to carry out one after the other, then a value


class Results:
    """Reads what workflows result in; `decoders` are those of tasks, by name."""

    def __init__(self, engine: Engine, decoders: Mapping[str, Decode]) -> None:
        self._engine, self._decoders = engine, decoders

    def value(self, record: JobRecord) -> Steps[Any]:
        """Return what a last job that succeeded stands for.

        Raises:
            ResultGone: a result of it was not kept.
        """
        if record.task != GATHER_TASK:
            if record.result is None:
                raise _gone(record.id)
            return self._decoded(record)
        envelope, arguments = opened(record.body)
        ids = [job for reference in envelope.references for job in reference.ids]
        records: dict[bytes, JobRecord] = {}
        for at in range(0, len(ids), READ_AT_ONCE):
            part = tuple(ids[at : at + READ_AT_ONCE])
            page = yield self._engine.find(Selection(ids=part), READ_AT_ONCE)
            records |= {it.id: it for it in page.records}
        value = filled_with(arguments, envelope.references, lambda it: self._of(it, records))
        return value["value"]

    def _of(self, reference: Reference, records: dict[bytes, JobRecord]) -> Any:
        values: list[Any] = []
        for job in reference.ids:
            record = records.get(job)
            succeeded = record is not None and record.state is State.SUCCEEDED
            if not succeeded and reference.partial:
                values.append(None)
            elif record is None or record.result is None:
                raise _gone(job)
            else:
                values.append(self._decoded(record))
        if reference.what is What.JOINED:
            return [item for part in values for item in part or ()]
        return values if reference.what is What.LIST else values[0]

    def _decoded(self, record: JobRecord) -> Any:
        """Return a result as its task returned it; that of a slice as the task of its leaves."""
        result = record.result or b"null"
        if record.task not in (SLICE_TASK, SPREAD_TASK):
            return self._decoder(record.task)(result)
        decode = self._decoder(leaf_task(record.body))
        parts = msgspec.json.decode(result, type=list[msgspec.Raw] | None)
        if parts is None:
            raise _gone(record.id)
        return [None if bytes(part) == b"null" else decode(bytes(part)) for part in parts]

    def _decoder(self, task: str | None) -> Decode:
        return self._decoders.get(task or "", plain)


def refuse(end: JobRecord, nodes: list[JobRecord], wait: Wait) -> NoReturn:
    """Say why a workflow has no result (yet)."""
    name = f"workflow {uuid.UUID(bytes=end.id)}"
    if not end.state.is_final:
        raise ResultTimeout(
            f"{name} has not ended after a wait of {wait.given}; it goes on, ask again, and see "
            "that workers serve its queues"
        )
    bad = next((node for node in nodes if node.state is State.FAILED), None)
    if bad is not None:
        last = bad.errors[-1].error if bad.errors else None
        told = f": {last.kind}: {' '.join(last.message.split())[:300]}" if last else ""
        raise JobFailed(
            f"{name} failed at job {uuid.UUID(bytes=bad.id)} ({bad.task}){told}; retry() runs the "
            "rest of it once the cause is gone",
            bad.reason.value if bad.reason else "error",
            last,
        )
    if any(node.state is State.EXPIRED for node in nodes):
        raise JobExpired(
            f"a job of {name} expired before a worker could start it; start more workers, or let "
            "it expire later"
        )
    raise JobCancelled(f"{name} was cancelled; retry() runs the rest of it")


def _gone(job: bytes) -> ResultGone:
    return ResultGone(
        f"job {uuid.UUID(bytes=job)} has no result (any more): it was not kept, or its history "
        "has been pruned; declare its task without keep_result=False to keep results"
    )
