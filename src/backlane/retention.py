"""Retention: how long the records of ended jobs are kept, unless their tasks say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from backlane.engine.retention import Retention as Kept
from backlane.errors import BadOption
from backlane.model.option import check_options
from backlane.model.retry import Duration, milliseconds

FOR_EVER = 2**62


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the history of a store is kept, by age and by number; what ends first counts.

    Nothing that ended less than a minute ago is pruned. A task's own `keep` goes before it.

    Args:
        done: how long jobs are kept that succeeded, were cancelled or expired.
        done_jobs: how many of these are kept of each queue.
        failed: how long dead letters are kept.
        failed_jobs: how many of these are kept of each queue.

    A time may be `"forever"`, a number `None` for any number.

    Raises:
        BadOption: a value cannot work.
        UnknownOption: an option does not exist; names the nearest one that does.

    .. versionadded:: 0.1
    """

    done: Duration | str = timedelta(days=1)
    done_jobs: int | None = 1_000_000
    failed: Duration | str = timedelta(days=30)
    failed_jobs: int | None = 100_000

    def __new__(cls, *_: Any, **options: Any) -> Self:
        check_options(options, cls.__dataclass_fields__, "Retention()")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for option in ("done_jobs", "failed_jobs"):
            number = getattr(self, option)
            if number is not None and (type(number) is not int or not 0 <= number <= FOR_EVER):
                raise BadOption(f"{option} is {number!r}; use a whole number from 0, or None")
        _ = self.kept

    @property
    def kept(self) -> Kept:
        """What a sweep is told."""
        done_ms, failed_ms = keep_ms(self.done, "done"), keep_ms(self.failed, "failed")
        return Kept(
            done_ms=FOR_EVER if done_ms < 0 else done_ms,
            done_jobs=FOR_EVER if self.done_jobs is None else self.done_jobs,
            failed_ms=FOR_EVER if failed_ms < 0 else failed_ms,
            failed_jobs=FOR_EVER if self.failed_jobs is None else self.failed_jobs,
        )


def keep_ms(given: Duration | str, option: str) -> int:
    """Return how long something is kept in milliseconds; -1: for ever.

    Raises:
        BadOption: it is neither a duration nor "forever".
    """
    if isinstance(given, str):
        if given != "forever":
            raise BadOption(f"{option} is {given!r}; use a timedelta, seconds, or 'forever'")
        return -1
    return milliseconds(given, option)


DEFAULT_RETENTION = Retention()


def checked_retention(given: Retention) -> Retention:
    """Return how long history is kept, or refuse what is no `Retention`."""
    if not isinstance(given, Retention):
        raise BadOption(f"retention is {given!r}; use Retention(done=…)")
    return given
