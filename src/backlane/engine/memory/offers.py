"""Offer and withdraw: which ready jobs a transport is to carry next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from backlane.engine.memory.leases import bring_in, next_due_ms
from backlane.engine.memory.resource import Rooms
from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.memory.waking import Waking
from backlane.engine.offering import Carried, Offer, Offered
from backlane.model.job import Lane, State


def offer(store: Store, offers: Sequence[Offer], for_ms: int) -> Offered:
    buried = bring_in(store, ())
    names = dict.fromkeys(one.queue for one in offers)
    lines = [store.lines[name] for name in names if name in store.lines]
    awake = Waking(store, [line.name for line in lines if not line.paused])
    if not store.seal:
        awake.wake()
    rooms, jobs = Rooms(store), list[Carried]()
    more, doubtful = list[tuple[str, Lane]](), list[tuple[str, Lane]]()
    for one in offers:
        _forget_void(store, one, for_ms)
        if one.queue in awake.queues and not store.seal:
            jobs += _name(store, one, rooms)
            if _is_full(store, one) and next(_in_line(store, one, rooms), None):
                more.append((one.queue, one.lane))
        if any(_is_old(store, ms, for_ms) for ms in store.windows.of(one.queue, one.lane).values()):
            doubtful.append((one.queue, one.lane))
    due_ms = next_due_ms(store, awake)
    return Offered(jobs, store.clock.wall_ms(), more, doubtful, due_ms, buried)


def withdraw(store: Store, jobs: Sequence[bytes]) -> None:
    for job in jobs:
        if job in store.rows:
            store.windows.drop(store.rows[job])


def _is_old(store: Store, offered_ms: int, for_ms: int) -> bool:
    """Whether an offer may have been lost. One of the future is of a clock since set back."""
    return abs(store.clock.wall_ms() - offered_ms) > for_ms


def _forget_void(store: Store, one: Offer, for_ms: int) -> None:
    now = store.clock.wall_ms()
    for job, offered_ms in list(store.windows.of(one.queue, one.lane).items()):
        is_before = one.void_ms is not None and (offered_ms < one.void_ms or offered_ms > now)
        if is_before and _is_old(store, offered_ms, for_ms):
            store.windows.drop(store.rows[job])


def _is_full(store: Store, one: Offer) -> bool:
    return len(store.windows.of(one.queue, one.lane)) >= one.window


def _name(store: Store, one: Offer, rooms: Rooms) -> list[Carried]:
    """Offer as many as there is room for, in the window and in the queue's own limit."""
    own = store.limits.of_queue(one.queue)
    running = store.lines[one.queue].held[State.RUNNING]
    left = store.windows.room(one.queue, store.limits.room(own, running=running) if own else None)
    room = max(0, one.window - len(store.windows.of(one.queue, one.lane)))
    named: list[Carried] = []
    for row in islice(_in_line(store, one, rooms), room if left is None else min(room, left)):
        rooms.give(row.job.resource, row.job.id)
        named.append(Carried(row.job.id, row.queue, row.lane, row.job.group))
    for carried in named:
        store.windows.add(store.rows[carried.job], store.clock.wall_ms())
    return named


def _in_line(store: Store, one: Offer, rooms: Rooms) -> Iterator[Row]:
    """The ready jobs that are not offered, as a claim would give them."""
    offered = store.windows.of(one.queue, one.lane)
    for _, job in heapq.merge(*store.ready(one.queue, one.lane)):
        row = store.rows[job]
        if job not in offered and rooms.has_room(row.job.resource):
            yield row
