"""How the benchmarks judge: by ratios within a run, and never by nothing."""

from __future__ import annotations

import pytest
from bench.figure import Figure, Nothing, at_least, at_most, percentile, rounds
from bench.table import table


def test_a_rate_holds_by_the_median_of_its_rounds_ratios() -> None:
    figure = at_least("f", [50, 90, 55], beside="r", reference=[100, 100, 100], times=0.5)

    assert figure.holds
    assert figure.ratio == "0.55x"


def test_a_rate_below_its_ratio_fails() -> None:
    figure = at_least("f", [49], beside="r", reference=[100], times=0.5)

    assert not figure.holds


def test_a_good_hours_rate_holds_whatever_the_reference_did() -> None:
    figure = at_least("f", [15_000], beside="r", reference=[9_000], times=3.3, good_hour=15_000)

    assert figure.holds


def test_a_rate_of_nothing_is_no_figure() -> None:
    with pytest.raises(Nothing):
        at_least("f", [0], beside="r", reference=[100], times=0.5)


def test_a_value_above_its_bar_fails() -> None:
    assert at_most("f", 5.0, unit="ms", bar=5.0).holds
    assert not at_most("f", 5.1, unit="ms", bar=5.0).holds


def test_rounds_take_each_measure_in_turn() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    taken = rounds(2, {"a": lambda: measure("a"), "b": lambda: measure("b")})

    assert calls == ["a", "b", "a", "b"]
    assert taken == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_percentiles_are_samples_and_there_is_none_of_none() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile(list(range(1, 301)), 99) == 297
    with pytest.raises(Nothing):
        percentile([], 99)


def test_the_table_lines_figures_up_and_tells_notes_below() -> None:
    figure = Figure(
        name="f",
        measured="1/s",
        beside="r 2/s",
        ratio="0.50x",
        bar="at least 1x",
        holds=False,
        note="why",
    )

    lines = table([figure]).splitlines()

    assert lines[2].split() == ["FAIL", "f", "1/s", "r", "2/s", "0.50x", "at", "least", "1x"]
    assert lines[-1] == "  f: why"
