"""Slots: who may come in, and when the others may come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.pressure.meter import Meter
from backlane.model.pressure.slots import (
    LEAST_MS,
    MOST_MS,
    RUN_SECONDS,
    Ask,
    Room,
    SlotLine,
)
from backlane.model.pressure.ticket import ticket
from backlane.model.queue import Bounds, LineSample, QueueSample

NOW = 1_800_000_000_000
speeds = st.floats(0.1, 5_000)
excesses = st.floats(0, 10_000)
gaps = st.lists(st.integers(0, 2_000), min_size=1, max_size=100)


def line(chance: float = 0.0) -> SlotLine:
    return SlotLine(lambda: chance)


def full(mu: float = 100.0, excess: float = 200.0) -> Room:
    return Room(mu=mu, excess=excess, is_open=False)


class Shared:
    """The clock of a store, as the verb `reserve` moves it."""

    def __init__(self) -> None:
        self.until_us = 0

    def reserve(self, ask: Ask, now_ms: int) -> int:
        begins = max(self.until_us, (now_ms + ask.after_ms) * 1000)
        self.until_us = begins + ask.number * ask.spacing_us
        return begins // 1000 - now_ms


def refused(one: SlotLine, room: Room, store: Shared, now_ms: int, places: int = 1) -> int:
    ask = one.lacks(room, places, now_ms)
    if ask is not None:
        one.granted(ask, store.reserve(ask, now_ms), now_ms)
    return one.hand_out(places, now_ms)


def arrivals(waits: list[int]) -> Iterator[int]:
    now = NOW
    for wait in waits:
        now += wait
        yield now


# -- the virtual clock --


@given(st.floats(0.1, 900), excesses, gaps, st.integers(1, 4))
def test_slots_only_move_on_and_no_two_are_the_same(
    mu: float, excess: float, waits: list[int], processes: int
) -> None:
    store, lines = Shared(), [line() for _ in range(processes)]

    for one in lines:
        mine = [
            slot
            for now in arrivals(waits)
            if (slot := refused(one, full(mu, excess), store, now)) < now + MOST_MS * 0.9
        ]
        assert all(earlier < later for earlier, later in pairwise(mine))


@given(speeds, excesses, gaps, st.integers(1, 4))
def test_no_more_slots_are_handed_out_than_the_queue_can_take(
    mu: float, excess: float, waits: list[int], processes: int
) -> None:
    store, lines = Shared(), [line() for _ in range(processes)]

    handed = sorted(
        slot
        for now in arrivals(waits)
        for one in lines
        if (slot := refused(one, full(mu, excess), store, now)) < now + MOST_MS * 0.9
    )

    for first in range(0, len(handed), 7):
        for last in range(first, len(handed), 11):
            seconds = (handed[last] - handed[first]) / 1000
            assert last - first <= mu * seconds + mu * 0.01 + 2  # whole milliseconds


@given(speeds, excesses, st.integers(1, 20))
def test_the_first_slot_is_when_the_line_is_back_at_its_low_mark(
    mu: float, excess: float, places: int
) -> None:
    slot = refused(line(), full(mu, excess), Shared(), NOW, places)

    wait = min(MOST_MS, excess / mu * 1000) + places / mu * 1000
    if wait < MOST_MS * 0.9:
        assert slot - NOW == pytest.approx(wait, abs=2 + places)


@given(gaps)
def test_a_lone_refusal_moves_the_clock_by_its_own_place(waits: list[int]) -> None:
    store, one = Shared(), line()

    for now in arrivals([1_000 + wait for wait in waits]):
        refused(one, full(mu=100, excess=0), store, now)
        assert store.until_us // 1000 <= now + 10


def test_a_rush_reserves_runs_and_not_single_slots() -> None:
    store, one, asks = Shared(), line(), 0

    for number in range(1_000):
        ask = one.lacks(full(mu=1_000), 1, NOW + number // 10)
        if ask is not None:
            asks += 1
            assert ask.number <= 1_000 * RUN_SECONDS
            one.granted(ask, store.reserve(ask, NOW), NOW)
        one.hand_out(1, NOW)

    assert asks <= 12


@given(speeds, excesses, gaps)
def test_without_a_store_the_process_s_own_clock_serves(
    mu: float, excess: float, waits: list[int]
) -> None:
    one, slots = line(), []
    for now in arrivals(waits):
        ask = one.lacks(full(mu, excess), 1, now)
        if ask is not None:
            one.alone(ask, now)
        slot = one.hand_out(1, now)
        if slot < now + MOST_MS * 0.9:
            slots.append(slot)
        one.saw(QueueSample(name="mail", bounds=Bounds()), now)

    assert all(earlier <= later for earlier, later in pairwise(slots))


@given(st.integers(-(10**6), 10**9), st.floats(0, 1, exclude_max=True))
def test_a_caller_is_told_from_one_second_to_five_minutes(wait: int, chance: float) -> None:
    told = line(chance).retry_after_ms(NOW + wait, NOW)

    assert LEAST_MS <= told <= MOST_MS
    assert told >= min(wait, MOST_MS)
    assert told <= max(LEAST_MS, 1.1 * wait)


def test_nobody_is_told_more_than_the_longest_wait() -> None:
    """Beyond it callers share the end of the clock, spread out, and their slots are due then."""
    store, one = Shared(), SlotLine(random.Random(1).random)

    slots = [refused(one, full(mu=1.0), store, NOW) for _ in range(2_000)]

    assert max(slots) <= NOW + MOST_MS
    late = slots[-1_000:]
    assert min(late) < NOW + MOST_MS * 0.91
    assert max(late) > NOW + MOST_MS * 0.99
    assert all(one.retry_after_ms(slot, NOW) >= min(MOST_MS, slot - NOW) for slot in slots)


# -- who may come in --


def ahead() -> SlotLine:
    one = line()
    one.saw(QueueSample(name="mail", bounds=Bounds(), reserved_ms=5_000), NOW)
    return one


def test_while_slots_are_promised_newcomers_are_refused() -> None:
    assert not ahead().may_enter(full(), None, 1, NOW)
    assert ahead().may_enter(full(), None, 1, NOW + 5_000)


def test_an_open_line_takes_anyone_whatever_was_promised() -> None:
    assert ahead().may_enter(Room(mu=100, excess=0, is_open=True), None, 1, NOW)


def test_a_queue_of_which_nothing_is_known_takes_anyone() -> None:
    assert ahead().may_enter(None, None, 1, NOW)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(-5_000, 5_000))
def test_a_due_ticket_has_its_places_and_no_more(held: int, places: int, late: int) -> None:
    brought = ticket(NOW - late, held, NOW)

    may = ahead().may_enter(full(), brought, places, NOW)

    assert may == (places <= held and late >= -100)


@given(st.integers(2_000, 10**12))
def test_a_clock_set_back_refuses_nobody_for_long(back: int) -> None:
    one = line()
    one.saw(QueueSample(name="mail", bounds=Bounds()), NOW)
    one.granted(Ask(0, 10_000, 20), 0, NOW)
    one.alone(Ask(0, 10_000, 20), NOW)

    then = NOW - back
    one.saw(QueueSample(name="mail", bounds=Bounds()), then)

    assert not one.is_ahead(then)
    assert refused(one, full(mu=100, excess=0), Shared(), then) <= then + 10


@given(st.integers(2_000, 10**12))
def test_a_process_s_own_clock_goes_back_with_the_machine_s(back: int) -> None:
    one, slots = line(), []
    for now in (NOW, NOW - back):
        ask = one.lacks(full(mu=100, excess=0), 1, now)
        assert ask is not None
        one.alone(ask, now)
        slots.append(one.hand_out(1, now) - now)

    assert slots == [10, 10]


# -- room --


def metered(ready: int, *, scheduled: int = 0, size: int = 0, urgent: int = 0) -> Meter:
    """100 jobs a second are taken; so many are ready."""
    meter = Meter()
    for second in range(10):
        taken = LineSample(5, ready=ready - urgent, started=100 * second, appended=100 * second)
        meter.took(
            QueueSample(
                name="mail",
                bounds=Bounds(),
                lines=(taken, LineSample(9, ready=urgent)),
                scheduled=scheduled,
                bytes=size,
                oldest_ready_ms=5_000,
            ),
            NOW + second * 1_000,
        )
    return meter


def room(meter: Meter, bounds: Bounds, *, priority: int = 5, places: int = 1) -> Room:
    one = line()
    assert meter.sample is not None
    one.saw(meter.sample, NOW)
    found = one.room(meter, bounds, priority, places, NOW)
    assert found is not None
    return found


def test_nothing_known_is_no_room() -> None:
    assert line().room(Meter(), Bounds(), 5, 1, NOW) is None


@pytest.mark.parametrize(
    ("bounds", "excess"),
    [
        (Bounds(max_jobs=1_000), 100),
        (Bounds(max_jobs=10_000, max_wait_ms=10_000), 100),
        (Bounds(max_jobs=10_000, max_bytes=100_000), 100),
        (Bounds(max_jobs=10_000), 0),
    ],
)
def test_the_bound_that_is_passed_most_counts(bounds: Bounds, excess: int) -> None:
    found = room(metered(900, size=90_000), bounds)

    assert found.excess == pytest.approx(excess, abs=1)
    assert found.is_open == (excess == 0)


@given(st.integers(0, 1_000), st.integers(1, 1_000))
def test_a_large_batch_waits_until_it_fits(ready: int, places: int) -> None:
    found = room(metered(ready), Bounds(max_jobs=1_000), places=places)

    left = ready - found.excess
    assert left + places <= 1_000 + 1e-6 or left <= 1e-6
    assert left <= 800 + 1e-6 or places > 200
    assert found.can_fit


def test_more_than_the_bound_can_never_fit() -> None:
    assert not room(metered(0), Bounds(max_jobs=10), places=11).can_fit


def test_urgent_work_is_not_held_up_by_a_line_that_it_overtakes() -> None:
    meter, bounds = metered(900, urgent=10), Bounds(max_wait_ms=5_000)

    assert not room(meter, bounds, priority=5).is_open
    assert room(meter, bounds, priority=9).is_open


def test_between_samples_the_line_is_followed() -> None:
    meter, one = metered(450), line()
    assert meter.sample is not None
    one.saw(meter.sample, NOW)
    bounds = Bounds(max_jobs=1_000)

    one.entered(100)

    first, later = (one.room(meter, bounds, 5, 1, NOW + ms) for ms in (0, 600))
    assert first is not None
    assert later is not None
    assert (first.is_open, later.is_open) == (False, True)


@pytest.mark.parametrize("mu", [1e-13, 1e-300, 5e-324])
def test_a_line_that_has_all_but_stopped_promises_minutes(mu: float) -> None:
    """Workers that hang for hours: their rate decays until a division by it overflows."""
    store, one = Shared(), line()

    slots = [refused(one, full(mu), store, NOW) for _ in range(3)]

    assert max(slots) <= NOW + 2 * MOST_MS
    assert one.retry_after_ms(slots[-1], NOW) <= MOST_MS
    refused(one, full(mu), store, NOW + 2 * MOST_MS)
