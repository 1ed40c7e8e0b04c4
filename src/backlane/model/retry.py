"""Retries: (attempt, error) -> when, or never.

Exponential backoff with full jitter: the delay before execution n + 1 is drawn from
U(0, min(cap, base * 2^(n - 1))). Source: M. Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015: of the variants compared there, full jitter
spends the least work to let all competitors through.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from backlane.errors import BadOption
from backlane.model.option import check_options

Duration = timedelta | float  # at the public surface: a timedelta, or seconds


def milliseconds(given: Duration, option: str) -> int:
    """Return a duration in whole milliseconds.

    Raises:
        BadOption: it is negative, infinite, not a number, or longer than 100 years.
    """
    if isinstance(given, bool) or not isinstance(given, timedelta | int | float):
        raise BadOption(f"{option} is {given!r}; use a timedelta, or seconds as a number")
    seconds = given.total_seconds() if isinstance(given, timedelta) else float(given)
    if not 0 <= seconds <= 3_155_760_000:  # NaN fails both comparisons
        raise BadOption(f"{option} is {given!r}; use a duration from 0 to 100 years")
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is tried again.

    Args:
        attempts: executions in all; 1 means never again, also after a crash.
        base: seconds; the bound of the first delay.
        cap: seconds; no delay is longer.
        on: the errors that are retried; all others fail the job at once.
        never: errors that are not retried even if `on` covers them.

    Raises:
        BadOption: a value cannot work.
        UnknownOption: an option does not exist; names the nearest one that does.
    """

    attempts: int = 10
    base: Duration = 1.0
    cap: Duration = 3600.0
    on: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = ()

    def __new__(cls, *_: Any, **options: Any) -> Self:
        check_options(options, cls.__dataclass_fields__, "Retry()")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if (
            not isinstance(self.attempts, int)
            or isinstance(self.attempts, bool)
            or self.attempts < 1
        ):
            raise BadOption(
                f"attempts is {self.attempts!r}; use a whole number from 1 (1 = no retry)"
            )
        if milliseconds(self.base, "base") > milliseconds(self.cap, "cap"):
            raise BadOption(f"base is {self.base!r}, above cap, {self.cap!r}; raise cap too")
        for option in ("on", "never"):
            kinds = getattr(self, option)
            if not isinstance(kinds, tuple) or not all(
                isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
            ):
                raise BadOption(f"{option} is {kinds!r}; use a tuple of exception classes")

    @property
    def base_ms(self) -> int:
        return milliseconds(self.base, "base")

    @property
    def cap_ms(self) -> int:
        return milliseconds(self.cap, "cap")

    def covers(self, error: BaseException | type[BaseException]) -> bool:
        """Say whether this error may be retried at all."""
        kind = error if isinstance(error, type) else type(error)
        return issubclass(kind, self.on) and not issubclass(kind, self.never)


DEFAULT_RETRY = Retry()


def ceiling_ms(executions: int, base_ms: int, cap_ms: int) -> int:
    """Return the bound of the delay after `executions` executions (1 or more)."""
    doublings = min(executions - 1, 62)  # beyond that any base is above any cap
    return min(cap_ms, base_ms << doublings)


def delay_ms(executions: int, base_ms: int, cap_ms: int, draw: float | None = None) -> int:
    """Return the delay after `executions` executions; `draw` in [0, 1) replaces chance."""
    import random  # an import of us is to be quick

    share = random.random() if draw is None else draw  # noqa: S311 - spread, not secrecy
    return int(share * ceiling_ms(executions, base_ms, cap_ms))
