"""Breakers: a resource that fails pauses the work that depends on it.

A pure state machine: a breaker, what happened, the time and a random number give the
next breaker. Engines keep its state in the store, so that all workers share it, and
drive it in two places: `settled` with the outcomes of a settle, `room` and `tried` with
what a claim may take and has taken. Pausing spends no attempt: a claim passes an open
resource's lanes by.

Closed until half of at least 20 attempts within 60 s failed, or 10 failed in a row.
Then open for 30 s, twice as long each time in a row. Then trying: 1, 2 and 4 trials; a
trial that fails opens it again, when all have succeeded it is closed. (The rule of
Nygard's "Release It!", with rounds of trials that grow as a slow start does.)

Why 10 in a row of any failure, not only of timeouts: the share is slow where the
resource is busy (after a minute at 1,000 good ones a second, half of the window has
failed only after 30 s of nothing but errors) and blind where it is quiet (fewer than 20
a minute). A resource that fails 2 of 10 at random trips by it once in 10 million attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from backlane.model.outcome import (
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    RetryAfter,
    Succeeded,
)

WINDOW_MS = 60_000
SLICE_MS = 10_000  # what is counted is forgotten in slices of the window
ENOUGH = 20  # outcomes within the window, for a share to say something
SHARE = 0.5
IN_A_ROW = 10
FIRST_OPEN_MS = 30_000
LONGEST_OPEN_MS = 600_000
JITTER = 0.2  # so that workers of many stores do not all try one resource at once
ROUNDS = (1, 2, 4)  # trials that must succeed, round by round
TRIAL_MS = 60_000  # two leases: by then a dead worker's job has been given to another
TRIALS_KEPT = 16  # those that went missing or take long; their outcome still counts
REASON_CHARS = 200


class Standing(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"  # work runs
    OPEN = "open"  # it waits
    TRYING = "trying"  # a few jobs run, to see


class Count(msgspec.Struct, frozen=True, array_like=True):
    """What ended within one slice of time."""

    slice: int
    succeeded: int = 0
    failed: int = 0


class Trial(msgspec.Struct, frozen=True, array_like=True):
    """A job that was given out to see whether its resource is well again."""

    job: bytes
    at_ms: int


class Breaker(msgspec.Struct, frozen=True, array_like=True):
    """All that is remembered of a resource. Times are those of the store's wall clock.

    A clock set back makes it try too early, never wait for longer than it said.
    """

    state: Standing = Standing.CLOSED
    since_ms: int = 0  # when it came to stand so
    for_ms: int | None = None  # open: for how long; None: until it is closed by hand
    reason: str | None = None  # why it opened
    trips: int = 0  # times in a row it opened
    counts: tuple[Count, ...] = ()  # while closed, oldest first
    in_a_row: int = 0  # failures since the last success
    round: int = 0  # while trying: which of ROUNDS
    passed: int = 0  # of its trials
    trials: tuple[Trial, ...] = ()  # under way


class ResourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as the engine knows it, and how its breaker stands."""

    name: str
    state: str  # "closed": work runs | "open": it waits | "trying": a few jobs run to see
    since_ms: int = 0  # wall clock; 0: it always stood so
    opens_in_ms: int | None = None  # until the next trial; None: closed, or open until told
    succeeded: int = 0  # attempts that count for the decision
    failed: int = 0
    trips: int = 0  # times in a row it opened
    reason: str | None = None  # why it is not closed


CLOSED = Breaker()


def draw(name: str, now_ms: int) -> float:
    """Return a number in [0, 1) for `settled`: by chance, and the same for all engines."""
    import zlib  # an import of us is to be quick

    return zlib.crc32(f"{name} {now_ms}".encode()) / 2**32


# -- what happened to it --


def settled(
    breaker: Breaker, ended: Sequence[tuple[bytes, Outcome]], now_ms: int, draw: float
) -> Breaker:
    """Return the breaker after these jobs' attempts ended so, in this order.

    `draw` in [0, 1) decides on the jitter. Where not closed, only trials count: what
    else still ends began before, and tells nothing new.
    """
    match breaker.state:
        case Standing.CLOSED:
            return _counted(breaker, [outcome for _, outcome in ended], now_ms, draw)
        case Standing.OPEN:
            return breaker
        case Standing.TRYING:
            return _tested(breaker, ended, now_ms, draw)


