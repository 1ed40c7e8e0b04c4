"""Figures: what was measured, beside what, and the bar it is judged by."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class Nothing(Exception):
    """A benchmark exercised nothing, so it has no figure: that is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    name: str
    measured: str
    beside: str  # what it is compared with, measured in the same run
    ratio: str
    bar: str
    holds: bool
    note: str = ""


def at_least(
    name: str,
    rates: Sequence[float],
    *,
    beside: str,
    reference: Sequence[float],
    times: float,
    good_hour: float | None = None,
    note: str = "",
) -> Figure:
    """Judge a rate by its ratio to a reference measured in the same rounds.

    The ratio is the median of the rounds' own ratios. With `good_hour` the bar was
    set as a rate: it holds where that rate is reached or, in a slow hour, where
    `times` the reference is.
    """
    rate, reference_rate = statistics.median(rates), statistics.median(reference)
    if rate <= 0 or reference_rate <= 0:
        raise Nothing(f"{name}: measured {rate:.0f}/s beside {reference_rate:.0f}/s")
    ratio = statistics.median(ours / theirs for ours, theirs in zip(rates, reference, strict=True))
    bar = f"at least {times:g}x"
    if good_hour is not None:
        bar = f"{good_hour:,.0f}/s or {times:g}x"
    return Figure(
        name=name,
        measured=f"{rate:,.0f}/s",
        beside=f"{beside} {reference_rate:,.0f}/s",
        ratio=f"{ratio:.2f}x",
        bar=bar,
        holds=ratio >= times or (good_hour is not None and rate >= good_hour),
        note=note,
    )


def at_most(
    name: str, value: float, *, unit: str, bar: float, beside: str = "", note: str = ""
) -> Figure:
    """Judge a value that has no reference but its own bar."""
    return Figure(
        name=name,
        measured=f"{value:.3g} {unit}",
        beside=beside,
        ratio=f"{value / bar:.2f}",
        bar=f"at most {bar:g} {unit}",
        holds=value <= bar,
        note=note,
    )


def rounds(number: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each in turn, `number` times, so that a drift meets all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(number):
        for name, measure in measures.items():
            taken[name].append(measure())
    return taken


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie (nearest rank)."""
    if not values:
        raise Nothing("no samples")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
