"""Breakers under test: a resource that fails lets its jobs wait, and time heals it."""

from __future__ import annotations

import pytest

from backlane import Backlane, Retry, State, events
from backlane.testing import testing


@pytest.fixture
def heard(app: Backlane) -> list[str]:
    states: list[str] = []

    @app.observe
    def observe(event: events.Event) -> None:
        if isinstance(event, events.ResourceChanged):
            states.append(event.state)

    return states


def test_jobs_wait_for_their_resource_and_run_once_it_is_well(app: Backlane, heard: list[str]):
    is_down = [True]

    @app.task(name="charge", resource="stripe", retry=Retry(base=1, cap=1))
    def charge(order: int) -> int:
        if is_down[0]:
            raise ConnectionError
        return order

    with testing(app) as t:
        jobs = [charge.enqueue(order) for order in range(30)]
        assert len(t.drain()) == 10  # the eleventh waits
        assert app.resource("stripe").record().state == "open"
        assert t.advance(seconds=20) == []

        is_down[0] = False
        t.advance(seconds=20)

        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert [job.attempts for job in jobs[10:]] == [1] * 20
    assert heard == ["open", "trying", "closed"]
