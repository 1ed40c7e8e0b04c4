"""How many jobs to hold ahead, and when a turn is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backlane.model.job import Lane
from backlane.worker.pacing import AHEAD_MOST, CLAIM_MOST, LINGER_SECONDS, Pacing
from backlane.worker.wants import Wants


def paced(rate: float, ran_ms: int, seconds: float = 1.0) -> Pacing:
    """Return what is learned of `rate` jobs a second that run `ran_ms` each."""
    pacing = Pacing(lease_ms=30_000)
    for step in range(int(seconds * 50)):
        number = max(1, int(rate / 50))
        pacing.ended(number, number * ran_ms, 100 + step / 50)
    return pacing


def test_an_idle_worker_never_waits_to_settle():
    pacing = Pacing(lease_ms=30_000)

    assert pacing.due(waiting=1, unfinished=0, first=5.0) == 5.0


def test_a_busy_worker_waits_for_a_batch_at_most_five_milliseconds():
    pacing = paced(rate=50_000, ran_ms=0)

    assert pacing.due(waiting=1, unfinished=1_000, first=5.0) == 5.0 + LINGER_SECONDS
    assert pacing.due(waiting=CLAIM_MOST, unfinished=1_000, first=5.0) == 5.0


def test_a_busy_worker_does_not_wait_while_executors_run_dry():
    assert paced(rate=50_000, ran_ms=0).due(waiting=10, unfinished=10, first=5.0) == 5.0


def test_short_jobs_are_held_ahead_and_long_ones_never():
    assert paced(rate=50_000, ran_ms=0).ahead(101.0) > 500
    assert paced(rate=100, ran_ms=500).ahead(101.0) == 0


def test_after_a_pause_nothing_is_held_ahead():
    assert paced(rate=50_000, ran_ms=0).ahead(200.0) == 0


@given(rate=st.floats(50, 1e6), ran_ms=st.integers(0, 100))
def test_no_more_is_held_ahead_than_runs_in_a_tenth_of_a_lease(rate: float, ran_ms: int):
    pacing = paced(rate, ran_ms)

    assert pacing.ahead(101.0) <= min(AHEAD_MOST, rate * 3.0)


names = st.sampled_from("abcdef")


@given(
    limits=st.dictionaries(names, st.none() | st.integers(1, 5), min_size=1),
    free=st.integers(0, 400),
    alone=st.integers(0, 8),
    held=st.dictionaries(names, st.integers(0, 5)),
)
def test_no_slot_and_no_place_of_a_queue_is_promised_twice(
    limits: dict[str, int | None], free: int, alone: int, held: dict[str, int]
):
    wants = Wants("owner", 30_000, limits)

    for _ in range(3):
        wanted = wants.ask({Lane.SHARED: free, Lane.EXCLUSIVE: alone}, held, ())

        for lane, slots in ((Lane.SHARED, free), (Lane.EXCLUSIVE, alone)):
            assert sum(want.number for want in wanted if want.lane == lane) <= slots
        for name, most in limits.items():
            if most is not None:
                asked = sum(want.number for want in wanted if want.queues == (name,))
                assert asked <= max(0, most - held.get(name, 0))


def test_a_single_free_slot_goes_round_the_queues():
    wants = Wants("owner", 30_000, {"a": 1, "b": 1, "c": None})

    asked = [wants.ask({Lane.SHARED: 1}, {}, ())[0].queues for _ in range(3)]

    assert sorted(asked) == [("a",), ("b",), ("c",)]


def test_with_no_free_slot_it_still_asks_for_cancelled_jobs():
    wants = Wants("owner", 30_000, {"a": None})

    wanted = wants.ask({Lane.SHARED: 0, Lane.EXCLUSIVE: 0}, {}, ())

    assert [want.number for want in wanted] == [0]
