"""Needs: what is declared asks something of the engine, and is refused where it is written.

Here is the table of all that an engine may lack. Stores that keep jobs have all of it but
what depends on a database; a broker alone has little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from backlane.engine.protocol import Capability
from backlane.errors import BadOption
from backlane.model.job import Policy
from backlane.model.queue import Queue
from backlane.place import Place
from backlane.unique import Unique

_TASK = {
    "priority": Capability.ORDER,
    "resource": Capability.RESOURCES,
    "limit": Capability.LIMITS,
    "limits": Capability.LIMITS,
    "tags": Capability.RECORDS,
    "keep": Capability.RECORDS,
    "keep_latest": Capability.RECORDS,
    "keep_result": Capability.RECORDS,
    "unique": Capability.KEYS,
}
_ENQUEUE = {
    "key": Capability.KEYS,
    "unique": Capability.KEYS,
    "idempotency_key": Capability.KEYS,
    "connection": Capability.JOINS,
    "priority": Capability.ORDER,
    "tags": Capability.RECORDS,
}
_QUEUE = {
    "max_wait": Capability.EXACT_BOUNDS,
    "group_share": Capability.EXACT_BOUNDS,
    "limit": Capability.LIMITS,
    "fair": Capability.ORDER,
    "ordering": Capability.ORDER,
}
# Given so, an option asks for nothing that a broker would not do as well.
_NOTHING: tuple[object, ...] = (None, False, (), [])
_PRIORITY = 5  # what every job has


@runtime_checkable
class _Impatient(Protocol):
    """An engine that takes a job back which runs for too long; 0: it takes none."""

    @property
    def longest_ms(self) -> int: ...


def check_task(place: Place, options: Mapping[str, object]) -> None:
    """Refuse options of a task that the engine cannot carry out.

    Raises:
        NotSupported: names the remedy.
    """
    if not place.keeps_jobs:
        _check(place, options, _TASK, "@app.task({}=…)")


def check_enqueue(place: Place, options: Mapping[str, object], call: str) -> None:
    """Refuse options of an enqueue, or of a message; `call` is what they were given to.

    Raises:
        NotSupported: names the remedy.
    """
    if "unique" in options and not isinstance(options["unique"], Unique):
        options = {**options, "unique": None}
    _check(place, options, _ENQUEUE, call + "({}=…)")


def check_queue(place: Place, queue: Queue) -> None:
    """Refuse what a queue asks for and the engine cannot carry out.

    Raises:
        NotSupported: names the remedy.
    """
    if not place.keeps_jobs:
        given = {name: getattr(queue, name) for name in _QUEUE}
        _check(place, given, _QUEUE, f"Queue({queue.name!r}, {{}}=…)")


def check_patience(place: Place, task: str, policy: Policy) -> None:
    """Refuse a task that may run for longer than the broker waits for an acknowledgement.

    Raises:
        BadOption: with both times.
    """
    if place.keeps_jobs or policy.hard_ms is None:
        return
    engine = place.engine
    longest_ms = engine.longest_ms if isinstance(engine, _Impatient) else 0
    if longest_ms and policy.hard_ms > longest_ms:
        raise BadOption(
            f"task {task!r} may run for {policy.hard_ms / 1000:g} s, and {engine.url} takes a job "
            f"back that is not acknowledged in time: half of that time are {longest_ms / 1000:g} "
            "s; use a shorter timeout, or a ledger, with which jobs run for as long as they need"
        )


def _check(
    place: Place, given: Mapping[str, object], needed: Mapping[str, Capability], what: str
) -> None:
    for option in given:
        capability = needed.get(option)
        if capability is None or given[option] in _NOTHING:
            continue
        if option != "priority" or given[option] != _PRIORITY:
            place.require(capability, what.format(option))
