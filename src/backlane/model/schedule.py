"""Schedules: rules that yield due times, and what applying one comes to.

    >>> from backlane.model.schedule import Every
    >>> next(Every(60).after(90_000))
    120000

A rule is told a moment and yields the ones after it; it reads no clock. All of it is
whole milliseconds since 1970, so that every worker finds the same due times, and with
them the same ids. What is due is applied up to a moment: what lies before it is done
with, whatever the clock is set to later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, get_args

import msgspec

from backlane.errors import BadOption, Undecodable
from backlane.model.cron import LAST, Cron
from backlane.model.limit import Use
from backlane.model.retry import Duration, milliseconds

CatchUp = Literal["none", "latest", "all"]

ON_TIME_MS = 60_000  # a worker that starts anew, or a store that is away, is not worth a miss
MOST = 100  # due times that are caught up with, unless said otherwise
MOST_OF_ALL = 1_000  # jobs that one tick appends at most
LEAST_INTERVAL_MS = 1_000
WINDOW_MS = 64_000  # the first look back for what is due; each further one is four times as long


class Every:
    """A rule that fires each time an interval is over.

    The times are multiples of the interval since 1970 (UTC), or since `start`, so that
    they are the same in every process and after every restart.

    Args:
        interval: at least a second.
        start: the first time it fires, with a time zone.

    Raises:
        BadOption: a value cannot work.

    .. versionadded:: 0.1
    """

    __slots__ = ("interval_ms", "start_ms")

    def __init__(self, interval: Duration, start: datetime | None = None) -> None:
        self.interval_ms = milliseconds(interval, "interval")
        if self.interval_ms < LEAST_INTERVAL_MS:
            raise BadOption(
                f"interval is {interval!r}; a schedule fires at most once a second, so use 1 or "
                "more, and a loop inside a job for what is quicker"
            )
        self.start_ms = None if start is None else _dated_ms(start, "start")

    def __repr__(self) -> str:
        start = "" if self.start_ms is None else f", {_moment(self.start_ms).isoformat()}"
        return f"Every({timedelta(milliseconds=self.interval_ms)}{start})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Every):
            return NotImplemented
        return (self.interval_ms, self.start_ms) == (other.interval_ms, other.start_ms)

    def __hash__(self) -> int:
        return hash((self.interval_ms, self.start_ms))

    def after(self, moment: int, _name: str = "") -> Iterator[int]:
        """Yield the milliseconds at which it fires, all later than `moment`."""
        start = self.start_ms or 0
        due = start + ((moment - start) // self.interval_ms + 1) * self.interval_ms
        if self.start_ms is not None:
            due = max(due, self.start_ms)
        while due <= LAST * 1000:
            yield due
            due += self.interval_ms


class At:
    """A rule that fires once, at a moment with a time zone.

    .. versionadded:: 0.1
    """

    __slots__ = ("moment_ms",)

    def __init__(self, moment: datetime) -> None:
        self.moment_ms = _dated_ms(moment, "moment")

    def __repr__(self) -> str:
        return f"At({_moment(self.moment_ms).isoformat()})"

    def __eq__(self, other: object) -> bool:
        return self.moment_ms == other.moment_ms if isinstance(other, At) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.moment_ms)

    def after(self, moment: int, _name: str = "") -> Iterator[int]:
        """Yield its moment, if that is later than `moment` (both milliseconds)."""
        if self.moment_ms > moment:
            yield self.moment_ms


Rule = Cron | Every | At


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store keeps of a schedule: when it fires, and what it calls.

    Fields are only ever added, with a default: what is written by one version of this
    package is read by another, and is the same bytes as long as it means the same.
    """

    cron: str | None = None
    tz: str = "UTC"
    every_ms: int | None = None
    start_ms: int | None = None
    at_ms: int | None = None
    catch_up: CatchUp = "latest"
    most: int = MOST
    jitter_ms: int = 0
    body: bytes = b""  # encoded arguments
    queue: str | None = None  # instead of the task's own, as all that follow
    priority: int | None = None
    expires_ms: int | None = None
    group: str | None = None
    tags: tuple[str, ...] | None = None
    uses: tuple[Use, ...] | None = None
    key: str | None = None  # made of the arguments, as the task says
    headers: Mapping[str, str] = {}

    def rule(self) -> Rule:
        """Return when it fires.

        Raises:
            BadOption: another version of this package knows a rule that this one does not.
        """
        if self.cron is not None:
            return Cron(self.cron, self.tz)
        if self.every_ms is not None:
            start = None if self.start_ms is None else _moment(self.start_ms)
            return Every(timedelta(milliseconds=self.every_ms), start)
        if self.at_ms is not None:
            return At(_moment(self.at_ms))
        raise BadOption("the schedule has no rule that this version of backlane knows; update it")


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Spec).decode


def encode_spec(spec: Spec) -> bytes:
    """Return a spec as a store keeps it."""
    return _encode(spec)


def decode_spec(stored: bytes) -> Spec:
    """Return a spec as it was given.

    Raises:
        Undecodable: the bytes are none.
    """
    try:
        return _decode(stored)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"the schedule cannot be read: {error}; put it anew") from error


