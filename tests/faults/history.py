"""The checker: what was acknowledged, against what ran and what the store says of it.

In the manner of Jepsen: every call is invoked, and ends as acknowledged, refused or
unknown. The attempts write a diary of their own (`served.py`), and the campaign writes
down whom it killed and when. `judge` puts the three side by side:

- lost: acknowledged, but not finished;
- overlaps: an attempt began while another of the same job still gave signs of life;
- unexplained: an attempt that ran again although nothing that we did ended the one
  before, or that still ran after a kill of its process.

A store whose level of acknowledgement says that it may forget what came shortly before
a crash is judged without that: `forgotten` are the spans of time.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Attempt:
    """One run of a function, as it wrote it down itself. Times are nanoseconds."""

    job: str
    pid: int
    began: int
    last_sign: int
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal that ended `victim` and, where that was a supervisor, its executors."""

    at: int
    victim: int
    doomed: frozenset[int]


@dataclass(slots=True)
class Calls:
    """How the calls of `enqueue` ended, by job; of acknowledged ones, when."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the histories say together."""

    acknowledged: int
    ran: int
    kills: int
    hits: int  # kills that ended running jobs
    repeated: int  # jobs whose function began more than once
    lost: list[str]
    overlaps: list[str]
    unexplained: list[str]
    recoveries: list[float]  # seconds from a kill until the job ran again

    @property
    def is_valid(self) -> bool:
        return not (self.lost or self.overlaps or self.unexplained)

    def __str__(self) -> str:
        p50, p99, worst = (percentile(self.recoveries, it) for it in (50, 99, 100))
        return (
            f"jobs={self.acknowledged} kills={self.kills} hits={self.hits} "
            f"repeated={self.repeated} lost={len(self.lost)} overlaps={len(self.overlaps)} "
            f"unexplained={len(self.unexplained)} "
            f"recovery p50={p50:.2f} s p99={p99:.2f} s max={worst:.2f} s"
        )


def read_diary(path: Path) -> dict[str, list[Attempt]]:
    """Return the attempts of each job in the order in which they began."""
    found: dict[tuple[str, str, str], Attempt] = {}
    whole, _, _ = path.read_text().rpartition("\n")  # the last line may be half there as yet
    for line in whole.splitlines():
        what, job, pid, began, at = line.split()
        if what == "start":
            found[job, pid, began] = Attempt(job, int(pid), int(began), int(at))
        else:
            attempt = found[job, pid, began]
            attempt.last_sign = max(attempt.last_sign, int(at))
            attempt.has_ended = attempt.has_ended or what == "end"
    by_job: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in found.values():
        by_job[attempt.job].append(attempt)
    for attempts in by_job.values():
        attempts.sort(key=lambda attempt: attempt.began)
    return by_job


def judge(
    calls: Calls,
    finished: set[str],
    diary: Mapping[str, Sequence[Attempt]],
    kills: Sequence[Kill],
    forgotten: Sequence[tuple[int, int]] = (),
) -> Verdict:
    """Compare the histories; `finished` is who the store says has succeeded."""

    def is_forgotten(*moments: int) -> bool:
        return any(first <= at <= last for at in moments for first, last in forgotten)

    lost = [
        f"{job}: {'never ran' if job not in diary else 'ran, but the store has not settled it'}"
        for job, at in calls.acknowledged.items()
        if job not in finished or not any(it.has_ended for it in diary.get(job, ()))
        if not is_forgotten(at)
    ]
    lost += [f"{job}: refused, but it ran" for job in calls.refused & diary.keys()]
    overlaps: list[str] = []
    unexplained: list[str] = []
    recoveries: list[float] = []
    for attempts in diary.values():
        for first, second in itertools.pairwise(attempts):
            if is_forgotten(first.began, first.last_sign):
                continue
            if second.began < first.last_sign:
                overlaps.append(f"{second} began while {first} was alive")
            kill = _kill_between(first, second, kills)
            if kill is None:
                unexplained.append(f"{second} follows {first}, which nothing had ended")
            elif not first.has_ended:
                recoveries.append((second.began - kill.at) / 1e9)
    return Verdict(
        acknowledged=len(calls.acknowledged),
        ran=len(diary),
        kills=len(kills),
        hits=count_hits(diary, kills),
        repeated=sum(len(attempts) > 1 for attempts in diary.values()),
        lost=lost,
        overlaps=overlaps,
        unexplained=unexplained,
        recoveries=recoveries,
    )


def count_hits(diary: Mapping[str, Sequence[Attempt]], kills: Sequence[Kill]) -> int:
    """Return how many kills ended running jobs."""
    return sum(_has_hit(kill, diary) for kill in kills)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, int(-(-len(ordered) * percent // 100)) - 1)] if ordered else 0.0


def _kill_between(first: Attempt, second: Attempt, kills: Sequence[Kill]) -> Kill | None:
    """Return the kill of the first attempt's process that came before the second began."""
    return next((it for it in kills if first.pid in it.doomed and it.at <= second.began), None)


def _has_hit(kill: Kill, diary: Mapping[str, Sequence[Attempt]]) -> bool:
    return any(
        attempt.pid in kill.doomed and attempt.began <= kill.at and not attempt.has_ended
        for attempts in diary.values()
        for attempt in attempts
    )