def tried(breaker: Breaker, jobs: Sequence[bytes], now_ms: int) -> Breaker:
    """Return the breaker after these jobs were claimed, no more than `room` allowed."""
    if breaker.state is Standing.CLOSED or not jobs:
        return breaker
    if breaker.state is Standing.OPEN:
        breaker = Breaker(
            Standing.TRYING, since_ms=now_ms, reason=breaker.reason, trips=breaker.trips
        )
    trials = [trial for trial in breaker.trials if trial.job not in jobs]
    trials += [Trial(job, now_ms) for job in jobs]
    return msgspec.structs.replace(breaker, trials=tuple(trials[-TRIALS_KEPT:]))


def opened(breaker: Breaker, for_ms: int | None, now_ms: int) -> Breaker:
    """Return the breaker opened by hand, for so long or until it is closed by hand."""
    return Breaker(
        Standing.OPEN, since_ms=now_ms, for_ms=for_ms, reason="by hand", trips=breaker.trips
    )


def closed(now_ms: int) -> Breaker:
    """Return a breaker closed by hand: nothing is remembered."""
    return Breaker(since_ms=now_ms)


# -- what may be done --


def room(breaker: Breaker, now_ms: int) -> int | None:
    """Return how many jobs may be claimed now, in all queues together; None: any number."""
    match breaker.state:
        case Standing.CLOSED:
            return None
        case Standing.OPEN:
            return 0 if opens_in_ms(breaker, now_ms) != 0 else ROUNDS[0]
        case Standing.TRYING:
            under_way = sum(_left_ms(trial, now_ms) > 0 for trial in breaker.trials)
            return max(0, ROUNDS[breaker.round] - breaker.passed - under_way)


def opens_in_ms(breaker: Breaker, now_ms: int) -> int | None:
    """Return when `room` will be more than it is: 0 is now, None is not by itself."""
    match breaker.state:
        case Standing.CLOSED:
            return None
        case Standing.OPEN:
            if breaker.for_ms is None:
                return None
            passed_ms = now_ms - breaker.since_ms
            return 0 if passed_ms < 0 else max(0, breaker.for_ms - passed_ms)
        case Standing.TRYING:
            if room(breaker, now_ms):
                return 0
            return min(left for it in breaker.trials if (left := _left_ms(it, now_ms)) > 0)


def resource_record(name: str, breaker: Breaker, now_ms: int) -> ResourceRecord:
    """Return what is told of a resource."""
    counts = _recent(breaker.counts, now_ms)
    is_closed = breaker.state is Standing.CLOSED
    return ResourceRecord(
        name=name,
        state=str(breaker.state),
        since_ms=breaker.since_ms,
        opens_in_ms=opens_in_ms(breaker, now_ms),
        succeeded=sum(it.succeeded for it in counts) if is_closed else _passed(breaker),
        failed=sum(it.failed for it in counts),
        trips=breaker.trips,
        reason=None if is_closed else breaker.reason,
    )


def is_well(outcome: Outcome) -> bool | None:
    """Say what an outcome tells of the resource: None is nothing.

    An error that the task's retry policy does not retry is the job's own (a card that
    was declined, say): the resource answered. A crash is the process's.
    """
    match outcome:
        case Succeeded():
            return True
        case RetryAfter() | Failed(reason=Reason.TIMEOUT | Reason.ATTEMPTS):
            return False
        case _:
            return None


# -- while closed --


