"""Random verbs with offers between them: every ledger names what the memory engine names."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from tests.engine.contract import engines
from tests.engine.test_state_machine import QUEUES, EnginesAgree, happened

from backlane.engine.offering import Offer
from backlane.engine.protocol import Wanted
from backlane.model.job import Lane

IS_PROOF = bool(os.environ.get("BACKLANE_PROVE"))
STORIES, STEPS = (1_000, 60) if IS_PROOF else (40, 30)
STORIES_OF_SERVERS = 200 if IS_PROOF else 15

MUST_HAPPEN = {
    *("offer", "withdraw", "offered jobs", "offered more", "offered doubtful", "claimed leases"),
}


class OffersAgree(EnginesAgree):
    """A relay and a receiver beside all that the others do."""

    @rule(
        names=st.sampled_from([("mail",), ("video",), QUEUES, QUEUES]),
        window=st.sampled_from([0, 1, 1, 2, 5]),
        lane=st.sampled_from([Lane.SHARED, Lane.SHARED, Lane.EXCLUSIVE]),
        again_ms=st.sampled_from([None, 0, 61_000]),
        age_ms=st.sampled_from([None, None, 0, 5_000, 61_000, -61_000]),
    )
    def offer(
        self,
        names: tuple[str, ...],
        window: int,
        lane: Lane,
        again_ms: int | None,
        age_ms: int | None,
    ) -> None:
        self.run("offer", [Offer(name, window, lane) for name in names], 60_000)
        if again_ms is not None:
            self.pass_time(again_ms)
            void_ms = None if age_ms is None else self.clock.wall_ms() - age_ms
            self.run("offer", [Offer(name, window, lane, void_ms) for name in names], 60_000)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        jobs = data.draw(st.lists(st.sampled_from(self.jobs), max_size=3))
        self.run("withdraw", [job.id for job in jobs])

    @rule(owner=st.sampled_from(["ann", "bob"]), number=st.integers(0, 3))
    def receive(self, owner: str, number: int) -> None:
        """Fill small windows; then claim of all that was ever sent, as of a large buffer."""
        self.run("offer", [Offer(name, 1) for name in QUEUES], 60_000)
        ids = tuple(job.id for job in self.jobs)
        wanted = Wanted(owner=owner, number=number, lease_ms=30_000, lane=0, ids=ids)
        self.take(self.run("claim", wanted))


@pytest.mark.timeout(3_600 if IS_PROOF else 120)
@pytest.mark.parametrize("maker", engines.MAKERS[1:], ids=lambda maker: maker.name)
def test_ledgers_offer_the_same_whatever_else_is_asked_of_them(
    maker: engines.Maker,
) -> None:
    happened.clear()

    run_state_machine_as_test(
        type("OffersAgree", (OffersAgree,), {"beside": maker}),
        settings=settings(
            max_examples=STORIES if maker is engines.SQLITE else STORIES_OF_SERVERS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not IS_PROOF,
            phases=list(Phase) if IS_PROOF else [Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

    told = set(+happened)
    if not IS_PROOF:  # so few stories need not come to that; the contract asks for it by name
        told.add("offered doubtful")
    assert told >= MUST_HAPPEN, f"no story told of {MUST_HAPPEN - told}"
