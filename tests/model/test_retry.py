"""Retries: the arithmetic of when, and the judgement of which."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.errors import BadOption
from backlane.model.retry import Retry, ceiling_ms, delay_ms, milliseconds

executions = st.integers(1, 10_000)
bases = st.integers(0, 3_600_000)
caps = st.integers(0, 3_155_760_000_000)
draws = st.floats(0, 1, exclude_max=True)


@given(executions, bases, caps, draws)
def test_a_delay_is_within_its_ceiling(n: int, base: int, cap: int, draw: float) -> None:
    assert 0 <= delay_ms(n, base, cap, draw) <= ceiling_ms(n, base, cap) <= cap


@given(executions, bases, caps)
def test_a_delay_left_to_chance_is_within_its_ceiling(n: int, base: int, cap: int) -> None:
    assert 0 <= delay_ms(n, base, cap) <= ceiling_ms(n, base, cap)


@given(executions, bases, caps)
def test_ceilings_never_fall(n: int, base: int, cap: int) -> None:
    assert ceiling_ms(n, base, cap) <= ceiling_ms(n + 1, base, cap)


@given(st.integers(1, 30), st.integers(1, 1_000))
def test_ceilings_double_until_the_cap(n: int, base: int) -> None:
    cap = 10**15

    assert ceiling_ms(n, base, cap) == base * 2 ** (n - 1)
    assert ceiling_ms(n + 1, base, cap) == 2 * ceiling_ms(n, base, cap)


@given(executions, bases, caps, draws, draws)
def test_a_larger_draw_waits_no_less(n: int, base: int, cap: int, a: float, b: float) -> None:
    low, high = sorted((a, b))

    assert delay_ms(n, base, cap, low) <= delay_ms(n, base, cap, high)


def test_delays_left_to_chance_are_spread_over_the_whole_range() -> None:
    """Full jitter: a crowd that failed together does not come back together."""
    delays = [delay_ms(5, 1_000, 3_600_000) for _ in range(2_000)]

    tenths = {10 * delay // ceiling_ms(5, 1_000, 3_600_000) for delay in delays}
    assert tenths == set(range(10))


def test_the_default_is_ten_executions_from_one_second_to_an_hour() -> None:
    retry = Retry()

    assert (retry.attempts, retry.base_ms, retry.cap_ms) == (10, 1_000, 3_600_000)
    assert retry.covers(ValueError())
    assert not retry.covers(KeyboardInterrupt())


def test_only_named_errors_are_retried_and_never_those_excepted() -> None:
    retry = Retry(on=(OSError,), never=(FileNotFoundError,))

    assert retry.covers(ConnectionError())
    assert retry.covers(ConnectionError)
    assert not retry.covers(FileNotFoundError())
    assert not retry.covers(ValueError())


@given(st.floats(0, 3_155_760_000) | st.integers(0, 3_155_760_000))
def test_seconds_and_timedeltas_mean_the_same(seconds: float) -> None:
    given_seconds = milliseconds(seconds, "delay")

    assert abs(given_seconds - milliseconds(timedelta(seconds=seconds), "delay")) <= 1
    assert abs(given_seconds - seconds * 1000) <= 0.5


@pytest.mark.parametrize(
    "wrong",
    [-1, -0.001, float("nan"), float("inf"), float("-inf"), 3_155_760_001, True, "5", None, 5j,
     timedelta(seconds=-1), timedelta.max],
)  # fmt: skip
def test_what_is_no_duration_is_refused_naming_the_option(wrong: object) -> None:
    with pytest.raises(BadOption, match="delay is "):
        milliseconds(wrong, "delay")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": -3}, "attempts"),
        ({"attempts": 2.5}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": "3"}, "attempts"),
        ({"base": -1}, "base"),
        ({"base": 10, "cap": 5}, "base"),
        ({"cap": float("nan")}, "cap"),
        ({"on": ValueError}, "on"),
        ({"on": (ValueError, "OSError")}, "on"),
        ({"on": [ValueError]}, "on"),
        ({"never": (int,)}, "never"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_naming_the_option(options, named: str) -> None:
    with pytest.raises(BadOption, match=rf"^{named} is "):
        Retry(**options)
