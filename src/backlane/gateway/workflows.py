"""Workflows: how far one is, cancelling it, and running again what did not succeed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.responses import Response

from backlane.errors import BadOption
from backlane.gateway import auth
from backlane.gateway.answer import answer
from backlane.gateway.declined import decline
from backlane.gateway.resource import JobResource, resource_of
from backlane.gateway.site import Exchange, Rule
from backlane.model.job import JobRecord, State
from backlane.workflow_handle import WorkflowHandle

NODES_SHOWN = 1_000
POLL_SECONDS = "1"  # hint: how soon to ask again


class WorkflowResource(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as the gateway shows it; `done` of `total` count leaves of maps too.

    `nodes` are its first 1,000 jobs, without leaves of maps.
    """

    id: str
    state: State
    done: int
    total: int
    failed: int
    nodes: list[JobResource]


class WorkflowChanged(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs were cancelled, or run again, and how far the workflow is now."""

    changed: int
    workflow: WorkflowResource


async def show(exchange: Exchange) -> Response:
    """Show how far a workflow is, and its nodes."""
    run = await _found(exchange, "read")
    shown = await _resource(run)
    headers = {} if shown.state.is_final else {"Retry-After": POLL_SECONDS}
    return answer(shown, headers=headers)


async def cancel(exchange: Exchange) -> Response:
    """Cancel all of a workflow that has not ended."""
    run = await _found(exchange, "operate")
    changed = await run.acancel()
    return answer(WorkflowChanged(changed=changed, workflow=await _resource(run)))


async def retry(exchange: Exchange) -> Response:
    """Run again what of a workflow did not succeed, and what was skipped because of it."""
    run = await _found(exchange, "operate")
    changed = await run.aretry()
    return answer(WorkflowChanged(changed=changed, workflow=await _resource(run)))


ROUTES = [
    Rule("GET", "/v1/workflows/{workflow}", show, "read"),
    Rule("POST", "/v1/workflows/{workflow}/cancel", cancel, "operate"),
    Rule("POST", "/v1/workflows/{workflow}/retry", retry, "operate"),
]


async def _found(exchange: Exchange, scope: str) -> WorkflowHandle[Any]:
    """Return the workflow that the path names, if the caller may see all of its nodes.

    Raises:
        JobNotFound, Declined: 404, also for the id of something else.
    """
    try:
        run = await exchange.app.aworkflow(exchange.param("workflow"))
    except BadOption as error:
        decline(404, "unknown-job", "There is no such workflow", str(error))
    _check(exchange, scope, await run.anodes())
    return run


def _check(exchange: Exchange, scope: str, nodes: Iterable[JobRecord]) -> None:
    for task, queue in {(node.task or "", node.queue) for node in nodes}:
        auth.check(exchange.caller, scope, (task, queue))


async def _resource(run: WorkflowHandle[Any]) -> WorkflowResource:
    progress = await run.aprogress()
    nodes = await run.anodes()
    return WorkflowResource(
        id=str(uuid.UUID(bytes=run.id.bytes)),
        state=progress.state,
        done=progress.done,
        total=progress.total,
        failed=progress.failed,
        nodes=[resource_of(node) for node in nodes[:NODES_SHOWN]],
    )
