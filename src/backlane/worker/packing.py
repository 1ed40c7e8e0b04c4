"""Packing: handles as the results of steps, and as later attempts get them back."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from backlane.handle import JobHandle, Reader
from backlane.model.codec import plain
from backlane.workflow_handle import WorkflowHandle

if TYPE_CHECKING:
    from backlane.app import Backlane

Handle = JobHandle[Any] | WorkflowHandle[Any]

WORKFLOW = " workflow"  # no task can be named so
MARK = b'{"$handles":'


class _Handles(msgspec.Struct, frozen=True, rename={"handles": "$handles"}):
    handles: list[tuple[str, uuid.UUID]]
    many: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Handles).decode


class Packed:
    """Packs handles of jobs and workflows, one or a list."""

    def __init__(self, app: Backlane) -> None:
        self._app = app

    def pack(self, value: object) -> bytes | None:
        """Return handles as JSON; None: it is something else."""
        if isinstance(value, list):
            handles = [one for one in value if _is_handle(one)]
            if value and len(handles) == len(value):
                return _encode(_Handles([self._named(one) for one in handles], many=True))
        return _encode(_Handles([self._named(value)])) if _is_handle(value) else None

    def unpack(self, data: bytes) -> object | None:
        """Return the handles again; None: it is something else."""
        if not data.startswith(MARK):
            return None
        packed = _decode(data)
        handles = [self._handle(kind, job) for kind, job in packed.handles]
        return handles if packed.many else handles[0]

    def _handle(self, kind: str, job: uuid.UUID) -> object:
        intake = self._app.intake
        if kind == WORKFLOW:
            return WorkflowHandle(job.bytes, intake.place, intake.decoders)
        return JobHandle(job.bytes, Reader(intake.place, intake.decoders.get(kind, plain)))

    def _named(self, handle: Handle) -> tuple[str, uuid.UUID]:
        """Return what a handle is of, a task or a workflow, and its id."""
        if isinstance(handle, WorkflowHandle):
            return WORKFLOW, handle.id
        decoders = self._app.intake.decoders.items()
        task = next((name for name, decode in decoders if decode == handle.decode_result), "")
        return task, handle.id


def _is_handle(value: object) -> TypeGuard[Handle]:
    return isinstance(value, JobHandle | WorkflowHandle)