def _counted(breaker: Breaker, outcomes: Sequence[Outcome], now_ms: int, draw: float) -> Breaker:
    """Count outcomes until it trips; what ended behind that one tells nothing new."""
    counts = _recent(breaker.counts, now_ms)
    now = now_ms // SLICE_MS
    last = counts.pop() if counts and counts[-1].slice == now else Count(now)
    good, bad = last.succeeded, last.failed  # of the present slice
    before_good, before_bad = sum(it.succeeded for it in counts), sum(it.failed for it in counts)
    in_a_row = breaker.in_a_row
    for outcome in outcomes:
        if type(outcome) is Succeeded:  # nearly all: a turn may bring hundreds
            good, in_a_row = good + 1, 0
        elif is_well(outcome) is False:
            bad, in_a_row = bad + 1, in_a_row + 1
            failed = before_bad + bad
            why = _why(in_a_row, failed, failed + before_good + good)
            if why is not None:
                # Closed for less than a window: it was not well yet, whatever its trials said.
                is_again = 0 <= now_ms - breaker.since_ms < WINDOW_MS
                trips = breaker.trips if is_again else 0
                return _tripped(trips, _because(why, outcome), now_ms, draw)
    if (good, bad) == (last.succeeded, last.failed):
        return breaker
    counts.append(Count(now, good, bad))
    return msgspec.structs.replace(breaker, counts=tuple(counts), in_a_row=in_a_row)


def _why(in_a_row: int, failed: int, total: int) -> str | None:
    """Return why a breaker opens, or None."""
    if in_a_row >= IN_A_ROW:
        return f"{in_a_row} attempts failed in a row"
    if total >= ENOUGH and failed >= SHARE * total:
        return f"{failed} of {total} attempts failed within a minute"
    return None


def _recent(counts: Sequence[Count], now_ms: int) -> list[Count]:
    """Return the slices of the last window; a slice of the future is a clock set back."""
    now = now_ms // SLICE_MS
    return [it for it in counts if now - WINDOW_MS // SLICE_MS < it.slice <= now]


# -- while trying --


def _tested(
    breaker: Breaker, ended: Sequence[tuple[bytes, Outcome]], now_ms: int, draw: float
) -> Breaker:
    for at, (job, outcome) in enumerate(ended):
        breaker = _judged(breaker, job, outcome, now_ms, draw)
        if breaker.state is not Standing.TRYING:
            return settled(breaker, ended[at + 1 :], now_ms, draw)
    return breaker


def _judged(breaker: Breaker, job: bytes, outcome: Outcome, now_ms: int, draw: float) -> Breaker:
    others = tuple(trial for trial in breaker.trials if trial.job != job)
    if len(others) == len(breaker.trials):
        return breaker
    match is_well(outcome):
        case None:  # the trial says nothing: another job takes its place
            return msgspec.structs.replace(breaker, trials=others)
        case False:
            return _tripped(breaker.trips, _because("a trial failed", outcome), now_ms, draw)
        case True:
            return _passing(breaker, others, now_ms)


def _passing(breaker: Breaker, others: tuple[Trial, ...], now_ms: int) -> Breaker:
    """One more trial has succeeded: perhaps the round is done, perhaps the last one."""
    if breaker.passed + 1 < ROUNDS[breaker.round]:
        return msgspec.structs.replace(breaker, trials=others, passed=breaker.passed + 1)
    if breaker.round + 1 < len(ROUNDS):
        return msgspec.structs.replace(breaker, trials=others, round=breaker.round + 1, passed=0)
    return Breaker(since_ms=now_ms, trips=breaker.trips)


def _passed(breaker: Breaker) -> int:
    return sum(ROUNDS[: breaker.round]) + breaker.passed


def _left_ms(trial: Trial, now_ms: int) -> int:
    """Return how long a trial is still waited for before another job takes its place."""
    passed_ms = now_ms - trial.at_ms
    return 0 if passed_ms < 0 else max(0, TRIAL_MS - passed_ms)


# -- opening --


def _tripped(trips: int, reason: str, now_ms: int, draw: float) -> Breaker:
    longer = min(LONGEST_OPEN_MS, FIRST_OPEN_MS << min(trips, 10))
    for_ms = int(longer * (1 - JITTER + 2 * JITTER * draw))
    return Breaker(Standing.OPEN, since_ms=now_ms, for_ms=for_ms, reason=reason, trips=trips + 1)


def _because(why: str, outcome: Outcome) -> str:
    match outcome:
        case RetryAfter(error=error) | Failed(error=error):
            return f"{why}; the last: {_brief(error)}"
        case _:
            return why


def _brief(error: ErrorRecord) -> str:
    first = error.message.partition("\n")[0]
    return f"{error.kind}: {first}"[:REASON_CHARS]
