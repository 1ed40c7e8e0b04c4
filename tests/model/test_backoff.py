"""Backoff: waits within their bounds, retries within their budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.backoff import (
    BASE_SECONDS,
    CAP_SECONDS,
    RetryBudget,
    Throttle,
    full_jitter,
    obeyed,
    pause,
)

draws = st.floats(min_value=0, max_value=1, exclude_max=True)
gaps = st.floats(min_value=0, max_value=20)


# -- how long to wait --


@given(tries=st.integers(1, 10_000), draw=draws)
def test_jitter_stays_below_a_bound_that_doubles_up_to_its_cap(tries, draw):
    bound = min(CAP_SECONDS, BASE_SECONDS * 2 ** min(tries - 1, 40))

    assert 0 <= full_jitter(tries, draw) <= bound


def test_jitter_uses_the_whole_of_its_range():
    waits = [full_jitter(3, draw) for draw in (0.0, 0.5, 0.999)]

    assert waits == pytest.approx([0.0, 0.5, 0.999])


@given(retry_after=st.floats(min_value=0, max_value=1e6), draw=draws)
def test_a_time_that_was_told_is_kept_and_never_hurried(retry_after, draw):
    wait = obeyed(retry_after, draw)

    assert retry_after <= wait <= retry_after * 1.1 + 1e-6


def test_a_time_that_was_told_goes_before_jitter():
    assert pause(9, 2.0, 0.5) == pytest.approx(2.1)
    assert pause(2, None, 0.5) == pytest.approx(0.25)


# -- the budget --


@given(
    steps=st.lists(st.tuples(gaps, st.booleans()), max_size=200),
    share=st.floats(min_value=0, max_value=1),
    floor=st.floats(min_value=0.1, max_value=5),
)
def test_retries_never_exceed_the_budget(steps, share, floor):
    """At any moment: at most cap + floor * time + share * first tries have started."""
    cap = 10.0
    budget = RetryBudget(share=share, floor=floor, cap=cap)
    now, firsts, starts = 0.0, [], []
    for gap, is_first in steps:
        now += gap
        if is_first:
            budget.begin(now)
            firsts.append(now)
        elif (wait := budget.take(now, within=1e9)) is not None:
            starts.append(now + wait)

    for moment in starts:
        started = sum(start <= moment for start in starts)
        allowed = cap + floor * moment + share * sum(first <= moment for first in firsts)
        assert started <= allowed + 1e-6


def test_a_budget_delays_what_it_has_no_token_for():
    budget = RetryBudget(share=0.1, floor=1.0, cap=2.0)

    waits = [budget.take(0.0, within=60) for _ in range(4)]

    assert waits == [0.0, 0.0, 1.0, 2.0]


def test_a_budget_takes_nothing_from_whoever_cannot_wait():
    budget = RetryBudget(cap=1.0)
    budget.take(0.0, within=60)

    assert budget.take(0.0, within=0.5) is None
    assert budget.take(0.0, within=60) == 1.0


def test_ten_first_tries_bring_one_retry():
    budget = RetryBudget(floor=0.001, cap=1.0)
    budget.take(0.0, within=0)

    for _ in range(10):
        budget.begin(0.0)

    assert budget.take(0.0, within=1e-6) is not None
    assert budget.take(0.0, within=1.0) is None


# -- the throttle --


@given(steps=st.lists(st.tuples(gaps, draws), max_size=200))
def test_a_throttle_keeps_back_nothing_while_all_is_answered(steps):
    throttle = Throttle()
    now = 0.0
    for gap, draw in steps:
        now += gap
        number = throttle.begin(now, draw)
        assert number is not None
        throttle.end(number, now, is_accepted=True)

    assert throttle.share(now) == 0


@given(answers=st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_share_kept_back_is_that_of_the_formula(answers):
    throttle = Throttle()
    for index, is_accepted in enumerate(answers):
        number = throttle.begin(index / 100, 1.0)
        throttle.end(number, index / 100, is_accepted=is_accepted)

    requests, accepts = len(answers), sum(answers)

    assert throttle.share(3.0) == pytest.approx(max(0.0, (requests - 2 * accepts) / (requests + 1)))


def test_a_server_that_answers_nothing_is_sent_next_to_nothing():
    """Of a hundred requests a second for a minute about two a second."""
    throttle, chance, sent = Throttle(), random.Random(7), 0
    for at in range(6000):
        number = throttle.begin(at / 100, chance.random())
        if number is not None:
            throttle.end(number, at / 100, is_accepted=False)
            sent += 1

    assert 60 <= sent <= 180


def test_a_request_counts_while_it_hangs():
    """go-zero's issue 5011: counted at their end, hanging requests were never throttled."""
    throttle = Throttle()
    for _ in range(100):
        throttle.begin(0.0, 1.0)

    assert throttle.share(1.0) > 0.98


def test_a_burst_does_not_throttle_itself():
    """Five hundred calls begun at once were kept back by each other, until their deadline."""
    throttle = Throttle()

    numbers = [throttle.begin(0.0, 0.0) for _ in range(500)]

    assert None not in numbers


def test_a_request_that_was_to_take_long_is_not_late_before():
    throttle = Throttle()
    for _ in range(100):
        throttle.begin(0.0, 1.0, patience=21.0)

    assert throttle.share(20.9) == 0
    assert throttle.share(21.0) > 0.98


def test_what_is_two_minutes_old_is_forgotten():
    throttle = Throttle()
    for _ in range(100):
        throttle.begin(0.0, 1.0)

    assert throttle.share(119.0) > 0.9
    assert throttle.share(120.0) == 0
