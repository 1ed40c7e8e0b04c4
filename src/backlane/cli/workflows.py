"""`backlane workflows`: how far one is, and what becomes of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from backlane.cli.output import Output, count
from backlane.cli.store import JOB_ID, Store, store_options
from backlane.cli.view import JobView, job_view
from backlane.errors import BadOption
from backlane.model.clock import SystemClock
from backlane.model.job import JobRecord
from backlane.model.workflow import leaves_of
from backlane.place import Place
from backlane.workflow_handle import WorkflowHandle, WorkflowProgress

ID = click.argument("workflow_id", metavar="ID", type=JOB_ID)


class WorkflowView(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as `--json` shows it: fields are only ever added."""

    id: uuid.UUID
    state: str
    done: int
    total: int
    failed: int
    nodes: list[JobView]


class ChangedView(msgspec.Struct, frozen=True):
    """How many jobs were changed."""

    changed: int


@click.group()
def workflows() -> None:
    """Show, cancel and retry workflows."""


@workflows.command("show")
@ID
@store_options
def show(store: Store, output: Output, workflow_id: bytes) -> None:
    """Show how far a workflow is, and its nodes; leaves of maps are counted only."""
    with _held(store, workflow_id) as run:
        progress, nodes = run.progress, run.nodes()
    if output.as_json:
        output.document(
            WorkflowView(
                id=run.id,
                state=progress.state.value,
                done=progress.done,
                total=progress.total,
                failed=progress.failed,
                nodes=[job_view(node) for node in nodes],
            )
        )
        return
    output.line(f"workflow {run.id} is {progress.state.value}: {_told(progress)}")
    output.table(("id", "task", "queue", "state", "note"), [_row(node) for node in nodes])


@workflows.command("cancel")
@ID
@store_options
def cancel(store: Store, output: Output, workflow_id: bytes) -> None:
    """Cancel all that has not ended: what waits ends at once, what runs is asked to stop."""
    with _held(store, workflow_id) as run:
        _tell(output, run.cancel(), f"of workflow {run.id} cancelled")


@workflows.command("retry")
@ID
@click.option("--node", metavar="ID", type=JOB_ID, help="Only this job and those behind it.")
@store_options
def retry(store: Store, output: Output, workflow_id: bytes, node: bytes | None) -> None:
    """Run again what did not succeed, and what was skipped because of it."""
    with _held(store, workflow_id) as run:
        given = None if node is None else uuid.UUID(bytes=node)
        _tell(output, run.retry(given), f"of workflow {run.id} will run again")


@contextmanager
def _held(store: Store, workflow_id: bytes) -> Iterator[WorkflowHandle[Any]]:
    """Return the grip on a workflow.

    Raises:
        JobNotFound, BadOption: there is none of that id.
    """
    record = store.job(workflow_id)
    if record.workflow != workflow_id:
        name = uuid.UUID(bytes=workflow_id)
        of = f"of workflow {uuid.UUID(bytes=record.workflow)}" if record.workflow else "of none"
        raise BadOption(f"{name} is a job {of}, and no workflow itself")
    clock = SystemClock()
    place = Place(store.engine.url, clock)
    with place.replaced(store.engine, clock):
        yield WorkflowHandle(workflow_id, place, {})


def _tell(output: Output, changed: int, what: str) -> None:
    if output.as_json:
        output.document(ChangedView(changed))
    else:
        output.line(f"{count(changed, 'job')} {what}")


def _told(progress: WorkflowProgress) -> str:
    failed = f", {progress.failed:,} of them did not succeed" if progress.failed else ""
    return f"{progress.done:,} of {progress.total:,} done{failed}"


def _row(node: JobRecord) -> tuple[str, ...]:
    leaves = leaves_of(node.tags)
    notes = [] if leaves is None else [f"{leaves:,} leaves"]
    if node.waits_for:
        notes.append(f"waits for {count(node.waits_for, 'job')}")
    elif node.reason is not None:
        notes.append(str(node.reason))
    return (
        str(uuid.UUID(bytes=node.id)),
        node.task or "",
        node.queue,
        str(node.state),
        ", ".join(notes),
    )
