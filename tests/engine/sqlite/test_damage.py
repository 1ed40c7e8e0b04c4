"""Damaged rows: each ends alone, and the jobs around it run."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, retry

from backlane.model.job import Refusal, State
from backlane.model.outcome import Reason
from backlane.model.queue import Bounds


@pytest.fixture
def damage(path: Path):
    def carry_out(script: str, *parameters: object) -> None:
        apsw.Connection(str(path)).execute(script, parameters)

    return carry_out


@pytest.mark.parametrize(
    "change",
    [
        "policy = x'00'",
        "policy = cast('[1' as blob)",
        "policy = cast('[\"many\"]' as blob)",
        "task = cast(x'ff' as text)",
        "group_name = cast(x'c328' as text)",
        "key_name = cast(x'ff' as text)",
    ],
)
def test_a_row_that_cannot_be_read_is_buried_and_the_rest_runs(desk: Desk, damage, change: str):
    first, bad, last = desk.add(3)
    damage(f"update backlane_job set {change} where id = ?", bad)

    claimed = desk.claimed_ids()

    assert claimed == [first, last]
    record = desk.record(bad)
    assert (record.state, record.reason) == (State.FAILED, Reason.UNDECODABLE)
    assert desk.depth().jobs == 2


def test_a_group_whose_name_is_damaged_gives_its_place_back(desk: Desk, damage):
    first, bad = desk.add(2, group="acme")
    damage("update backlane_job set group_name = cast(x'c328' as text) where id = ?", bad)
    assert desk.claimed_ids() == [first]
    bounds = Bounds(max_jobs=10, group_share=0.2)

    taken, refused = (desk.append(desk.job(group="acme"), bounds=bounds) for _ in range(2))

    assert isinstance(taken, list)
    assert isinstance(refused, Refusal)


def test_a_row_whose_job_is_gone_stops_no_one(desk: Desk, damage):
    gone, living = desk.add(2)
    damage("delete from backlane_job where id = ?", gone)

    assert desk.claimed_ids() == [living]
    assert desk.claimed_ids() == []


def test_a_policy_damaged_while_its_job_runs_means_no_more_attempts(desk: Desk, damage):
    job = desk.add_one()
    lease = desk.lease()
    damage("update backlane_job set policy = x'00'")

    desk.settle(lease, retry(1))

    assert desk.record(job).reason is Reason.ATTEMPTS


def test_people_can_still_find_the_jobs_beside_a_damaged_one(desk: Desk, damage):
    good, bad = desk.add(2)
    damage("update backlane_job set task = cast(x'ff' as text) where id = ?", bad)

    assert desk.found_ids() == [good]


def test_text_that_is_no_unicode_is_kept_as_far_as_it_goes(desk: Desk):
    job = desk.add_one()

    desk.settle(desk.lease(), retry(1, "half a pair: \ud800"))

    assert desk.record(job).errors[0].error.message == "half a pair: ?"


def test_a_deleted_counter_is_made_again(desk: Desk, damage):
    desk.add()
    damage("delete from backlane_counter")

    desk.settle(desk.lease(), SUCCEEDED)

    assert desk.queue().succeeded == 1
