"""Capacity: Erlang's formulas against his tables, and what must hold for all numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.capacity import (
    MOST_SLOTS,
    Load,
    blocking,
    bound_for,
    mean_wait_s,
    percentile_wait_s,
    slots_for,
    waiting,
)

arrivals = st.floats(0, 10_000)
services = st.floats(0.0001, 100)
slots = st.integers(1, 5_000)


@st.composite
def stable(draw: st.DrawFn) -> Load:
    number, service = draw(slots), draw(services)
    return Load(draw(st.floats(0, 0.999)) * number / service, service, number)


# Blocking of Erlang's own kind: the offered traffic at which so many slots lose 1 % (and 5 %).
@pytest.mark.parametrize(
    ("offered", "number", "share"),
    [
        (0.0101, 1, 0.01),
        (0.153, 2, 0.01),
        (1.361, 5, 0.01),
        (4.461, 10, 0.01),
        (12.03, 20, 0.01),
        (84.06, 100, 0.01),
        (15.25, 20, 0.05),
        (95.24, 100, 0.05),
    ],
)
def test_erlang_s_b_is_that_of_the_tables(offered: float, number: int, share: float) -> None:
    assert blocking(offered, number) == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize(
    ("offered", "number", "probability"),
    [(0.5, 1, 0.5), (1.0, 2, 1 / 3), (2.0, 3, 4 / 9), (8.0, 10, 0.4092), (18.0, 20, 0.5508)],
)
def test_erlang_s_c_is_that_of_the_tables(offered: float, number: int, probability: float) -> None:
    assert waiting(Load(offered, 1.0, number)) == pytest.approx(probability, rel=0.001)


def test_one_slot_is_the_simple_queue() -> None:
    """M/M/1: W = u s / (1 - u), and nine tenths wait at most ln(10 u) s / (1 - u)."""
    load = Load(arrivals=8, service_s=0.1, slots=1)

    assert mean_wait_s(load) == pytest.approx(0.4)
    assert percentile_wait_s(load, 90) == pytest.approx(math.log(8) * 0.5)


@given(stable())
def test_a_probability_is_one_for_every_number_of_slots(load: Load) -> None:
    assert 0 <= blocking(load.offered, load.slots) <= waiting(load) * (1 + 1e-9) <= 1 + 1e-6


@given(stable(), st.floats(0, 100), st.floats(0, 100))
def test_a_higher_percentile_waits_no_shorter(load: Load, a: float, b: float) -> None:
    low, high = sorted((a, b))

    assert 0 <= percentile_wait_s(load, low) <= percentile_wait_s(load, high)


@given(stable())
def test_the_mean_is_what_the_percentiles_come_to(load: Load) -> None:
    """Half of those who wait at all wait longer than ln 2 of their mean."""
    probability = waiting(load)
    if probability < 1e-6:
        return

    median = percentile_wait_s(load, 100 - 50 * probability)

    assert median == pytest.approx(math.log(2) * mean_wait_s(load) / probability, rel=1e-3)


@given(stable())
def test_one_slot_more_makes_nobody_wait_longer(load: Load) -> None:
    more = Load(load.arrivals, load.service_s, load.slots + 1)

    assert mean_wait_s(more) <= mean_wait_s(load) * (1 + 1e-9)
    assert waiting(more) <= waiting(load) * (1 + 1e-9)


@given(arrivals, services, slots)
def test_a_line_that_grows_has_no_wait_to_tell(rate: float, service: float, number: int) -> None:
    load = Load(rate, service, number)

    assert math.isinf(mean_wait_s(load)) == (not load.is_stable)
    assert load.is_stable == (load.utilisation < 1)


@given(
    st.floats(0, 500),
    st.floats(0.001, 5),
    st.floats(0.001, 60),
    st.none() | st.sampled_from([50.0, 95.0, 99.0]),
)
def test_the_slots_for_a_wait_keep_it_and_one_fewer_does_not(
    rate: float, service: float, wanted: float, percent: float | None
) -> None:
    number = slots_for(rate, service, wanted, percent)

    assert number is not None
    for slots, holds in ((number, True), (number - 1, False)):
        load = Load(rate, service, slots)
        wait = mean_wait_s(load) if percent is None else percentile_wait_s(load, percent)
        assert (slots > 0 and wait <= wanted) == holds


def test_thousands_of_slots_are_counted_without_overflow() -> None:
    number = slots_for(arrivals=100_000, service_s=0.1, wait_s=0.001)

    assert number is not None
    assert 10_000 < number < 10_200
    assert slots_for(arrivals=MOST_SLOTS, service_s=1.0, wait_s=1.0) is None


def test_a_queue_that_nobody_uses_waits_for_nothing() -> None:
    load = Load(arrivals=0, service_s=1, slots=1)

    assert (waiting(load), mean_wait_s(load), percentile_wait_s(load, 99)) == (0, 0, 0)
    assert slots_for(0, 1, 0) == 1
    assert Load(arrivals=0, service_s=1, slots=0).is_stable
    assert not Load(arrivals=1, service_s=1, slots=0).is_stable


@given(services, slots, st.floats(0, 600))
def test_a_full_queue_of_that_bound_is_emptied_within_the_wait(
    service: float, number: int, wanted: float
) -> None:
    load = Load(1, service, number)

    bound = bound_for(load, wanted)

    assert (bound - number) / load.throughput <= wanted + 1e-6
    assert (bound - number + 1) / load.throughput > wanted - 1e-6
