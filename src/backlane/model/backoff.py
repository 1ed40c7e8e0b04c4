"""Backoff: when to try again, how often in all, and when not to ask at all.

Three answers, for callers of a busy server as for callers of a full queue:

- `pause`: how long to wait before the next try. A server that says when is obeyed,
  a little late so that those who were told the same do not come at once; where
  nothing is said, the wait is drawn with full jitter. Source: M. Brooker, "Exponential
  Backoff And Jitter", AWS Architecture Blog, 2015: of the variants compared there,
  full jitter spends the least work to let all competitors through.
- `RetryBudget`: how many retries a process makes beside its first tries, so that a
  server in trouble sees a tenth more load and not a multiple of it. Source: Google,
  "Site Reliability Engineering", ch. 21 and 22; the bucket is that of Finagle.
- `Throttle`: which requests are not sent at all, because the last two minutes say that
  they would fail. Source: "Site Reliability Engineering", ch. 21, equation 21-1.

Budget and throttle are for failures that come without a time: a broken connection, a
503 without an estimate. A caller who was told when to come, and comes then, asks
neither: his place is being kept, and a place that is not taken is capacity lost. Nor
can such callers pile up, because whoever spaces them knows what the server can do.

All is arithmetic: times are seconds of any clock that only goes forward, and chance
comes in as `draw`, a number from [0, 1). Nothing here is locked.
"""

from __future__ import annotations

import heapq
from collections import deque

BASE_SECONDS = 0.25
CAP_SECONDS = 30.0
LATE = 0.1  # of the wait told by a server: at most so much is added, never taken away


def full_jitter(
    tries: int, draw: float, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS
) -> float:
    """Return the seconds to wait after `tries` tries that failed (1 or more).

    Drawn evenly between nothing and the bound, which doubles from `base` up to `cap`.
    """
    doublings = min(max(tries, 1) - 1, 62)  # beyond that any base is above any cap
    return draw * min(cap, base * float(1 << doublings))


def obeyed(retry_after: float, draw: float) -> float:
    """Return the seconds to wait when a server has said `retry_after` seconds."""
    return max(0.0, retry_after) * (1 + LATE * draw)


def pause(tries: int, retry_after: float | None, draw: float) -> float:
    """Return the seconds to wait after `tries` failed tries, told a time or not."""
    return full_jitter(tries, draw) if retry_after is None else obeyed(retry_after, draw)


class RetryBudget:
    """Tokens for retries: each first try brings a part of one, each retry takes one.

    It delays rather than denies: whoever finds no token is told when one will be
    there, and takes it now. So the retries started within any t seconds are at most
    `cap + floor * t` and a `share` of the first tries, however many callers fail.

    Args:
        share: tokens that a first try brings.
        floor: tokens a second that come by themselves, so that a quiet caller may retry.
        cap: the most tokens, and how many there are at the start.
    """

    __slots__ = ("_at", "_cap", "_floor", "_share", "_tokens")

    def __init__(self, *, share: float = 0.1, floor: float = 1.0, cap: float = 10.0) -> None:
        self._share, self._floor, self._cap = share, floor, cap
        self._tokens = cap  # below zero: that many are promised already
        self._at: float | None = None

    def begin(self, now: float) -> None:
        """Count a first try."""
        self._refill(now)
        self._tokens = min(self._cap, self._tokens + self._share)

    def take(self, now: float, within: float) -> float | None:
        """Take a token; return the seconds until it may be used, 0 for at once.

        None, and nothing taken, when that would be longer than `within` seconds.
        """
        self._refill(now)
        wait = max(0.0, 1 - self._tokens) / self._floor
        if wait > within:
            return None
        self._tokens -= 1
        return wait

    def _refill(self, now: float) -> None:
        if self._at is not None:
            passed = max(0.0, now - self._at)
            self._tokens = min(self._cap, self._tokens + passed * self._floor)
        self._at = now


class Throttle:
    """Keeps back, by chance, requests that the last two minutes say would fail.

    The share kept back is max(0, (requests - 2 * accepts) / (requests + 1)): nothing
    while at least half of the requests are answered, nearly all when none is. Requests
    count from their start, otherwise a server that hangs would be sent ever more; those
    that could not have been answered yet are left out of both, or a burst of calls would
    throttle itself. In two points it is milder than its source, because callers here do
    not give up but try again until their deadline: what was kept back is not counted as
    a request, and one in `floor_seconds` passes whatever the share. With neither, a lone
    caller whose server came back would keep back nine of ten requests for two minutes.
    """

    WINDOW_SECONDS = 120.0
    SLICE_SECONDS = 1.0  # what is forgotten at once
    MULTIPLE = 2.0  # K: how many requests an accepted one allows
    PATIENCE_SECONDS = 1.0  # an answer that takes longer is late

    __slots__ = (
        "_accepts",
        "_ends",
        "_floor_seconds",
        "_number",
        "_requests",
        "_sent_at",
        "_slices",
        "_young",
    )

    def __init__(self, *, floor_seconds: float = 1.0) -> None:
        self._slices: deque[list[float]] = deque()  # [begin, requests, accepts]
        self._requests = self._accepts = 0.0
        self._floor_seconds = floor_seconds
        self._sent_at: float | None = None
        self._number = 0
        self._young: set[int] = set()  # under way, and not late
        self._ends: list[tuple[float, int]] = []  # a heap: when each will be late

    def share(self, now: float) -> float:
        """Return the share of requests that is kept back now, 0 to below 1."""
        self._forget(now)
        while self._ends and self._ends[0][0] <= now:
            self._young.discard(heapq.heappop(self._ends)[1])
        requests = self._requests - len(self._young)
        return max(0.0, (requests - self.MULTIPLE * self._accepts) / (max(0.0, requests) + 1))

    def begin(self, now: float, draw: float, patience: float = PATIENCE_SECONDS) -> int | None:
        """Return the number of a request that may be sent now, or None to keep it back.

        It is late when it was not answered after `patience` seconds. A `draw` of 1 passes
        always, and is counted.
        """
        overdue = self._sent_at is None or now - self._sent_at >= self._floor_seconds
        if draw < self.share(now) and not overdue:
            return None
        self._slice(now)[1] += 1
        self._requests += 1
        self._sent_at = now
        self._number += 1
        self._young.add(self._number)
        heapq.heappush(self._ends, (now + patience, self._number))
        return self._number

    def end(self, number: int, now: float, *, is_accepted: bool) -> None:
        """Count what became of a request: did the answer show that the server does its work?"""
        self._young.discard(number)
        if is_accepted:
            self._forget(now)
            self._slice(now)[2] += 1
            self._accepts += 1

    def _slice(self, now: float) -> list[float]:
        if not self._slices or now - self._slices[-1][0] >= self.SLICE_SECONDS:
            self._slices.append([now, 0.0, 0.0])
        return self._slices[-1]

    def _forget(self, now: float) -> None:
        while self._slices and now - self._slices[0][0] >= self.WINDOW_SECONDS:
            _, requests, accepts = self._slices.popleft()
            self._requests -= requests
            self._accepts -= accepts
