"""Verbs over jobs that wait for each other, schedules and steps, stopped after each call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.contract.carrying import dumped
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, settlement
from tests.engine.sqlite.test_interrupted_plans import stop_everywhere

from backlane.engine.memory import MemoryEngine
from backlane.engine.moving import Part, Seal, Settings
from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission
from backlane.engine.recalling import Latest
from backlane.engine.retention import Retention
from backlane.engine.scheduling import Pause, Put, Remove, ScheduleRecord, Tick
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Selection
from backlane.model.job import Edge, Key, KeyRule, Note, Policy, Step, When
from backlane.model.outcome import Awaiting, Succeeded

KEEPS = Policy(keep_ms=1_000, keeps_latest=True)
REPLACE = KeyRule(conflict="replace")


def graph(desk: Desk) -> list[bytes]:
    """A root, two jobs that wait for it in different ways, and one that waits for these."""
    root = desk.add_one(policy=KEEPS, tags=("root",))
    left = desk.add_one(after=(Edge(root),), key=Key("send", "left"), workflow=b"w" * 16)
    right = desk.add_one(after=(Edge(root, When.FAILED),), group="acme", delay_ms=5_000)
    last = desk.add_one("video", after=(Edge(left), Edge(right, When.ENDED)), expires_ms=60_000)
    return [root, left, right, last]


def append(desk: Desk) -> Plan:
    failed = desk.finished(FAILED)
    held = desk.add_one(key=Key("send", "held"))
    vain = desk.job(after=(Edge(failed), Edge(held)), tags=("red",), policy=KEEPS)
    jobs = [vain, desk.job(after=(Edge(vain.id),)), desk.job(after=(Edge(held),))]
    jobs += [desk.job(key=Key("send", "held"), rule=REPLACE, body=b"new", delay_ms=9_000)]
    return desk.engine.append(jobs, Admission())


def settle(*outcomes: Any) -> Callable[[Desk], Plan]:
    def make(desk: Desk) -> Plan:
        jobs = graph(desk)
        others = desk.add(len(outcomes) - 1)
        leases = {lease.job: lease for lease in desk.claim(ids=(jobs[0], *others)).leases}
        pairs = zip((jobs[0], *others), outcomes, strict=True)
        return desk.engine.settle([settlement(leases[job], outcome) for job, outcome in pairs])

    return make


def await_jobs(desk: Desk) -> Plan:
    done, running, waiting = desk.finished(), desk.add_one(), desk.add_one()
    lease = desk.lease(ids=(running,))
    return desk.engine.settle([settlement(lease, Awaiting((done, waiting)))])


def amend(change: Any) -> Callable[[Desk], Plan]:
    def make(desk: Desk) -> Plan:
        root, *_ = graph(desk)
        failed = desk.finished(FAILED, policy=KEEPS, tags=("red",))
        desk.add(2, after=(Edge(failed, When.ENDED), Edge(root)))
        if isinstance(change, Redrive):
            desk.amend(Cancel(), root)
        return desk.engine.amend(Selection(), change)

    return make


def sweep(desk: Desk) -> Plan:
    graph(desk)
    desk.finished(policy=KEEPS, tags=("red",), key=Key("send", "w"), rule=KeyRule(window_ms=9))
    declare(desk)
    desk.clock.advance(minutes=10)
    return desk.engine.sweep(100, Retention(done_ms=1, least_ms=0))


def note(desk: Desk) -> Plan:
    desk.add()
    lease = desk.lease()
    return desk.engine.note([Note(lease.job, lease.token, steps=(Step("a", b"1"),))])


def declare(desk: Desk) -> ScheduleRecord:
    record = desk.run(desk.engine.alter_schedule("daily", Put(spec=b"0 3", task="send")))
    assert record is not None
    return record


def alter(change: Any) -> Callable[[Desk], Plan]:
    def make(desk: Desk) -> Plan:
        declare(desk)
        return desk.engine.alter_schedule("daily", change)

    return make


def tick(desk: Desk) -> Plan:
    record = declare(desk)
    one = Tick(
        name="daily",
        revision=record.revision,
        last_ms=record.last_ms + 1,
        next_ms=record.last_ms + 60_000,
        jobs=(desk.job(tags=("tick",)), desk.job()),
    )
    return desk.engine.tick([one], Admission())


def discard(desk: Desk) -> Plan:
    jobs = graph(desk)
    desk.run(desk.engine.seal(Seal("elsewhere")))
    return desk.engine.discard([(job, desk.record(job).revision) for job in jobs[:2]])


def restore(desk: Desk) -> Plan:
    """Jobs arrive of which one is waited for here already, and one waits for one to come."""
    other = Desk(MemoryEngine(desk.clock), desk.clock, first=1_000)
    jobs = graph(other)
    wholes = {whole.record.id: whole for whole in dumped(other)}
    desk.run(desk.engine.restore(Part([wholes[jobs[3]]])))
    other.amend(Cancel(), jobs[2])
    late = {whole.record.id: whole for whole in dumped(other, final=("cancelled",))}
    return desk.engine.restore(Part([wholes[jobs[1]], late[jobs[2]]]))


def restore_settings(desk: Desk) -> Plan:
    newest = {"send": Latest(b"j" * 16, 5, b"1")}
    settings = Settings(schedules=[declare(desk)], latest=newest, secret=b"s")
    desk.run(desk.engine.alter_schedule("daily", Remove()))
    return desk.engine.restore_settings(settings)


MAKERS: dict[str, Callable[[Desk], Plan]] = {
    "append": append,
    "settle a success": settle(Succeeded(b"1"), FAILED),
    "settle a failure": settle(FAILED, SUCCEEDED),
    "await": await_jobs,
    "cancel": amend(Cancel()),
    "delete": amend(Delete()),
    "redrive": amend(Redrive()),
    "move": amend(Move("other")),
    "sweep": sweep,
    "note": note,
    "put": lambda desk: desk.engine.alter_schedule("new", Put(spec=b"0 3", task="send")),
    "put again": alter(Put(spec=b"0 4", task="send")),
    "pause": alter(Pause()),
    "remove": alter(Remove()),
    "tick": tick,
    "discard": discard,
    "restore": restore,
    "restore settings": restore_settings,
}


@pytest.mark.parametrize("verb", MAKERS)
def test_a_plan_stopped_anywhere_leaves_nothing(desk: Desk, path: Path, verb: str):
    desk.add()

    stop_everywhere(path, MAKERS[verb](desk))
