"""The simulated storms: seeded, and what is promised of them holds on a small scale too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.storm.policy import FULL, TICKETS, Policy
from bench.storm.world import Scene, Story, World

from backlane.model.queue import Bounds

# A tenth of the crowd, and a tenth of the overload, of the benchmark itself.
CROWD = Scene(
    bounds=Bounds(max_jobs=200),
    slots=10,
    service_ms=100,
    seconds=60,
    load=((60, 80),),
    crowd=500,
)
OVERLOAD = Scene(
    bounds=Bounds(max_wait_ms=5_000),
    slots=10,
    service_ms=100,
    seconds=60,
    load=((30, 300), (60, 80)),
)


def storm(scene: Scene, policy: Policy = TICKETS, seed: int = 1) -> Story:
    return World(scene, policy, seed).told()


def test_the_same_seed_tells_the_same_story() -> None:
    assert storm(CROWD) == storm(CROWD)
    assert storm(CROWD).attempts != storm(CROWD, seed=2).attempts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_obeying_callers_are_accepted_at_their_first_return(seed: int) -> None:
    crowd, clients = storm(CROWD, seed=seed), storm(replace(OVERLOAD, clients=50), seed=seed)

    for story in (crowd, clients):
        assert story.returned > 200
        assert story.first_return >= 0.95
        assert story.attempts_per_accepted <= 2
        assert story.idle_ms / 10 <= 100


def test_full_jitter_alone_asks_more_often() -> None:
    assert storm(CROWD, FULL).attempts_per_accepted > storm(CROWD).attempts_per_accepted


@pytest.mark.parametrize("obeys", [0.0, 0.1])
def test_callers_that_do_not_return_leave_no_refusals_behind(obeys: float) -> None:
    story = storm(OVERLOAD, replace(TICKETS, obeys=obeys))

    assert story.refused_between(20, 30) > 1_000
    assert story.refused_between(35, 60) == 0


def test_no_bound_is_passed() -> None:
    assert storm(CROWD).deepest <= 200
    assert storm(OVERLOAD).waited_ms(99) <= 1.3 * 5_000


@pytest.mark.parametrize(
    "load", [((30, 95), (60, 95)), ((30, 300), (60, 90)), ((30, 50), (60, 300))]
)
def test_jobs_wait_as_long_as_they_were_told(load: tuple[tuple[float, float], ...]) -> None:
    story = storm(replace(OVERLOAD, load=load), replace(TICKETS, obeys=0.0))

    assert story.missed(50) <= 0.2
    assert story.missed(90) <= 0.5
