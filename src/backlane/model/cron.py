"""Cron: rules in five or six fields, in the time of a zone, with clear words on its changes.

A field can be numbers, names, ranges, steps, lists, `L`, `LW` and `#` as the cronsim
package reads them, and `H`: a number that is drawn once from the schedule's name, so
that many schedules do not all fire at the same second.

Where the clocks of a zone change, a rule is one of two kinds:
- **Fixed**: seconds, minutes and hours all say which (`30 2 * * *`). It means a time of
  day. One that is skipped fires once, right after it; one that comes twice fires the
  first time.
- **By real time**: one of the three is open (`*`, `*/5`, `H/15`). It fires whenever a
  clock on the wall shows a time that fits: a skipped time not at all, a doubled one twice.

Nothing here reads a clock. Times are whole seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from backlane.errors import BadOption, nearest

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# What `H` draws from, by field. Days from 1 to 28 are in every month.
DRAWN = [(0, 59), (0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]
HASH = re.compile(r"H(?:\((\d+)-(\d+)\))?(?:/(\d+))?")
DAY = 86_400
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what a clock on the wall shows, in no zone
LAST = 253_402_300_799 - 2 * DAY  # the year 9999, as far as a datetime can tell


class Cron:
    """A cron expression in a time zone: see the module for what it means.

    Args:
        expression: five fields (minute, hour, day, month, weekday), six with seconds
            first, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
        tz: the name of a zone, such as `"Europe/Paris"`.

    Raises:
        BadOption: it never fires, or says which part cannot be read.

    .. versionadded:: 0.1
    """

    __slots__ = ("expression", "tz")

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        if not isinstance(expression, str):
            raise BadOption(f"cron is {expression!r}; use a text such as '0 3 * * *'")
        self.expression = " ".join(expression.split())
        self.tz = tz
        zone(tz)
        _check(self.expression)

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.tz!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cron):
            return NotImplemented
        return (self.expression, self.tz) == (other.expression, other.tz)

    def __hash__(self) -> int:
        return hash((self.expression, self.tz))

    def after(self, second: int, name: str = "") -> Iterator[int]:
        """Yield the seconds at which it fires, all later than `second`, in order.

        `name` is what `H` is drawn from.
        """
        fields = resolved(self.expression, name)
        if is_fixed(self.expression):
            return _fixed(" ".join(fields), zone(self.tz), second)
        return _by_real_time(" ".join(fields), zone(self.tz), second)


def zone(name: str) -> tzinfo:
    """Return a time zone by its name.

    Raises:
        BadOption: there is none of that name.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, available_timezones  # who has no schedule does not pay for it

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError, TypeError) as error:
        known = available_timezones()
        if not known:
            raise BadOption(
                f"tz is {name!r}, and this machine knows no time zones; install the package "
                "tzdata, or leave tz out for UTC"
            ) from error
        raise BadOption(
            f"tz is {name!r}, which is no time zone{nearest(str(name), known)}; use a name such "
            "as 'Europe/Paris', or leave it out for UTC"
        ) from error


# -- what the fields say --


def resolved(expression: str, name: str) -> list[str]:
    """Return six fields, each `H` in them drawn from a name.

    Raises:
        BadOption: the number of fields, or an `H`, cannot be read.
    """
    fields = ALIASES.get(expression.lower(), expression).upper().split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise BadOption(
            f"cron {expression!r} has {len(fields)} fields; use five (minute, hour, day, month, "
            f"weekday), six with seconds first, or one of {', '.join(ALIASES)}"
        )
    return [_drawn(expression, name, place, field) for place, field in enumerate(fields)]


def is_fixed(expression: str) -> bool:
    """Whether a rule means times of day, and not whatever a clock shows."""
    fields = ALIASES.get(expression.lower(), expression).upper().split()
    return not any(
        part.startswith("*") or re.match(r"H(\(.*\))?/", part)
        for field in fields[: len(fields) - 3]
        for part in field.split(",")
    )


def _drawn(expression: str, name: str, place: int, field: str) -> str:
    """Return a field without `H`."""
    if "H" not in field or (place >= 4 and not HASH.search(re.sub("[A-Z]{3}", "", field))):
        return field  # of names of months and days some have an H
    return ",".join(_draw(expression, name, place, part) for part in field.split(","))


