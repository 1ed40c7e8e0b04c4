"""The work done in advance: the figures of all sales, computed anew every minute.

The sum takes as long as it takes; nobody who looks waits for it. While a run goes on,
`latest()` answers with the figures of the run before, and if one fails, with the last
that succeeded.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from backlane import Backlane, Unique

SECONDS = float(os.environ.get("FIGURES_EVERY", "60"))
SALES = int(os.environ.get("FIGURES_SALES", "2000000"))

app = Backlane(os.environ.get("FIGURES_URL", "sqlite:///figures.db"))


class Figures(msgspec.Struct, frozen=True):
    """What the page shows."""

    sales: int
    turnover: int  # cents
    by_country: dict[str, int]
    took: float  # seconds


def sales(number: int) -> Iterator[tuple[str, int]]:
    """Yield sales as a database would: a country, and cents."""
    chance = random.Random(7)  # noqa: S311 - no secrets here
    for _ in range(number):
        yield chance.choice(("DE", "FR", "JP", "US")), chance.randrange(100, 10_000)


# One at a time: where a run takes longer than a minute, the next tick finds it and makes no other.
@app.schedule(timedelta(seconds=SECONDS))
@app.task(name="figures", keep_latest=True, keep=timedelta(hours=1), unique=Unique())
def compute() -> Figures:
    """Add up all sales."""
    began = time.perf_counter()
    by_country: dict[str, int] = {}
    number = 0
    for country, cents in sales(SALES):
        by_country[country] = by_country.get(country, 0) + cents
        number += 1
    took = time.perf_counter() - began
    return Figures(number, sum(by_country.values()), by_country, round(took, 3))
