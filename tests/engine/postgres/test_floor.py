"""Floors: where a process goes on claiming, and when it looks from the beginning."""

from __future__ import annotations

import time

import pytest

from backlane.engine.postgres.lease.floor import FROM_BEGINNING, LOWEST, Floors


@pytest.fixture
def floors() -> Floors:
    """Known of one queue: a job of rank 4 was the last one taken."""
    made = Floors()
    made.keep_queues([7], ["mail"])
    made.keep((7, 0), 4, 1_000, 12)
    made.looked(50)
    return made


def test_a_claim_goes_on_behind_the_last_job_of_each_rank(floors: Floors) -> None:
    start = floors.start(["mail"])

    assert (start.queues, start.lanes) == ([7], [0])
    assert start.places == [LOWEST] * 4 + [1_000] + [LOWEST] * 5
    assert start.seqs == [LOWEST] * 4 + [12] + [LOWEST] * 5


def test_other_queues_begin_at_the_beginning(floors: Floors) -> None:
    assert floors.start(["video"]).queues == []


def test_four_times_a_second_all_begin_there(
    floors: Floors, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.3)

    assert floors.start(["mail"]) is FROM_BEGINNING


@pytest.mark.parametrize(("took_us", "may_look"), [(1_000, True), (100_000, False)])
def test_a_look_that_takes_long_is_not_made_in_between(
    floors: Floors, took_us: int, may_look: bool
) -> None:
    floors.looked(took_us)

    assert floors.start(["mail"]).may_look is may_look


def test_a_look_that_takes_long_is_made_less_often(
    floors: Floors, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    floors.looked(100_000)  # a twentieth of two seconds
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)

    assert floors.start(["mail"]).queues == [7]


def test_what_went_back_to_its_place_is_looked_for(floors: Floors) -> None:
    floors.forget()

    assert floors.start(["mail"]) is FROM_BEGINNING
