"""`backlane doctor`: what loses jobs or time here, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

import click
import msgspec

from backlane.cli.output import Output, count
from backlane.cli.root import FAILED
from backlane.cli.store import Store, store_options
from backlane.engine.moving import Seal
from backlane.engine.protocol import Capability, Finding, WorkerRecord
from backlane.engine.selection import Selection
from backlane.errors import BacklaneError
from backlane.model.breaker import ResourceRecord
from backlane.model.job import State
from backlane.model.queue import Kind, QueueRecord

NEARLY_FULL = 0.8  # of a bound: enough warning to do something before it refuses


class DoctorView(msgspec.Struct, frozen=True):
    """All findings; `healthy` is false when one of them is an error."""

    url: str
    healthy: bool
    findings: list[Finding]


@click.command()
@store_options
def doctor(store: Store, output: Output) -> None:
    """Look for settings and states that lose jobs or time.

    Exit code 1 when something is broken; warnings alone exit 0.
    """
    findings = store.engine.diagnose()
    keeps_jobs = Capability.RECORDS in store.engine.capabilities
    try:
        findings += _traffic(store) if keeps_jobs else ()
    except BacklaneError:
        # Of a store that is broken what was found is what helps; else the error does.
        if not any(finding.state == "error" for finding in findings):
            raise
    is_healthy = not any(finding.state == "error" for finding in findings)
    if output.as_json:
        output.document(DoctorView(store.engine.url, is_healthy, findings))
    else:
        for finding in findings:
            output.line(_line(finding))
            if finding.remedy:
                output.line(f"         mend it: {finding.remedy}")
    if not is_healthy:
        click.get_current_context().exit(FAILED)


def _line(finding: Finding) -> str:
    colour = {"ok": "green", "warning": "yellow", "error": "red"}[finding.state]
    return f"{click.style(f'{finding.state:>7}', fg=colour)}  {finding.subject}: {finding.text}"


def _traffic(store: Store) -> Iterator[Finding]:
    """Judge what any engine can tell: queues, resources and workers."""
    seal = store.run(store.engine.sealed())
    if seal is not None:
        yield _seal(store.engine.url, seal)
    queues = store.queues()
    workers = store.run(store.engine.list_workers())
    for queue in queues:
        yield from _queue(store, queue, workers)
    for resource in store.run(store.engine.list_resources()):
        yield from _resource(resource, store.engine.url)
    if workers:
        slots = sum(worker.slots for worker in workers)
        running = sum(worker.running for worker in workers)
        text = f"{len(workers)} alive, {running} of {slots} slots in use"
        yield Finding(subject="workers", state="ok", text=text)


def _seal(url: str, seal: Seal) -> Finding:
    if seal.is_done:
        text = f"was moved to {seal.to}: it takes no jobs, and workers here get none"
        remedy = f"start applications and workers with {seal.to}"
    else:
        text = f"is being moved to {seal.to}: it takes no new jobs, and workers here get none"
        remedy = f"`backlane move {quote(url)} {quote(seal.to)}` goes on; with --back it gives up"
    return Finding(subject="store", state="warning", text=text, remedy=remedy)


def _queue(store: Store, queue: QueueRecord, workers: list[WorkerRecord]) -> Iterator[Finding]:
    subject = f"queue {queue.name}"
    held, bound = queue.depth.jobs, queue.bounds.max_jobs
    at = f"--url {quote(store.engine.url)}"
    if held >= NEARLY_FULL * bound or queue.depth.bytes >= NEARLY_FULL * queue.bounds.max_bytes:
        yield Finding(
            subject=subject,
            state="warning",
            text=f"holds {held:,} of {bound:,} jobs; a full queue refuses",
            remedy=f"start more workers, or `backlane queues tune {queue.name} --max-jobs N {at}`",
        )
    if queue.paused and held:
        yield Finding(
            subject=subject,
            state="warning",
            text=f"paused, with {count(held, 'job')} waiting",
            remedy=f"`backlane queues resume {queue.name} {at}`",
        )
    served = any(queue.name in worker.queues for worker in workers)
    if queue.kind is Kind.TASKS and queue.depth.ready and not served:
        yield Finding(
            subject=subject,
            state="warning",
            text=f"{count(queue.depth.ready, 'job')} ready, and no worker serves it",
            remedy=f"`backlane worker module:app --queues {queue.name}`",
        )
    dead = f"`backlane dead list --queue {queue.name} {at}`"
    if queue.failed and _has_dead(store, queue.name):
        yield Finding(subject=subject, state="warning", text="has dead letters", remedy=dead)


def _resource(resource: ResourceRecord, url: str) -> Iterator[Finding]:
    if resource.state != "closed":
        by_hand = resource.opens_in_ms is None
        yield Finding(
            subject=f"resource {resource.name}",
            state="warning",
            text=f"{resource.state}, and its jobs wait: {resource.reason}",
            remedy=f"`backlane resources close {resource.name} --url {quote(url)}`"
            if by_hand
            else "see to what it stands for; when that is well, its jobs run again by themselves",
        )


def _has_dead(store: Store, queue: str) -> bool:
    selection = Selection(queue=queue, states=(State.FAILED,))
    return bool(store.run(store.engine.find(selection, 1)).records)
