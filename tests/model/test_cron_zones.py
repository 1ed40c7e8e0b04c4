"""Cron where the clocks of a zone change, against an oracle that walks through time.

The oracle knows nothing of how rules are found: it goes through the minutes around each
change of each zone, as real time passes, looks at what a clock on the wall shows, and
says when each rule ought to have fired.

`BACKLANE_PROVE=1` walks through all changes of all zones from 2000 to 2037.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest

from backlane.model.cron import Cron

PROVES = os.environ.get("BACKLANE_PROVE") == "1"
ZONES = sorted(available_timezones())
# Changes by 30 minutes, of a whole day, at midnight, at odd times, of the base offset.
ODD = [
    *("Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/Sao_Paulo"),
    *("Asia/Tehran", "Asia/Gaza", "Asia/Pyongyang", "America/Caracas", "Europe/Dublin"),
    *("Antarctica/Troll", "Europe/Paris", "America/New_York", "Asia/Kathmandu", "Africa/Cairo"),
    *("Pacific/Kwajalein", "America/St_Johns", "Asia/Amman", "Pacific/Kiritimati"),
]
FIRST, LAST = (int(datetime.fromisoformat(day).timestamp()) for day in ("2000-01-01", "2038-01-01"))
HOUR, DAY = 3_600, 86_400


def offset(place: ZoneInfo, second: int) -> int:
    return int((datetime.fromtimestamp(second, place).utcoffset() or timedelta()).total_seconds())


def changes(place: ZoneInfo) -> Iterator[int]:
    """The seconds at which the offset of a zone changes: sought day by day."""
    before = offset(place, FIRST)
    for day in range(FIRST, LAST, DAY):
        after = offset(place, day + DAY)
        if after != before:
            low, high = day, day + DAY
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(place, middle) == before else (low, middle)
            yield high
        before = after


class Walk:
    """The minutes around a change, and what a clock shows in each."""

    def __init__(self, place: ZoneInfo, change: int) -> None:
        self.shift = offset(place, change) - offset(place, change - 1)
        around = max(4 * HOUR, abs(self.shift) + 2 * HOUR)
        begins = (change - around) // 60 * 60
        epoch = datetime(1970, 1, 1)  # noqa: DTZ001 - what clocks show
        self.minutes = range(begins, change + around, 60)
        self.shown = [
            epoch + timedelta(seconds=minute + offset(place, minute)) for minute in self.minutes
        ]

    def by_real_time(self, minutes: set[int], hours: set[int]) -> list[int]:
        """Whenever a clock shows a time that fits."""
        return [
            moment
            for moment, shown in zip(self.minutes, self.shown, strict=True)
            if shown.minute in minutes and shown.hour in hours
        ]

    def fixed(self, minutes: set[int], hours: set[int]) -> list[int]:
        """Each time of day when it is shown first, or by the first clock that is past it."""
        found = set()
        first: dict[datetime, int] = {}
        for at, shown in enumerate(self.shown):
            first.setdefault(shown, at)
        time, last = min(self.shown), max(self.shown)
        while time <= last:
            if time.minute in minutes and time.hour in hours:
                past = (at for at, shown in enumerate(self.shown) if shown > time)
                found.add(self.minutes[first[time] if time in first else next(past)])
            time += timedelta(minutes=1)
        return sorted(found)


RULES = [
    ("30 2 * * *", {30}, {2}),
    ("0 0 * * *", {0}, {0}),
    ("15,45 1-3 * * *", {15, 45}, {1, 2, 3}),
    ("59 23 * * *", {59}, {23}),
    ("0 0-23 * * *", {0}, set(range(24))),
]
OPEN_RULES = [
    ("*/20 * * * *", {0, 20, 40}, set(range(24))),
    ("*/10 2 * * *", set(range(0, 60, 10)), {2}),
    ("30 * * * *", {30}, set(range(24))),
    ("5 */2 * * *", {5}, set(range(0, 24, 2))),
    ("* 1 * * *", set(range(60)), {1}),
]


def fired(expression: str, zone: str, after: int, until: int) -> list[int]:
    return list(takewhile(lambda second: second <= until, Cron(expression, zone).after(after)))


def check(zone: str, change: int) -> None:
    walk = Walk(ZoneInfo(zone), change)
    begins, ends = walk.minutes[0], walk.minutes[-1]
    quiet = begins + HOUR + max(0, -walk.shift)  # what was shown before is not shown again
    for (expression, minutes, hours), oracle in (
        *((rule, walk.fixed) for rule in RULES),
        *((rule, walk.by_real_time) for rule in OPEN_RULES),
    ):
        right = [moment for moment in oracle(minutes, hours) if quiet < moment <= ends - HOUR]
        told = fired(expression, zone, quiet, ends - HOUR)
        assert told == right, (zone, expression, datetime.fromtimestamp(change, ZoneInfo(zone)))
        if right:  # from wherever one looks, the next one is the same
            look = random.Random(change).randrange(quiet, ends - HOUR)
            left = [moment for moment in right if moment > look]
            assert fired(expression, zone, look, ends - HOUR) == left, (zone, expression, look)


walked: set[tuple[tuple[int, int], ...]] = set()  # many zones are one under other names


@pytest.mark.parametrize("zone", ZONES if PROVES else ODD)
def test_rules_fire_as_clocks_on_the_wall_say(zone: str) -> None:
    place = ZoneInfo(zone)
    found = list(changes(place))
    history = tuple((change, offset(place, change)) for change in found)
    if history in walked:
        return
    walked.add(history)
    if not PROVES and len(found) > 8:
        found = found[:3] + found[len(found) // 2 : len(found) // 2 + 2] + found[-3:]

    for change in found:
        check(zone, change)