def _draw(expression: str, name: str, place: int, part: str) -> str:
    if not part.startswith("H"):
        return part
    found = HASH.fullmatch(part)
    if found is None:
        raise BadOption(f"cron {expression!r}: {part!r} cannot be read; use H, H(0-29), H/15")
    low, high = DRAWN[place]
    if found[1] is not None:
        given = int(found[1]), int(found[2])
        if not low <= given[0] <= given[1] <= high:
            hint = "; use L for the last day of each month" if place == 3 else ""
            raise BadOption(
                f"cron {expression!r}: {part!r} draws from outside of {low}-{high}{hint}"
            )
        low, high = given
    import hashlib  # for `H` alone, and it takes 2 ms

    digest = hashlib.blake2b(f"{place} {name}".encode(), digest_size=8).digest()
    if found[3] is None:
        return str(low + int.from_bytes(digest) % (high - low + 1))
    step = int(found[3])
    if not 1 <= step <= high - low + 1:
        raise BadOption(f"cron {expression!r}: a step of {step} does not fit into {low}-{high}")
    return f"{low + int.from_bytes(digest) % step}-{high}/{step}"


def _check(expression: str) -> None:
    from cronsim import CronSimError

    try:
        first = next(_naive(" ".join(resolved(expression, "")), 0), None)
    except CronSimError as error:
        raise BadOption(
            f"cron {expression!r} cannot be read: {str(error)[:1].lower()}{str(error)[1:]}; "
            "use fields such as '0 3 * * MON-FRI'"
        ) from error
    if first is None:
        raise BadOption(f"cron {expression!r} never fires: there is no such day")


# -- when they fit --


def _naive(fields: str, after: int) -> Iterator[int]:
    """Yield what a clock shows that fits, later than `after`: seconds as if it were in UTC."""
    from cronsim import CronSim  # as above

    moments = CronSim(fields, EPOCH + timedelta(seconds=after))
    try:
        for moment in moments:
            yield (moment - EPOCH) // timedelta(seconds=1)
    except (OverflowError, ValueError):  # the year 10000
        return


def _offset(place: tzinfo, second: int) -> int:
    """How far the clocks of a zone are before UTC at a moment, in seconds."""
    shown = datetime.fromtimestamp(second, place).utcoffset()
    return 0 if shown is None else shown // timedelta(seconds=1)


def _change(place: tzinfo, before: int, after: int) -> int:
    """The first second, of these, at which the offset is no more what it was `before`."""
    offset = _offset(place, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(place, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _fixed(fields: str, place: tzinfo, after: int) -> Iterator[int]:
    """Yield when times of day come: each once, those that are skipped right after."""
    if after > LAST:
        return
    latest = after
    for shown in _naive(fields, after + _offset(place, after)):
        if shown > LAST:
            return
        moment = _first(place, shown)
        if moment > latest:
            yield moment
            latest = moment


def _first(place: tzinfo, shown: int) -> int:
    """The first moment at which a clock shows this; where it never does, when it is past it."""
    # Of what the clock showed by the offsets of the days around, the earliest that is true.
    early, late = _offset(place, shown - DAY - 7200), _offset(place, shown + DAY + 7200)
    moments = sorted({shown - early, shown - late})
    for moment in moments:
        if moment + _offset(place, moment) == shown:
            return moment
    return _change(place, moments[0] - 1, moments[-1])


def _by_real_time(fields: str, place: tzinfo, after: int) -> Iterator[int]:
    """Yield whenever a clock shows what fits; between changes of its offset it is a plain one."""
    at = after  # nothing fits from here on that was not yielded
    while at <= LAST:
        offset = _offset(place, at)
        changes_at = None
        for shown in _naive(fields, at + offset):
            moment = shown - offset
            if moment > LAST:
                return
            while changes_at is None and at < moment:
                step = min(moment, at + DAY)
                if _offset(place, step) == offset:
                    at = step
                else:
                    changes_at = _change(place, at, step)
            if changes_at is not None:
                break
            yield moment
        if changes_at is None:
            return
        at = changes_at - 1
        # The first second of the new offset may fit too: it is looked at as of just before it.
        offset = _offset(place, changes_at)
        at = changes_at
        for shown in _naive(fields, changes_at + offset - 1):
            if shown == changes_at + offset:
                yield changes_at
            break
