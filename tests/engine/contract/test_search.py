"""find and amend: jobs by tag, workflow and time, alone and with all else that is known."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.contract.carrying import move
from tests.engine.contract.desk import FAILED, Desk

from backlane.engine.memory import MemoryEngine
from backlane.engine.selection import Cancel, Delete, Redrive
from backlane.model.clock import FakeClock
from backlane.model.job import FINAL, Job, Key, State
from backlane.model.outcome import ErrorRecord, Failed, Reason


def flow(desk: Desk) -> bytes:
    return desk.new_id()


# -- tags --


def test_jobs_are_found_by_each_of_their_tags(desk: Desk) -> None:
    both = desk.add_one(tags=("billing", "nightly"))
    one = desk.add_one(tags=("billing",))
    desk.add()

    assert desk.found_ids(tag="billing") == [one, both]
    assert desk.found_ids(tag="nightly") == [both]
    assert desk.found_ids(tag="night") == []


def test_a_record_tells_its_tags_in_their_order(desk: Desk) -> None:
    tags = ("b", "a", "Ä %_'\\", "x" * 100)
    job = desk.add_one(tags=tags)

    assert desk.record(job).tags == tags
    assert desk.find(tag="a").records[0].tags == tags
    assert desk.found_ids(tag=tags[2]) == desk.found_ids(tag=tags[3]) == [job]


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY, State.RUNNING, *sorted(FINAL)])
def test_jobs_are_found_by_tag_and_workflow_in_every_state(desk: Desk, state: State) -> None:
    workflow = flow(desk)
    desk.add()
    job = desk.in_state(state, tags=("billing",), workflow=workflow)

    assert desk.found_ids(tag="billing") == desk.found_ids(workflow=workflow) == [job]
    assert desk.found_ids(tag="billing", states=(state,)) == [job]


@pytest.mark.parametrize("gone", ["deleted", "pruned"])
def test_what_is_forgotten_is_found_no_more(desk: Desk, gone: str) -> None:
    workflow = flow(desk)
    job = desk.finished(tags=("billing",), workflow=workflow)
    if gone == "deleted":
        desk.amend(Delete(), job)
    else:
        desk.clock.advance(days=2)
        desk.sweep()

    assert desk.found_ids(tag="billing") == desk.found_ids(workflow=workflow) == []


def test_tags_of_a_duplicate_are_not_added(desk: Desk) -> None:
    key = Key("send", "7")
    desk.add_one(key=key, tags=("first",))
    desk.append(desk.job(key=key, tags=("second",)))

    assert desk.found_ids(tag="second") == []


# -- workflows --


def test_jobs_are_found_by_their_workflow(desk: Desk) -> None:
    mine, yours = flow(desk), flow(desk)
    jobs = [desk.add_one(workflow=mine), desk.add_one("video", workflow=mine)]
    desk.add_one(workflow=yours)
    desk.add()

    assert desk.found_ids(workflow=mine) == jobs[::-1]
    assert desk.found_ids(workflow=flow(desk)) == []
    assert desk.record(jobs[0]).workflow == mine


# -- time --


def test_jobs_are_found_by_when_they_were_enqueued(desk: Desk) -> None:
    jobs, times = [], []
    for _ in range(3):
        jobs.append(desk.add_one(delay_ms=90_000))
        times.append(desk.clock.wall_ms())
        desk.clock.advance(seconds=10)

    assert desk.found_ids(since_ms=times[1]) == [jobs[2], jobs[1]]
    assert desk.found_ids(since_ms=times[1] + 1) == [jobs[2]]
    assert desk.found_ids(before_ms=times[1]) == [jobs[0]]
    assert desk.found_ids(before_ms=times[1] + 1) == [jobs[1], jobs[0]]
    assert desk.found_ids(since_ms=times[1], before_ms=times[2]) == [jobs[1]]
    assert desk.found_ids(since_ms=times[2] + 1) == desk.found_ids(before_ms=times[0]) == []
    assert desk.found_ids(since_ms=0, before_ms=2**53) == jobs[::-1]


def test_the_time_of_an_append_is_the_stores_and_not_the_ids(desk: Desk) -> None:
    early = desk.job()
    desk.clock.advance(hours=1)
    desk.append(early)

    assert desk.found_ids(since_ms=desk.clock.wall_ms()) == [early.id]


def test_a_clock_that_was_set_back_hides_nothing(desk: Desk) -> None:
    """Jobs are read by the order of their append, which time need not follow."""
    first = desk.add_one()
    first_ms = desk.clock.wall_ms()
    desk.clock.jump(hours=-1)
    second = desk.add_one()
    second_ms = desk.clock.wall_ms()
    desk.clock.jump(hours=2)
    third = desk.add_one()

    assert desk.found_ids(since_ms=first_ms) == [third, first]
    assert desk.found_ids(before_ms=first_ms) == [second]
    assert desk.found_ids(since_ms=second_ms, before_ms=first_ms + 1) == [second, first]


# -- all together --


FIELDS: dict[str, Any] = {
    "queue": "video",
    "task": "resize",
    "group": "acme",
    "key": "k",
    "tag": "billing",
    "text": "NO ROUTE",
}


def wanted(desk: Desk, **others: Any) -> Job:
    fields = {
        "queue": "video",
        "task": "resize",
        "group": "acme",
        "key": Key("resize", "k"),
        "tags": ("billing", "nightly"),
    }
    return desk.job(**(fields | others))


def test_all_fields_must_hold_and_each_tells_jobs_apart(desk: Desk) -> None:
    workflow = flow(desk)
    others: list[dict[str, Any]] = [
        {"queue": "mail"},
        {"task": "send", "key": Key("send", "k")},
        {"group": "other"},
        {"key": Key("resize", "other")},
        {"tags": ("nightly",)},
        {"workflow": flow(desk)},
    ]
    jobs = []
    for fields in [{}, *others]:
        job = wanted(desk, **({"workflow": workflow} | fields))
        desk.append(job)
        desk.settle(
            desk.claim(1, ids=(job.id,)).leases[0],
            Failed(Reason.ERROR, ErrorRecord("OSError", "no route to host")),
        )
        jobs.append(job.id)
    selection = FIELDS | {
        "workflow": workflow,
        "states": (State.FAILED,),
        "reasons": (Reason.ERROR,),
        "since_ms": desk.clock.wall_ms(),
        "before_ms": desk.clock.wall_ms() + 1,
    }

    assert desk.found_ids(**selection) == [jobs[0]]
    told_apart = ("queue", "task", "group", "key", "tag", "workflow")
    for left_out, job in zip(told_apart, jobs[1:], strict=True):
        fewer = {name: value for name, value in selection.items() if name != left_out}
        assert desk.found_ids(**fewer) == [job, jobs[0]], left_out
    assert desk.found_ids(**selection, ids=tuple(jobs)) == [jobs[0]]
    assert desk.found_ids(**selection, ids=tuple(jobs[1:])) == []


@pytest.mark.parametrize("field", ["tag", "workflow", "since_ms", "group"])
def test_what_is_found_comes_in_pages(desk: Desk, field: str) -> None:
    workflow = flow(desk)
    old = [desk.add_one() for _ in range(5)]
    desk.clock.advance(seconds=1)
    jobs = []
    for _ in range(11):
        jobs.append(desk.add_one(tags=("billing",), workflow=workflow, group="acme"))
        if field != "since_ms":
            desk.add_one(tags=("other",), workflow=flow(desk), group="other")
    since_ms = desk.clock.wall_ms()
    value = {"tag": "billing", "workflow": workflow, "since_ms": since_ms, "group": "acme"}[field]

    found, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = desk.find(4, cursor, **{field: value})
        found += [record.id for record in page.records]
        assert len(page.records) <= 4
        cursor, pages = page.cursor, pages + 1

    assert found == jobs[::-1]
    assert not set(found) & set(old)


# -- what is changed by them --


def test_jobs_are_changed_by_tag_workflow_and_time(desk: Desk) -> None:
    workflow = flow(desk)
    tagged = desk.add_one(tags=("billing",))
    flowing = desk.finished(FAILED, workflow=workflow)
    desk.clock.advance(seconds=1)
    late = desk.add_one()

    assert desk.amend(Cancel(), tag="billing").changed == [tagged]
    assert desk.amend(Redrive(), workflow=workflow).changed == [flowing]
    assert desk.amend(Delete(), since_ms=desk.clock.wall_ms()).changed == [late]


# -- moving --


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


def test_moved_jobs_are_found_as_before(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    workflow = flow(source)
    enqueued_ms = source.clock.wall_ms()
    waiting = source.add_one(tags=("b", "a"), workflow=workflow)
    ended = source.finished(FAILED, tags=("b",), workflow=workflow)
    source.clock.advance(hours=1)

    move(pair, final=tuple(FINAL))

    assert target.found_ids(tag="b") == target.found_ids(workflow=workflow) == [ended, waiting]
    assert target.found_ids(tag="a") == [waiting]
    assert target.found_ids(before_ms=enqueued_ms + 1) == [ended, waiting]
    assert target.record(waiting).tags == ("b", "a")
