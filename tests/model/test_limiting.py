"""Limits as an application declares them, and the arithmetic of their rates."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane import BadOption, Limit, Queue, UnknownOption
from backlane.model import limit as stored
from backlane.model.limit import Rate, Use, spend, token_in_us, tokens
from backlane.model.limiting import limit_text, rate_text

# -- declared --


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("100/s", Rate(100, 1_000, 10)),
        ("10/m", Rate(10, 60_000, 1)),
        ("5 / h", Rate(5, 3_600_000, 1)),
        ("1000/d", Rate(1_000, 86_400_000, 1)),
        ((10, 2.5), Rate(10, 2_500, 1)),
        ((90, timedelta(seconds=1)), Rate(90, 1_000, 9)),
        ("1000000/s", Rate(1_000_000, 1_000, 100_000)),
    ],
)
def test_a_rate_is_so_many_in_a_time(given, rate):
    assert Limit(rate=given).in_store.rate == rate


def test_a_burst_is_a_tenth_of_a_second_unless_it_is_given():
    assert Limit(rate="55/s").in_store.rate == Rate(55, 1_000, 5)
    assert Limit(rate="55/s", burst=1).in_store.rate == Rate(55, 1_000, 1)


@pytest.mark.parametrize(
    "rate", ["100", "100/", "/s", "0/s", "-1/s", "1.5/s", "10/w", "10/seconds", "", 10, (0, 1)]
)
def test_what_is_no_rate_is_refused_with_one_that_is(rate):
    with pytest.raises(BadOption, match=r"use a text such as '100/s'"):
        Limit(rate=rate)


@pytest.mark.parametrize("rate", ["1000001/s", (2, 0.001 / 1_000), "99999999/m"])
def test_a_rate_above_a_million_a_second_is_refused(rate):
    with pytest.raises(BadOption, match=r"more than 1,000,000 a second|use a text"):
        Limit(rate=rate)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3", 2**40])
def test_numbers_are_whole_and_from_one(number):
    with pytest.raises(BadOption, match=r"concurrency is .*; use a whole number from 1"):
        Limit(concurrency=number)
    with pytest.raises(BadOption, match=r"burst is .*; use a whole number from 1"):
        Limit(rate="1/s", burst=number)


def test_a_limit_that_limits_nothing_is_refused():
    with pytest.raises(BadOption, match="limits nothing; give concurrency=3"):
        Limit(per_group=True)


def test_a_burst_without_a_rate_is_refused():
    with pytest.raises(BadOption, match="a part of a rate"):
        Limit(concurrency=1, burst=3)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownOption, match="did you mean 'concurrency'"):
        Limit(concurency=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit(concurrency=3), "3 at a time"),
        (Limit(rate="10/m", burst=2, per_group=True), "10/m, 2 at once for each group"),
        (Limit(concurrency=1, rate=(7, 2.5)), "1 at a time, 7 in 2.5 s, 1 at once"),
    ],
)
def test_a_limit_can_be_read(limit: Limit, text: str):
    assert limit_text(limit.in_store) == text


def test_no_limit_says_so():
    assert limit_text(stored.Limit()) == "not limited"


@pytest.mark.parametrize("text", ["100/s", "10/m", "5/h", "1000/d"])
def test_a_rate_is_told_as_it_is_written(text):
    rate = Limit(rate=text).in_store.rate
    assert rate is not None
    assert rate_text(rate) == text


# -- of queues --


def test_a_queue_says_what_its_jobs_are_under():
    assert Queue("mail", limit=Limit(concurrency=1)).uses("ann") == ()
    assert Queue("mail", limit=Limit(rate="1/s", per_group=True)).uses("ann") == (
        Use("queue:mail", "ann"),
    )
    assert Queue("mail", ordering="group").uses("ann") == (Use("queue:mail", "ann", turn=True),)
    assert Queue("mail", ordering="group").uses(None) == ()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limit": 3}, r"limit is 3; use Limit\(concurrency=3\)"),
        ({"fair": "yes"}, "fair is 'yes'; use True or False"),
        ({"ordering": "fifo"}, "use 'group'"),
        (
            {"ordering": "group", "limit": Limit(concurrency=2, per_group=True)},
            "runs one job of a group at a time already",
        ),
    ],
)
def test_what_cannot_be_said_of_a_queue_is_refused(options, reason):
    with pytest.raises(BadOption, match=f"queue 'mail': {reason}|queue 'mail': .*{reason}"):
        Queue("mail", **options)


# -- arithmetic --

rates = st.builds(
    Rate, st.integers(1, 1_000), st.sampled_from([1_000, 60_000, 2_500]), st.integers(1, 50)
)


@given(rates, st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=60))
def test_in_no_time_more_begin_than_the_rate_and_its_burst(rate: Rate, tries):
    """Whoever takes all that there is, whenever: in each stretch of time, rate and burst."""
    now, spent = 1_000_000_000, 0
    begun: list[int] = []
    for passed_ms, wanted in tries:
        now += passed_ms * 1_000
        number = min(wanted, tokens(spent, rate, now))
        assert number == 0 or tokens(spent, rate, now) <= rate.burst
        spent = spend(spent, rate, number, now) if number else spent
        begun += [now] * number

    for i, first in enumerate(begun):
        for count, last in enumerate(begun[i:], 1):
            assert count <= rate.burst + (last - first) * rate.number // (rate.per_ms * 1_000) + 1


@given(rates, st.integers(0, 10**7))
def test_a_token_is_there_when_it_was_said_to_be_and_not_before(rate: Rate, ahead: int):
    now = 1_000_000_000
    spent = now + min(ahead, rate.burst * rate.interval_us)
    wait = token_in_us(spent, rate, now)

    assert (wait == 0) == (tokens(spent, rate, now) > 0)
    assert tokens(spent, rate, now + wait) >= 1
    assert wait == 0 or tokens(spent, rate, now + wait - 1) == 0


@given(rates)
def test_a_bucket_that_was_left_alone_is_full(rate: Rate):
    assert tokens(0, rate, 10**15) == rate.burst


@given(rates, st.integers(1_000_001, 10**12))
def test_a_bucket_that_is_too_far_ahead_is_full(rate: Rate, beyond: int):
    """The clock was set back, or the rate was changed."""
    now = 10**15
    spent = now + rate.burst * rate.interval_us + beyond

    assert tokens(spent, rate, now) == rate.burst
    assert token_in_us(spent, rate, now) == 0
    assert tokens(spend(spent, rate, 1, now), rate, now) == rate.burst - 1
