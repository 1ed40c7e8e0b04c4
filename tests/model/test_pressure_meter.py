"""Meter: what samples of a queue tell of its speed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.pressure.meter import (
    KNOWN_STARTS,
    LEAST_KAPPA,
    LONGEST_GAP_MS,
    MOST_KAPPA,
    Meter,
)
from backlane.model.pressure.rate import Rate
from backlane.model.queue import Bounds, LineSample, QueueSample

SECOND = 1_000
counts = st.integers(0, 10**6)
gaps = st.integers(1, LONGEST_GAP_MS)


def sample(*lines: LineSample, **fields: object) -> QueueSample:
    return QueueSample(**{"name": "mail", "bounds": Bounds(), "lines": lines, **fields})


def standing(started: int, appended: int = 0, **fields: object) -> QueueSample:
    """A queue in which a line stands: 500 ready, the next of them due for 5 s."""
    line = LineSample(5, ready=500, appended=appended, started=started)
    return sample(line, **{"oldest_ready_ms": 5_000, **fields})


def idle(started: int, **fields: object) -> QueueSample:
    return sample(LineSample(5, started=started, appended=started), **fields)


def metered(samples: Sequence[QueueSample], every_ms: int = SECOND) -> Meter:
    meter = Meter()
    for number, each in enumerate(samples):
        meter.took(each, number * every_ms)
    return meter


# -- rates --


@given(st.lists(st.tuples(counts, st.floats(0.001, 300)), min_size=1, max_size=30))
def test_a_rate_is_between_the_least_and_the_most_observed(
    observed: list[tuple[int, float]],
) -> None:
    rate = Rate(10)
    for events, seconds in observed:
        rate.fold(events, seconds)

    rates = [events / seconds for events, seconds in observed]
    assert rate.per_second is not None
    assert min(rates) * (1 - 1e-9) <= rate.per_second <= max(rates) * (1 + 1e-9)


@given(st.integers(1, 1_000), st.lists(st.floats(0.01, 10), min_size=1, max_size=50))
def test_how_often_a_steady_rate_is_looked_at_does_not_change_it(
    speed: int, intervals: list[float]
) -> None:
    rate = Rate(10)
    for seconds in intervals:
        rate.fold(speed * seconds, seconds)

    assert rate.per_second == pytest.approx(speed)


def test_a_rate_forgets_what_is_several_tau_ago() -> None:
    rate = Rate(10)
    rate.fold(1_000, 10)
    for _ in range(50):
        rate.fold(10, 1)

    assert rate.per_second == pytest.approx(10, rel=0.1)


# -- what is known --


def test_nothing_is_foretold_without_knowledge() -> None:
    assert Meter().pace() is None
    assert metered([idle(0)]).pace() is None
    assert metered([idle(0, slots=8), idle(5, slots=8)]).expected_ms(5) is None


def test_one_sample_with_slots_and_a_run_time_is_enough() -> None:
    meter = metered([idle(10, slots=20, ended=10, ran_ms=200)])

    assert meter.service_ms == 20
    assert meter.mu == pytest.approx(1_000)


def test_a_standing_line_tells_its_rate() -> None:
    meter = metered([standing(100 * second) for second in range(5)])

    assert meter.mu == pytest.approx(100)
    assert meter.expected_ms(5) == pytest.approx(5_010, abs=1)


def test_too_few_starts_are_not_believed() -> None:
    few = KNOWN_STARTS - 1

    assert metered([standing(0), standing(few)]).mu is None
    assert metered([standing(0), standing(few + 1)]).mu == few + 1


def test_what_was_started_tells_more_than_the_slots() -> None:
    """The slots of a worker are shared by its queues, and its claims take time too."""
    meter = metered([standing(80 * n, slots=20, ended=80 * n, ran_ms=800 * n) for n in range(9)])

    assert meter.mu == pytest.approx(80)


@given(st.lists(st.tuples(st.integers(0, 9), gaps), min_size=1, max_size=20))
def test_idle_time_does_not_lower_the_capacity(quiet: list[tuple[int, int]]) -> None:
    meter = metered([standing(100 * second) for second in range(5)])
    known, now, started = meter.mu, 4 * SECOND, 400

    for few, gap in quiet:
        now, started = now + gap, started + few
        meter.took(idle(started, slots=4), now)

    assert known is not None
    assert meter.mu is not None
    assert meter.mu >= known


def test_a_quick_idle_queue_shows_what_it_can_at_least() -> None:
    slow = [standing(10 * second, slots=4) for second in range(5)]
    meter = metered([*slow, idle(1_000, slots=4), idle(9_000, slots=4)])

    assert meter.mu is not None
    assert meter.mu > 100


@given(st.booleans(), st.lists(st.integers(0, 50), min_size=3, max_size=20))
def test_a_claim_under_way_is_no_line(is_slow: bool, jobs: list[int]) -> None:
    """One job is always ready for the milliseconds until it is claimed."""
    started, samples = 0, []
    for number in jobs:
        started += number
        line = LineSample(5, ready=1, started=started, appended=started + 1)
        samples.append(sample(line, oldest_ready_ms=90 if is_slow else 2))

    assert metered(samples).mu is None


def test_nobody_working_says_nothing_of_the_capacity() -> None:
    known = [standing(100 * second, slots=8) for second in range(5)]

    gone = metered([*known, *(standing(400, slots=0) for _ in range(60))])
    paused = metered([*known, *(standing(400, slots=8, is_paused=True) for _ in range(60))])

    assert gone.mu == paused.mu == pytest.approx(100)
    assert gone.pace() is not None
    assert paused.pace() is None


def test_a_line_that_stops_is_seen_within_seconds() -> None:
    known = [standing(100 * second) for second in range(60)]

    meter = metered([*known, *(standing(5_900) for _ in range(20))])

    assert meter.mu is not None
    assert meter.mu < 20


def test_jobs_of_a_minute_start_in_bursts_and_keep_their_rate() -> None:
    """Four slots of 60 s take four jobs a minute, all in one of sixty samples."""
    samples = [
        standing(
            4 * (second // 60), slots=4, ended=4 * (second // 60), ran_ms=240_000 * (second // 60)
        )
        for second in range(1_200)
    ]

    assert metered(samples).mu == pytest.approx(4 / 60, rel=0.35)


# -- priorities --


@given(st.integers(0, 8), st.integers(0, 500), st.integers(1, 400))
def test_more_urgent_arrivals_lengthen_the_waits(priority: int, few: int, more: int) -> None:
    def expected(urgent: int) -> int:
        samples = [
            sample(
                LineSample(priority, ready=100, started=500 * n, appended=500 * n),
                LineSample(9, appended=urgent * n),
                oldest_ready_ms=5_000,
            )
            for n in range(10)
        ]
        found = metered(samples).expected_ms(priority)
        assert found is not None
        return found

    assert expected(few) <= expected(few + more)


@given(st.lists(st.integers(0, 300), min_size=10, max_size=10))
def test_the_less_urgent_wait_no_shorter(waiting: list[int]) -> None:
    def at(n: int) -> QueueSample:
        lines = [
            LineSample(p, ready=r, started=50 * n, appended=50 * n) for p, r in enumerate(waiting)
        ]
        return sample(*lines, oldest_ready_ms=5_000)

    meter = metered([at(n) for n in range(10)])

    waits = [meter.expected_ms(priority) for priority in range(10)]
    assert all(low >= high for low, high in pairwise(waits) if low is not None and high is not None)


# -- calibration --


@given(
    st.lists(
        st.tuples(st.integers(0, 10**4), st.integers(0, 10**9), st.integers(0, 10**9), gaps),
        min_size=1,
        max_size=30,
    )
)
def test_the_calibration_is_clamped(told: list[tuple[int, int, int, int]]) -> None:
    meter, now, jobs, foretold, waited = Meter(), 0, 0, 0, 0
    meter.took(idle(0), now)
    for more, promised, came, gap in told:
        now, jobs = now + gap, jobs + more
        foretold, waited = foretold + promised * bool(more), waited + came * bool(more)
        meter.took(idle(0, foretold=jobs, foretold_ms=foretold, waited_ms=waited), now)
        assert LEAST_KAPPA <= meter.calibration <= MOST_KAPPA


def test_promises_that_were_too_short_become_longer() -> None:
    samples = [
        standing(100 * n, foretold=100 * n, foretold_ms=200_000 * n, waited_ms=400_000 * n)
        for n in range(30)
    ]
    meter = metered(samples)

    assert meter.calibration > 1.3
    assert meter.mu == pytest.approx(100)
    assert meter.expected_ms(5) == pytest.approx(5_010 * meter.calibration, rel=0.01)


def test_the_milliseconds_of_a_claim_are_no_broken_promise() -> None:
    samples = [
        idle(100 * n, foretold=100 * n, foretold_ms=0, waited_ms=1_000 * n) for n in range(120)
    ]

    assert metered(samples).calibration < 1.2


def test_a_calibration_that_is_fed_back_settles_without_swinging() -> None:
    """A promise is judged a wait after it was made: 5 s here, and truth is 1.5 of the rates."""
    meter, seen, promises, truth = Meter(), [], [5_000.0] * 5, 1.5
    foretold = waited = 0.0
    for second in range(300):
        counted = 100 * second
        meter.took(
            standing(counted, foretold=counted, foretold_ms=int(foretold), waited_ms=int(waited)),
            second * SECOND,
        )
        promises.append(5_000 * meter.calibration)
        foretold, waited = foretold + 100 * promises.pop(0), waited + 100 * 5_000 * truth
        seen.append(meter.calibration)

    assert max(seen) < truth * 1.05
    assert seen[-1] == pytest.approx(truth, rel=0.05)


# -- bad days --


def test_a_counter_that_goes_backwards_starts_anew() -> None:
    meter = metered([standing(100 * second) for second in range(5)])

    meter.took(standing(0), 5 * SECOND)

    assert meter.pace() is None
    assert meter.arrivals is None


def test_a_priority_that_is_gone_starts_anew() -> None:
    meter = metered([standing(100 * second) for second in range(5)])

    meter.took(sample(), 5 * SECOND)

    assert meter.mu is None


@given(st.integers(0, 10**12))
def test_a_clock_set_back_changes_no_rate(back: int) -> None:
    meter = Meter()
    for second in range(5):
        meter.took(standing(100 * second), 10**12 + second * SECOND)
    known = meter.mu

    meter.took(standing(500), 10**12 + 4 * SECOND - back)

    assert meter.mu == known
    assert meter.sample == standing(500)


def test_samples_far_apart_tell_nothing_of_the_present() -> None:
    meter = Meter()
    meter.took(standing(0), 0)
    meter.took(standing(10**6), LONGEST_GAP_MS + 1)

    assert meter.mu is None


# -- pressure --


@given(st.integers(1, 10**5), st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**6))
def test_the_pressure_is_of_the_fullest_bound(
    max_jobs: int, max_bytes: int, held: int, scheduled: int
) -> None:
    meter = metered([sample(scheduled=scheduled, bytes=held)])

    found = meter.pressure(Bounds(max_jobs, max_bytes))

    assert found == min(1.0, max(scheduled / max_jobs, held / max_bytes))


def test_a_long_wait_is_pressure() -> None:
    meter = metered([standing(100 * second) for second in range(5)])

    assert meter.pressure(Bounds(max_wait_ms=10_020)) == pytest.approx(0.5)
    assert meter.pressure(Bounds(max_wait_ms=1_000)) == 1.0
    assert meter.pressure(Bounds(max_wait_ms=None)) == pytest.approx(0.005)
