"""Resources: how their breakers stand, and what may be claimed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backlane.engine.memory.store import Store
from backlane.engine.protocol import Close, Open
from backlane.model import breaker as breakers
from backlane.model.breaker import Breaker, ResourceRecord, Standing
from backlane.model.job import State
from backlane.model.outcome import Outcome


class Rooms:
    """What one claim may take of the resources, and has taken."""

    def __init__(self, store: Store) -> None:
        self._store = store
        now = store.clock.wall_ms()
        self._left = {name: breakers.room(it, now) for name, it in store.breakers.items()}
        self._given: dict[str, list[bytes]] = {}

    def has_room(self, resource: str | None) -> bool:
        return not resource or self._left[resource] != 0

    def give(self, resource: str | None, job: bytes) -> None:
        """Note that a job was taken."""
        left = self._left[resource] if resource else None
        if resource and left is not None:
            self._left[resource] = left - 1
            self._given.setdefault(resource, []).append(job)

    def tell(self) -> list[ResourceRecord]:
        """Tell breakers of their trials; return those of which it is the first one."""
        store, now = self._store, self._store.clock.wall_ms()
        told = []
        for name, jobs in sorted(self._given.items()):
            breaker = breakers.tried(store.breakers[name], jobs, now)
            if _keep(store, name, breaker):
                told.append(breakers.resource_record(name, breaker, now))
        return told


def feed(
    store: Store, ended: Mapping[str, Sequence[tuple[bytes, Outcome]]]
) -> list[ResourceRecord]:
    """Tell breakers what ended; return those that turned, and those that are open."""
    now = store.clock.wall_ms()
    told = []
    for name, outcomes in sorted(ended.items()):
        draw = breakers.draw(name, now)
        breaker = breakers.settled(store.breakers[name], outcomes, now, draw)
        if _keep(store, name, breaker) or breaker.state is Standing.OPEN:
            told.append(breakers.resource_record(name, breaker, now))
    return told


def next_trial_ms(store: Store) -> int | None:
    """Return until when what waits for a resource may be tried, if not at once."""
    if not store.are_some_down:
        return None
    now = store.clock.wall_ms()
    waited_for = {row.job.resource for row in store.in_state(State.READY)}
    waits = [
        breakers.opens_in_ms(breaker, now)
        for name, breaker in store.breakers.items()
        if name in waited_for
    ]
    return min((wait for wait in waits if wait), default=None)


def list_resources(store: Store) -> list[ResourceRecord]:
    """Return what is known of all resources, by name."""
    now = store.clock.wall_ms()
    return [
        breakers.resource_record(name, breaker, now)
        for name, breaker in sorted(store.breakers.items())
    ]


def steer(store: Store, name: str, change: Open | Close) -> ResourceRecord | None:
    """Open or close a breaker by hand."""
    now = store.clock.wall_ms()
    if name not in store.breakers:
        return None
    if isinstance(change, Open):
        breaker = breakers.opened(store.breakers[name], change.for_ms, now)
    else:
        breaker = breakers.closed(now)
    _keep(store, name, breaker)
    _ring(store, name)
    return breakers.resource_record(name, breaker, now)


def _keep(store: Store, name: str, breaker: Breaker) -> bool:
    """Keep how a breaker stands now; return whether it stands otherwise than before."""
    before, store.breakers[name] = store.breakers[name], breaker
    has_turned = breaker.state is not before.state
    if has_turned or (breaker != before and breakers.room(breaker, store.clock.wall_ms())):
        _ring(store, name)
    return has_turned


def _ring(store: Store, name: str) -> None:
    """Who waits may now claim, or has another time to look again."""
    rows = store.in_state(State.READY)
    store.rung_queues |= {row.queue for row in rows if row.job.resource == name}
