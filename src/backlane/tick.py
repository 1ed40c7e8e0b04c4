"""Ticks: the jobs that schedules come to when they are due.

Nothing here waits or talks to a store: given what a store says of its schedules, it says
what to send back. Whoever does so first is the one who ticked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from backlane.engine.scheduling import ScheduleRecord, Tick, Timetable
from backlane.errors import BacklaneError
from backlane.model.codec import encode_headers
from backlane.model.ids import derived_id
from backlane.model.job import DEFAULT_RULE, Job, Key
from backlane.model.schedule import Due, Spec, decode_spec, due, jitter_ms

NAME_HEADER, DUE_HEADER = "schedule", "due"  # by which a job knows what it was made for


class Declared(msgspec.Struct, frozen=True, array_like=True):
    """A schedule that the application's code declares."""

    name: str
    task: str
    spec: bytes


Fault = Callable[[str, Exception], None]  # the name of a schedule, and why it cannot be applied


def ticks(
    timetable: Timetable,
    templates: Mapping[str, Job],
    fault: Fault,
    skipped: Iterable[str] = (),
    most: Mapping[str, int] = MappingProxyType({}),
) -> list[Tick]:
    """Return what applying these due schedules comes to, by the store's own now.

    Those of a task that is not among `templates` are left to others, as are those that
    are `skipped`. One that cannot be applied is told to `fault`, and stops no other. Of those
    in `most` only so many jobs are made, the oldest first, and the others later.
    """
    passed = frozenset(skipped)
    found = []
    for record in timetable.schedules:
        template = templates.get(record.task)
        if template is None or record.name in passed:
            continue
        try:
            found.append(_tick(record, template, timetable.now_ms, most.get(record.name)))
        except Exception as error:  # noqa: BLE001 - a rule of another version may raise anything
            fault(record.name, error)
    return found


def _tick(record: ScheduleRecord, template: Job, now_ms: int, most: int | None) -> Tick:
    spec = decode_spec(record.spec)
    found = due(spec, record.name, record.last_ms, now_ms)
    if most is not None and len(found.moments) > most:
        now, later = found.moments[:most], found.moments[most]
        found = Due(now, now[-1], later)
    made = scheduled(spec, template)
    return Tick(
        name=record.name,
        revision=record.revision,
        last_ms=found.last_ms,
        next_ms=found.next_ms,
        jobs=tuple(_job(made, spec, record.name, moment, now_ms) for moment in found.moments),
    )


def scheduled(spec: Spec, template: Job) -> Job:
    """Return what a schedule makes jobs of, out of its task's template.

    Where a key is held, a tick is done without a job: to raise would tell nobody.
    """
    key = None if spec.key is None else Key(template.task or "", spec.key)
    rule = template.rule
    conflict = "existing" if rule.conflict == "raise" else rule.conflict
    return replace(
        template,
        body=spec.body,
        queue=template.queue if spec.queue is None else spec.queue,
        priority=template.priority if spec.priority is None else spec.priority,
        expires_ms=template.expires_ms if spec.expires_ms is None else spec.expires_ms,
        group=template.group if spec.group is None else spec.group,
        uses=template.uses if spec.uses is None else spec.uses,
        tags=template.tags if spec.tags is None else spec.tags,
        key=key,
        rule=DEFAULT_RULE if key is None else replace(rule, conflict=conflict),
    )


def headers_of(spec: Spec, name: str, moment_ms: int) -> bytes | None:
    """Return the headers of a job: what it was made for, beside its schedule's own."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat()
    return encode_headers({**spec.headers, NAME_HEADER: name, DUE_HEADER: moment})


def _job(made: Job, spec: Spec, name: str, moment: int, now_ms: int) -> Job:
    return replace(
        made,
        id=derived_id(moment, NAME_HEADER, name),
        headers=headers_of(spec, name, moment),
        delay_ms=max(0, moment + jitter_ms(spec, name, moment) - now_ms),
    )


def is_plain_fault(error: Exception) -> bool:
    """Whether an error says all there is to know, without where it was raised."""
    return isinstance(error, BacklaneError)
