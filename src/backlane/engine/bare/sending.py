"""Sending: jobs are published, and stored when the broker has confirmed them all.

One message is stored or it is not. Of many some may be: where that cannot be made out, or
cannot be mended, the doubt names those that are not known to be stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from backlane.engine import wire
from backlane.engine.bare.core import PUBLISH_SECONDS, Core
from backlane.engine.bare.routing import can_delay, hop_ms
from backlane.engine.capability import needs_ledger
from backlane.engine.protocol import Admission
from backlane.engine.transport import Blocked, Fate, Parcel, Terms
from backlane.errors import NotSupported, OutcomeUnknown, TooLarge
from backlane.model.job import DEFAULT_RULE, Job, Receipt, Refusal
from backlane.model.queue import DEFAULT_BOUNDS, headroom

# What a caller is told who meets a broker that takes nothing: nobody knows how long it
# lasts, and who asks once a second costs it nothing.
AGAIN_MS = 1_000
CALLS_IN_TIME = 50  # that `PUBLISH_SECONDS` are enough for
BROKER = "broker"  # the bound of a refusal that is the broker's own
ENVELOPE_BYTES = 2_048  # of a message beside its body: properties, names of headers


async def append(
    core: Core, jobs: Sequence[Job], admission: Admission, url: str
) -> list[Receipt] | Refusal:
    """Publish jobs, and wait until the broker has them."""
    now_ms = core.clock.wall_ms()
    by_queue: dict[str, list[tuple[Job, Parcel]]] = {}
    first_of: dict[str, Job] = {}
    for job in jobs:
        _check(core, job, url)
        core.bounds.setdefault(job.queue, admission.declared.get(job.queue, DEFAULT_BOUNDS))
        name = core.name(job.queue, job.lane)
        first_of.setdefault(name, job)
        by_queue.setdefault(name, []).append((job, _parcel(core, job, now_ms)))
    for name, part in by_queue.items():
        refusal = await _full(core, name, part, admission)
        if refusal is not None:
            return refusal
        await core.declare(first_of[name].queue, first_of[name].lane)
    fates: dict[bytes, Fate] = {}
    for name, part in by_queue.items():
        try:
            seconds = publish_seconds(core.transport.terms, len(part))
            told = await core.transport.publish(name, [it for _, it in part], seconds)
        except Blocked:
            told = [Fate.REFUSED] * len(part)
        core.depths.sent(name, sum(fate is not Fate.REFUSED for fate in told))
        fates |= {job.id: fate for (job, _), fate in zip(part, told, strict=True)}
    return _answer(core, jobs, fates, now_ms)


def publish_seconds(terms: Terms, number: int) -> float:
    """Return how long it may take to publish so many: longer where that takes many calls.

    Fifty are carried out in ten seconds by an endpoint that takes a second for each.
    """
    calls = -(-number // terms.batch)
    return PUBLISH_SECONDS * max(1.0, calls / CALLS_IN_TIME)


def _check(core: Core, job: Job, url: str) -> None:
    """Refuse what the declarations could not know of, and what no message can hold.

    Raises:
        NotSupported: names the ledger.
        TooLarge: with both sizes.
    """
    asked = {
        "after=": job.after,
        "key=": job.key,
        "idempotency_key=": job.idempotency,
        "unique=": job.rule != DEFAULT_RULE,
        "resource=": job.resource,
        "a limit": job.uses,
        "a workflow": job.workflow,
    }
    for what, given in asked.items():
        if given:
            raise needs_ledger(what, url)
    terms = core.transport.terms
    if job.delay_ms and not can_delay(terms):
        raise NotSupported(
            f"{terms.name} puts nothing off here, so delay= (and at=) cannot be: leave it out, or "
            f"let a ledger keep what is due later: {needs_ledger('a delay', url)}"
        )


def _parcel(core: Core, job: Job, now_ms: int) -> Parcel:
    letter = wire.letter_of(job, now_ms)
    text = wire.written(letter)
    delay_ms = hop_ms(core.transport.terms.delays, job.delay_ms)
    if job.task is None:
        headers = {**letter.headers, wire.HEADER: text.decode()}
        parcel = Parcel(wire.id_text(job.id), job.body, headers, job.group, delay_ms)
        size = len(job.body) + sum(len(name) + len(value) for name, value in headers.items())
    else:
        parcel = Parcel(wire.id_text(job.id), text, {}, job.group, delay_ms)
        size = len(text)
    terms = core.transport.terms
    if size + ENVELOPE_BYTES > terms.most_bytes:
        raise TooLarge(
            f"job {wire.id_text(job.id)} takes {size:,} bytes as a message, and {terms.name} takes "
            f"{terms.most_bytes:,}, of which {ENVELOPE_BYTES:,} are for what is around it; store "
            "large data elsewhere and pass its id, or let a ledger keep the jobs"
        )
    return parcel


async def _full(
    core: Core, name: str, part: Sequence[tuple[Job, Parcel]], admission: Admission
) -> Refusal | None:
    """Refuse what would pass the bound, as far as can be told before it is sent."""
    job = part[0][0]
    bound = admission.declared.get(job.queue, DEFAULT_BOUNDS).max_jobs
    most = bound + (headroom(bound) if job.parent is not None else 0)
    depth = await core.depths.estimate(name, len(part), most)
    if depth + len(part) <= most:
        return None
    return Refusal(
        job.queue,
        "jobs",
        depth,
        bound,
        added=len(part),
        jobs=depth,
        can_fit=len(part) <= most,
        retry_ms=AGAIN_MS,
    )


def _answer(
    core: Core, jobs: Sequence[Job], fates: dict[bytes, Fate], now_ms: int
) -> list[Receipt] | Refusal:
    stored = sum(fates[job.id] is Fate.CONFIRMED for job in jobs)
    if stored == len(jobs):
        return [Receipt(job.id, enqueued_ms=now_ms, due_ms=now_ms + job.delay_ms) for job in jobs]
    first = jobs[0]
    depth = core.depths.known(core.name(first.queue, first.lane))
    if all(fates[job.id] is Fate.REFUSED for job in jobs):
        return Refusal(
            first.queue, BROKER, depth, depth, added=len(jobs), jobs=depth, retry_ms=AGAIN_MS
        )
    left = [job for job in jobs if fates[job.id] is not Fate.CONFIRMED]
    refused = sum(fates[job.id] is Fate.REFUSED for job in jobs)
    raise OutcomeUnknown(
        f"{core.transport.terms.name} has confirmed {stored} of {len(jobs)} jobs, refused "
        f"{refused}, and of the others nothing is known; send those that `jobs` names again: "
        "of them some may then be there twice",
        tuple(uuid.UUID(bytes=job.id) for job in left),
    )