def spec_of(
    rule: Rule | str | timedelta,
    *,
    tz: str | None = None,
    catch_up: CatchUp = "latest",
    most: int = MOST,
    jitter: Duration = 0,
) -> Spec:
    """Return a spec of when a schedule fires; the call is still to be added.

    Raises:
        BadOption: a value cannot work.
    """
    rule = checked_rule(rule, tz)
    if catch_up not in get_args(CatchUp):
        raise BadOption(
            f"catch_up is {catch_up!r}; use 'none', 'latest' (one job for all that was missed) "
            "or 'all'"
        )
    if type(most) is not int or not 1 <= most <= MOST_OF_ALL:
        raise BadOption(f"most is {most!r}; use a whole number from 1 to {MOST_OF_ALL:,}")
    timing = Spec(catch_up=catch_up, most=most, jitter_ms=milliseconds(jitter, "jitter"))
    match rule:
        case Cron():
            return msgspec.structs.replace(timing, cron=rule.expression, tz=rule.tz)
        case Every():
            return msgspec.structs.replace(
                timing, every_ms=rule.interval_ms, start_ms=rule.start_ms
            )
        case At():
            return msgspec.structs.replace(timing, at_ms=rule.moment_ms)


def checked_rule(rule: Rule | str | timedelta, tz: str | None = None) -> Rule:
    """Return a rule: a text is cron, a duration an interval.

    Raises:
        BadOption: it is none of these, or has no use for a time zone.
    """
    if isinstance(rule, str):
        return Cron(rule, "UTC" if tz is None else tz)
    if tz is not None:
        raise BadOption("tz goes with a cron expression as text; give it as Cron(…, tz) otherwise")
    if isinstance(rule, timedelta):
        return Every(rule)
    if not isinstance(rule, Cron | Every | At):
        raise BadOption(
            f"{rule!r} is no rule; use cron such as '0 3 * * *', a timedelta, Every(…) or At(…)"
        )
    return rule


# -- what is due --


class Due(msgspec.Struct, frozen=True):
    """What applying a schedule comes to: its due times, and when to look again."""

    moments: list[int]
    last_ms: int  # all that was due up to then is done with
    next_ms: int | None  # None: it never fires again


def due(spec: Spec, name: str, last_ms: int, now_ms: int) -> Due:
    """Return what is due of a schedule that was applied up to `last_ms`.

    Of several due times `catch_up` says which count: "none" the newest, if it is less
    than a minute old; "latest" the newest; "all" the newest `most`.
    """
    rule = spec.rule()
    found: list[int] = []
    if now_ms > last_ms:
        most = spec.most if spec.catch_up == "all" else 1
        found = _newest(rule, name, last_ms, now_ms, most)
        if spec.catch_up == "none":
            found = [moment for moment in found if now_ms - moment < ON_TIME_MS]
    last_ms = max(last_ms, now_ms)
    return Due(found, last_ms, next(_after(rule, name, last_ms), None))


def upcoming(spec: Spec, name: str, after_ms: int, number: int) -> list[int]:
    """Return the next due times after a moment."""
    return list(islice(_after(spec.rule(), name, after_ms), number))


def jitter_ms(spec: Spec, name: str, moment_ms: int) -> int:
    """Return how much later than its due time a job runs: another for each, but always the same."""
    if not spec.jitter_ms:
        return 0
    import hashlib  # as in cron.py

    digest = hashlib.blake2b(f"{moment_ms} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (spec.jitter_ms + 1)


def _after(rule: Rule, name: str, moment: int) -> Iterator[int]:
    """Yield due times later than a moment, in milliseconds whatever the rule."""
    if isinstance(rule, Cron):
        return (second * 1000 for second in rule.after(moment // 1000, name))
    return rule.after(moment, name)


def _newest(rule: Rule, name: str, after: int, until: int, most: int) -> list[int]:
    """Return the newest due times of a span, without going through all of a long one."""
    window = WINDOW_MS
    while True:
        start = max(after, until - window)
        found: deque[int] = deque(maxlen=most)
        for moment in _after(rule, name, start):
            if moment > until:
                break
            found.append(moment)
        if len(found) == most or start == after:
            return list(found)
        window *= 4


def moment_ms(moment: datetime, option: str) -> int:
    """Return a moment in milliseconds since 1970.

    Raises:
        BadOption: it is no datetime, or has no time zone.
    """
    if not isinstance(moment, datetime):
        raise BadOption(f"{option} is {moment!r}; use a datetime with a time zone")
    if moment.tzinfo is None:
        raise BadOption(
            f"{option} is {moment.isoformat()} without a time zone, so it could mean several "
            "moments; use datetime(…, tzinfo=…)"
        )
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _dated_ms(moment: datetime, option: str) -> int:
    """Return a moment that can be told in UTC: the ends of time in some zones cannot.

    Raises:
        BadOption: it cannot be told, or see `moment_ms`.
    """
    wall_ms = moment_ms(moment, option)
    try:
        _moment(wall_ms)
    except OverflowError:
        raise BadOption(
            f"{option} is {moment.isoformat()}, which is no date in UTC; use years from 1 to 9999"
        ) from None
    return wall_ms


def _moment(wall_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wall_ms)


def told(rule: Rule) -> str:
    """Return a rule in words for people."""
    match rule:
        case Cron():
            return rule.expression if rule.tz == "UTC" else f"{rule.expression} ({rule.tz})"
        case Every():
            return f"every {timedelta(milliseconds=rule.interval_ms)}"
        case At():
            return f"at {_moment(rule.moment_ms).isoformat()}"
