"""Limiting: what an application says of limits, judged where it is written.

    Limit(concurrency=3)
    Limit(rate="100/s", burst=10)
    Limit(concurrency=1, per_group=True)

The store's own form of a limit, and its arithmetic, are in `model.limit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from backlane.errors import BadOption, UnknownLimit, nearest
from backlane.model import limit as stored
from backlane.model.limit import Use
from backlane.model.option import check_options
from backlane.model.retry import Duration, milliseconds

RateOption = str | tuple[int, Duration]  # "100/s", or (100, seconds)

MOST = 2**31  # of a concurrency or a burst
MOST_PER_MS = 1_000  # beginnings: tokens are counted in whole microseconds
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
RATE = re.compile(r"(0{0,11}[1-9][0-9]{0,11}) ?/ ?([smhd])")
RESERVED = ("task:", "queue:")  # begin the names of limits that tasks and queues have


@dataclass(frozen=True, slots=True)
class Limit:
    """How many jobs run at a time, and how fast they begin, over all workers.

    Args:
        concurrency: the most at a time.
        rate: the most that begin in a time: `"100/s"`, `"10/m"`, `"5/h"`, `"1000/d"`, or
            (number, seconds or timedelta). At most 1,000,000 a second.
        burst: how many of these may begin at once, after a pause; a tenth of what
            begins in a second, and at least 1, unless given.
        per_group: the numbers hold for each group of jobs, not for all of them.

    Raises:
        BadOption: a value cannot work, or nothing is limited.
        UnknownOption: an option does not exist; names the nearest one that does.

    .. versionadded:: 0.1
    """

    concurrency: int | None = None
    rate: RateOption | None = None
    burst: int | None = None
    per_group: bool = False

    def __new__(cls, *_: Any, **options: Any) -> Self:
        check_options(options, cls.__dataclass_fields__, "Limit()")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if self.concurrency is None and self.rate is None:
            raise BadOption(
                "Limit() limits nothing; give concurrency=3 for three at a time, or "
                "rate='100/s' for a hundred that begin in a second"
            )
        if self.concurrency is not None:
            checked_concurrency(self.concurrency)
        if self.rate is not None:
            checked_rate(self.rate, self.burst)
        elif self.burst is not None:
            raise BadOption(f"burst is {self.burst!r}, and it is a part of a rate; give rate= too")
        if not isinstance(self.per_group, bool):
            raise BadOption(f"per_group is {self.per_group!r}; use True or False")

    @property
    def in_store(self) -> stored.Limit:
        """The limit as engines have it."""
        rate = None if self.rate is None else checked_rate(self.rate, self.burst)
        return stored.Limit(self.concurrency, rate, self.per_group)


def checked_concurrency(given: int) -> int:
    """Return how many may run at a time, or refuse it.

    Raises:
        BadOption: it is not a whole number from 1.
    """
    return _number(given, "concurrency")


def checked_rate(given: RateOption, burst: int | None = None) -> stored.Rate:
    """Return a rate as engines have it, or refuse it.

    Raises:
        BadOption: it is no rate, or too fast; or the burst is no number.
    """
    number, per_ms = _rate(given)
    if number > MOST_PER_MS * per_ms:
        raise BadOption(
            f"rate is {given!r}, more than 1,000,000 a second, and no store gives jobs out as "
            "fast; use a lower one, or leave it out"
        )
    if burst is None:
        burst = max(1, number * 1_000 // per_ms // 10)
    return stored.Rate(number, per_ms, _number(burst, "burst"))


def _rate(given: RateOption) -> tuple[int, int]:
    if isinstance(given, str):
        found = RATE.fullmatch(given.strip())
        if found:
            return int(found[1]), UNITS[found[2]]
    elif isinstance(given, tuple) and len(given) == 2 and type(given[0]) is int and given[0] > 0:
        per_ms = milliseconds(given[1], "rate")
        if per_ms:
            return given[0], per_ms
    raise BadOption(
        f"rate is {given!r}; use a text such as '100/s', '10/m', '5/h' or '1000/d', or (100, "
        "seconds)"
    )


def _number(given: int, what: str) -> int:
    if type(given) is not int or not 1 <= given <= MOST:
        raise BadOption(f"{what} is {given!r}; use a whole number from 1")
    return given


def rate_text(rate: stored.Rate) -> str:
    """Return a rate as it is written."""
    for unit, unit_ms in UNITS.items():
        if rate.per_ms == unit_ms:
            return f"{rate.number}/{unit}"
    return f"{rate.number} in {rate.per_ms / 1000:g} s"


def limit_text(limit: stored.Limit) -> str:
    """Return a limit as a person reads it."""
    told = []
    if limit.concurrency is not None:
        told.append(f"{limit.concurrency:,} at a time")
    if limit.rate is not None:
        told.append(f"{rate_text(limit.rate)}, {limit.rate.burst:,} at once")
    whose = " for each group" if limit.per_group else ""
    return (", ".join(told) + whose) if told else "not limited"


# -- named by tasks and queues --


def checked_limit(given: object, of: str) -> Limit:
    """Return what should be a limit, or refuse it; `of` begins the message.

    Raises:
        BadOption: it is something else.
    """
    if not isinstance(given, Limit):
        raise BadOption(f"{of}limit is {given!r}; use Limit(concurrency=3) or Limit(rate='100/s')")
    return given


def known_limit(name: str, known: Mapping[str, object]) -> str:
    """Return the name of a limit that the application declares, or refuse it.

    Raises:
        UnknownLimit: names the nearest one that is declared.
    """
    if name not in known:
        raise UnknownLimit(
            f"no limit {name!r} is declared{nearest(str(name), known)}; declare it: "
            f"Backlane(url, limits={{{str(name)!r}: Limit(…)}})"
        )
    return name


def use(name: str, limit: Limit, group: str | None) -> Use:
    """Return what a job of this group is under because of a limit; of none: those without."""
    return Use(name, group or "") if limit.per_group else Use(name)
