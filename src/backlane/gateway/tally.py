"""The tally: what this process has answered, admitted and refused since it started.

Labels that callers could make up (methods, queues that exist nowhere) are bounded, so that
nobody can fill the memory of what scrapes us.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from backlane.gateway.exposition import Exposition
from backlane.model.event import Event, JobEnqueued, JobRefused

# Seconds; 60 is the longest that a long poll may take, and beyond it are streams.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
MOST_QUEUES = 500
OTHERS = "(others)"
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"})


class Timing:
    """How long the requests of one route took."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0


class Tally:
    """Counts; may be told of events from any thread."""

    def __init__(self) -> None:
        self._answered: Counter[tuple[str, str, int]] = Counter()
        self._timings: dict[tuple[str, str], Timing] = {}
        self._admitted: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request by the route it took, as the routes are written."""
        method = method if method in METHODS else "other"
        self._answered[method, route, status] += 1
        timing = self._timings.get((method, route))
        if timing is None:
            timing = self._timings[method, route] = Timing()
        timing.counts[bisect_left(BUCKETS, seconds)] += 1
        timing.total += seconds

    def saw(self, event: Event) -> None:
        """Count what came in, and what could not."""
        if type(event) is JobEnqueued:
            if event.is_new:
                self._admitted[_bounded(self._admitted, event.queue)] += 1
        elif type(event) is JobRefused:
            queue = event.queue
            if (queue, event.limit) not in self._refused and len(self._refused) > MOST_QUEUES:
                queue = OTHERS
            self._refused[queue, event.limit] += event.count

    def tell(self, told: Exposition) -> None:
        """Add all of it to an exposition."""
        family = told.family(
            "admitted_jobs_total", "counter", "Jobs and messages that this process stored."
        )
        for queue, number in sorted(self._admitted.items()):
            family.add(number, queue=queue)
        family = told.family(
            "refused_jobs_total", "counter", "Jobs and messages refused in this process, by limit."
        )
        for (queue, limit), number in sorted(self._refused.items()):
            family.add(number, queue=queue, reason=limit)
        family = told.family("http_requests_total", "counter", "Requests answered.")
        for (method, route, status), number in sorted(self._answered.items()):
            family.add(number, method=method, route=route, status=str(status))
        family = told.family(
            "http_request_seconds", "histogram", "Time until a request was answered in whole."
        )
        for (method, route), timing in sorted(self._timings.items()):
            bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
            for bound, number in zip(bounds, accumulate(timing.counts), strict=True):
                family.add(number, "_bucket", method=method, route=route, le=bound)
            family.add(timing.total, "_sum", method=method, route=route)
            family.add(sum(timing.counts), "_count", method=method, route=route)


def _bounded(known: Counter[str], queue: str) -> str:
    return queue if queue in known or len(known) < MOST_QUEUES else OTHERS
