"""The machine was started anew: its clock counts from zero, and every worker is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock
from backlane.model.limit import Limit, Rate, Use


def started(path: Path, boot: str, clock: FakeClock) -> Desk:
    return Desk(SqliteEngine(path, clock=clock, boot_id=lambda: boot), clock)


def test_after_a_reboot_leases_have_lapsed_and_jobs_run_again_at_once(path, clock):
    before = started(path, "first", clock)
    job = before.add_one()
    lease = before.lease()
    before.engine.close()

    after = started(path, "second", FakeClock(datetime(2030, 1, 1, 0, 1, tzinfo=UTC)))
    again = after.lease()

    assert (again.job, again.attempt) == (job, 1)
    assert again.token > lease.token
    assert after.settle(lease, SUCCEEDED).lost == [job]
    after.engine.close()


def test_opening_the_store_again_in_the_same_boot_keeps_leases(path, clock):
    before = started(path, "first", clock)
    before.add_one()
    before.lease()
    before.engine.close()

    after = started(path, "first", clock)

    assert after.claim().leases == []
    after.engine.close()


def test_after_a_reboot_places_are_free_and_tokens_are_looked_at_anew(path, clock):
    clock.advance(days=30)
    before = started(path, "first", clock)
    before.limits = {"stripe": Limit(concurrency=1), "slow": Limit(rate=Rate(1, 60_000))}
    before.run(before.engine.acquire(Use("stripe"), Limit(concurrency=1), b"me", 3_600_000))
    first = before.add_one(uses=(Use("slow"),))
    jobs = [before.add_one(uses=(use,)) for use in (Use("slow"), Use("stripe"))]
    assert before.claimed_ids() == [first]
    before.engine.close()

    after = started(path, "second", FakeClock(datetime(2030, 1, 31, 0, 2, tzinfo=UTC)))
    leased = after.claimed_ids()

    assert set(leased) == {first, jobs[1]}  # the token went to who was the first in line
    after.end(*leased)
    after.clock.advance(minutes=1)
    assert after.claimed_ids() == [jobs[0]]
    after.engine.close()
