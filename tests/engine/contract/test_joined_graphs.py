"""joined: jobs with edges, rules and tags within a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Sequence

from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, firsts
from tests.engine.contract.test_joined import Till, till

from backlane.engine.protocol import Admission
from backlane.model.job import Edge, Job, Key, KeyRule, Policy, Receipt, Refusal, State

__all__ = ["till"]

KEY = Key("send", "welcome")
ONCE = KeyRule("started", conflict="raise")
NEWEST = KeyRule("started", conflict="replace")
EVERYTHING = {
    "key": KEY,
    "rule": ONCE,
    "tags": ("red", "blue"),
    "workflow": b"w" * 16,
    "policy": Policy(keep_ms=-1, keeps_latest=True),
    "group": "acme",
}


def append(desk: Desk, till: Till, jobs: Sequence[Job]) -> list[Receipt] | Refusal:
    return desk.engine.joined(till.connection).run(desk.engine.append(jobs, Admission()))


def test_a_graph_is_there_once_the_caller_commits(desk: Desk, till: Till) -> None:
    before = desk.add_one()
    first = desk.job(after=(Edge(before),), **EVERYTHING)
    second = desk.job(after=(Edge(first.id),))
    till.begin()
    answer = append(desk, till, [second, first])
    assert not desk.is_known(first.id)

    till.commit()

    assert firsts(answer) == [(second.id, None), (first.id, None)]
    assert desk.states([first.id, second.id]) == [State.BLOCKED, State.BLOCKED]
    record = desk.record(first.id)
    assert (record.rule, record.tags, record.workflow) == (ONCE, ("red", "blue"), b"w" * 16)
    assert desk.found_ids(tag="red") == desk.found_ids(workflow=b"w" * 16) == [first.id]
    desk.settle(desk.lease(ids=(before,)), SUCCEEDED)
    desk.settle(desk.lease(ids=(first.id,)), SUCCEEDED)
    assert desk.claimed_ids() == [second.id]


def test_nothing_of_a_graph_is_left_when_the_caller_rolls_back(desk: Desk, till: Till) -> None:
    before = desk.add_one()
    first = desk.job(after=(Edge(before),), **EVERYTHING)
    till.begin()
    append(desk, till, [first, desk.job(after=(Edge(first.id),))])
    till.rollback()

    desk.settle(desk.lease(), FAILED)

    assert desk.depth().jobs == 0
    assert desk.found_ids() == [before]
    assert desk.found_ids(tag="red") == []
    again = desk.append(desk.job(**EVERYTHING))
    assert isinstance(again, list)
    assert again[0].is_new


def test_a_key_that_is_held_refuses_a_joined_append_too(desk: Desk, till: Till) -> None:
    holder = desk.add_one(key=KEY)
    till.begin()
    refusal = append(desk, till, [desk.job(), desk.job(key=KEY, rule=ONCE)])
    till.commit()

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.first) == ("key", holder)
    assert desk.found_ids() == [holder]


def test_a_job_is_replaced_when_the_caller_commits(desk: Desk, till: Till) -> None:
    holder = desk.add_one(key=KEY, body=b"old")
    till.begin()
    answer = append(desk, till, [desk.job(key=KEY, rule=NEWEST, body=b"new")])
    assert desk.record(holder).body == b"old"

    till.commit()

    assert isinstance(answer, list)
    assert (answer[0].first, answer[0].replaced) == (holder, True)
    assert desk.record(holder).body == b"new"


def test_a_job_that_waits_in_vain_ends_with_the_callers_commit(desk: Desk, till: Till) -> None:
    failed = desk.finished(FAILED)
    vain = desk.job(after=(Edge(failed),))
    till.begin()
    append(desk, till, [vain])
    till.commit()

    assert desk.state(vain.id) is State.CANCELLED
    assert [kept.error.kind for kept in desk.record(vain.id).errors] == ["Skipped"]
