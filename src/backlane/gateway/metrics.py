"""Metrics: what a monitoring system scrapes, `GET /metrics`.

Figures of queues, workers and resources are the store's, whichever process they come
from, so that one gateway scraped tells all; counts of requests and refusals are this
process's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from backlane.engine.protocol import WorkerRecord
from backlane.gateway import auth
from backlane.gateway.exposition import CONTENT_TYPE, Exposition
from backlane.gateway.site import Exchange, Rule
from backlane.gateway.speed import Speed
from backlane.gateway.tally import MOST_QUEUES
from backlane.model.breaker import ResourceRecord
from backlane.model.limit import LimitRecord

LIVE_MS = 30_000  # a worker that was silent for longer is none
MOST_RESOURCES = 500
MOST_LIMITS = 500


async def metrics(exchange: Exchange) -> Response:
    """Tell all figures there are."""
    auth.check(exchange.caller, "read")  # of everything: figures are not told apart by queue
    site = exchange.site
    engine = exchange.app.engine
    speeds = await site.speeds.read()
    workers = await engine.arun(engine.list_workers())
    resources = await engine.arun(engine.list_resources())
    limits = await engine.arun(engine.list_limits())
    told = Exposition("backlane")
    _tell_queues(told, speeds)
    _tell_workers(told, workers)
    _tell_resources(told, resources)
    _tell_limits(told, limits)
    site.tally.tell(told)
    told.family("http_followers", "gauge", "Streams and long polls that are open.").add(
        len(site.hub)
    )
    return Response(
        told.encoded(), headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE}
    )


ROUTES = [Rule("GET", "/metrics", metrics, "read")]


def _tell_queues(told: Exposition, speeds: Sequence[Speed]) -> None:
    deepest = sorted(speeds, key=lambda it: it.record.depth.jobs, reverse=True)[:MOST_QUEUES]
    shown = sorted(deepest, key=lambda it: it.record.name)
    told.family("queues", "gauge", "Queues that the store holds.").add(len(speeds))
    _tell_depths(told, shown)
    _tell_bounds(told, shown)
    _tell_speeds(told, shown)
    _tell_counters(told, shown)


def _tell_depths(told: Exposition, shown: Sequence[Speed]) -> None:
    jobs = told.family("queue_jobs", "gauge", "Jobs and messages that wait or run, by state.")
    for it in shown:
        depth, queue = it.record.depth, it.record.name
        jobs.add(depth.scheduled, queue=queue, state="scheduled")
        jobs.add(depth.ready, queue=queue, state="ready")
        jobs.add(depth.running, queue=queue, state="running")
        jobs.add(depth.blocked, queue=queue, state="blocked")
    family = told.family("queue_bytes", "gauge", "Bytes of these.")
    for it in shown:
        family.add(it.record.depth.bytes, queue=it.record.name)
    family = told.family("queue_paused", "gauge", "1 while its jobs are given to no worker.")
    for it in shown:
        family.add(it.record.paused, queue=it.record.name)
    family = told.family(
        "queue_oldest_ready_seconds", "gauge", "How long the job next in line has been due."
    )
    for it in shown:
        age_ms = it.record.oldest_ready_ms
        family.add(None if age_ms is None else age_ms / 1000, queue=it.record.name)


def _tell_bounds(told: Exposition, shown: Sequence[Speed]) -> None:
    family = told.family("queue_max_jobs", "gauge", "The most jobs it holds.")
    for it in shown:
        family.add(it.record.bounds.max_jobs, queue=it.record.name)
    family = told.family("queue_max_bytes", "gauge", "The most bytes it holds.")
    for it in shown:
        family.add(it.record.bounds.max_bytes, queue=it.record.name)
    family = told.family(
        "queue_max_wait_seconds", "gauge", "The longest expected wait at which jobs are admitted."
    )
    for it in shown:
        wait_ms = it.record.bounds.max_wait_ms
        family.add(wait_ms / 1000 if wait_ms else None, queue=it.record.name)


def _tell_speeds(told: Exposition, shown: Sequence[Speed]) -> None:
    family = told.family("queue_pressure", "gauge", "How full it is, 0 to 1: its fullest bound.")
    for it in shown:
        family.add(it.pressure, queue=it.record.name)
    family = told.family(
        "queue_expected_wait_seconds", "gauge", "What a job enqueued now would wait to be started."
    )
    for it in shown:
        family.add(it.expected_wait, queue=it.record.name)
    family = told.family("queue_arrival_rate", "gauge", "Jobs a second that come in.")
    for it in shown:
        family.add(it.meter.arrivals, queue=it.record.name)
    family = told.family("queue_service_rate", "gauge", "Jobs a second that workers can start.")
    for it in shown:
        family.add(it.meter.mu, queue=it.record.name)
    family = told.family(
        "queue_calibration", "gauge", "By what expected waits are multiplied to come true."
    )
    for it in shown:
        family.add(it.meter.calibration, queue=it.record.name)
    family = told.family("queue_slots", "gauge", "Slots of live workers that serve it.")
    for it in shown:
        sample = it.meter.sample
        family.add(None if sample is None else sample.slots, queue=it.record.name)


def _tell_counters(told: Exposition, shown: Sequence[Speed]) -> None:
    family = told.family("queue_appended_total", "counter", "Jobs stored since it was made.")
    for it in shown:
        family.add(it.record.appended, queue=it.record.name)
    family = told.family("queue_started_total", "counter", "Leases given.")
    for it in shown:
        family.add(it.record.started, queue=it.record.name)
    family = told.family("queue_ended_total", "counter", "Jobs that ended, by final state.")
    for it in shown:
        record = it.record
        family.add(record.succeeded, queue=record.name, state="succeeded")
        family.add(record.failed, queue=record.name, state="failed")
        family.add(record.cancelled, queue=record.name, state="cancelled")
        family.add(record.expired, queue=record.name, state="expired")
    family = told.family("queue_retried_total", "counter", "Attempts that were put off to retry.")
    for it in shown:
        family.add(it.record.retried, queue=it.record.name)
    family = told.family("queue_run_seconds_total", "counter", "What attempts ran in all.")
    for it in shown:
        family.add(it.record.ran_ms / 1000, queue=it.record.name)


def _tell_workers(told: Exposition, workers: Sequence[WorkerRecord]) -> None:
    live = [worker for worker in workers if worker.beat_age_ms < LIVE_MS]
    told.family("workers", "gauge", "Workers that gave a sign of life lately.").add(len(live))
    told.family("worker_slots", "gauge", "Jobs they can run at a time.").add(
        sum(worker.slots for worker in live)
    )
    told.family("worker_running", "gauge", "Jobs they run.").add(
        sum(worker.running for worker in live)
    )


def _tell_resources(told: Exposition, resources: Sequence[ResourceRecord]) -> None:
    family = told.family(
        "resource_state", "gauge", "1 for the state of its breaker: closed, open or trying."
    )
    shown = sorted(resources[:MOST_RESOURCES], key=lambda it: it.name)
    for resource in shown:
        for state in ("closed", "open", "trying"):
            family.add(resource.state == state, resource=resource.name, state=state)
    family = told.family("resource_trips", "gauge", "Times in a row that its breaker opened.")
    for resource in shown:
        family.add(resource.trips, resource=resource.name)


def _tell_limits(told: Exposition, limits: Sequence[LimitRecord]) -> None:
    busiest = sorted(limits, key=lambda it: it.running + it.blocked, reverse=True)[:MOST_LIMITS]
    shown = sorted(busiest, key=lambda it: it.name)
    family = told.family("limit_running", "gauge", "What runs under it, over all groups.")
    for limit in shown:
        family.add(limit.running, limit=limit.name)
    family = told.family("limit_blocked", "gauge", "Jobs that wait for it.")
    for limit in shown:
        family.add(limit.blocked, limit=limit.name)
    family = told.family("limit_concurrency", "gauge", "How many it allows, of each group if so.")
    for limit in shown:
        family.add(limit.limit.concurrency, limit=limit.name)
