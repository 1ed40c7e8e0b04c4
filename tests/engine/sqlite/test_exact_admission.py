"""Bounds are exact whoever asks at the same moment: threads, processes, forks, joins."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import Desk, firsts

from backlane.engine.protocol import Admission
from backlane.engine.sqlite import SqliteEngine
from backlane.model.job import Idempotency, Job, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

PACE = Pace((10.0,) * 10, slots=1)
ASKED = Idempotency("ann", "order-7", b"print")


def together(engine: SqliteEngine, batches: list[tuple[list[Job], Admission]]) -> list:
    """Append batches so that all of them are merged into one transaction."""
    engine.migrate()

    async def run() -> list:
        with engine._process.handles().writer._turn:
            plans = [engine.append(jobs, admission) for jobs, admission in batches]
            tasks = [asyncio.create_task(engine.arun(plan)) for plan in plans]
            await asyncio.sleep(0)  # every task has left its plan
        return await asyncio.gather(*tasks)

    return asyncio.run(run())


def by_threads(engine: SqliteEngine, batches: list[tuple[list[Job], Admission]]) -> list:
    """Append batches from ten threads at once."""
    answers: list[list[Receipt] | Refusal] = []

    def send(mine: list[tuple[list[Job], Admission]]) -> None:
        for jobs, admission in mine:
            answers.append(engine.run(engine.append(jobs, admission)))

    threads = [threading.Thread(target=send, args=(batches[i::10],)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def limits(answers: list[list[Receipt] | Refusal]) -> Counter[str]:
    return Counter(
        answer.limit if isinstance(answer, Refusal) else "new" if answer[0].is_new else "first"
        for answer in answers
    )


SENT = [together, by_threads]


@pytest.mark.parametrize("sent", SENT)
def test_a_share_is_never_exceeded(desk: Desk, engine: SqliteEngine, sent):
    admission = Admission({"mail": Bounds(max_jobs=20, group_share=0.25)})
    batches = [([desk.job(group="acme")], admission) for _ in range(60)]

    answers = sent(engine, batches)

    assert limits(answers) == {"new": 5, "group": 55}
    assert desk.depth().jobs == 5


@pytest.mark.parametrize("sent", SENT)
def test_a_wait_is_never_exceeded(desk: Desk, engine: SqliteEngine, sent):
    """One meets the free slot, and the others wait for those before them, a tenth each."""
    admission = Admission({"mail": Bounds(max_wait_ms=1_000)}, paces={"mail": PACE})
    batches = [([desk.job()], admission) for _ in range(60)]

    answers = sent(engine, batches)

    assert limits(answers) == {"new": 10, "wait": 50}
    told = sorted(answer[0].expected_ms for answer in answers if isinstance(answer, list))
    assert told == [0, *range(200, 1_001, 100)]


@pytest.mark.parametrize("sent", SENT)
def test_a_request_sent_by_many_is_one_job(desk: Desk, engine: SqliteEngine, sent):
    batches = [([desk.job(idempotency=ASKED)], Admission()) for _ in range(60)]

    answers = sent(engine, batches)

    assert limits(answers) == {"new": 1, "first": 59}
    (job,) = {answer[0].first or answer[0].job for answer in answers}
    assert desk.is_known(job)


def test_merged_batches_of_several_jobs_are_judged_one_after_the_other(
    desk: Desk, engine: SqliteEngine
):
    admission = Admission(
        {"mail": Bounds(max_jobs=10, max_wait_ms=1_000, group_share=0.2)}, paces={"mail": PACE}
    )
    plain = Admission({"mail": Bounds(max_jobs=10)})
    batches = [
        ([desk.job(group="acme"), desk.job()], plain),  # judged by neither, and counted
        ([desk.job(group="acme"), desk.job(group="acme")], admission),
        ([desk.job(group="acme")], admission),
        ([desk.job(priority=9), desk.job(delay_ms=60_000)], admission),
        ([desk.job(), desk.job(), desk.job()], admission),
    ]

    answers = together(engine, batches)

    assert limits(answers) == {"new": 4, "group": 1}
    assert isinstance(answers[1], Refusal)
    waits = [[one.expected_ms for one in answer] for answer in answers if isinstance(answer, list)]
    assert waits == [[None, None], [300], [0, None], [500, 600, 700]]


def test_a_reused_key_harms_no_other_batch(desk: Desk, engine: SqliteEngine):
    other = Idempotency("ann", "order-7", b"another print")
    batches = [
        ([desk.job(idempotency=ASKED)], Admission()),
        ([desk.job(idempotency=other)], Admission()),
        ([desk.job()], Admission()),
    ]

    assert limits(together(engine, batches)) == {"new": 2, "reused": 1}


SENDER = """
    import sys
    from backlane.engine.protocol import Admission
    from backlane.engine.sqlite import SqliteEngine
    from backlane.model.ids import new_ids
    from backlane.model.job import Idempotency, Job, Refusal
    from backlane.model.pressure.pace import Pace
    from backlane.model.queue import Bounds
    path, wall_ms = sys.argv[1], int(sys.argv[2])
    engine = SqliteEngine(path)
    declared = {
        "shared": Bounds(max_jobs=40, group_share=0.5),
        "timed": Bounds(max_wait_ms=2_000),
        "full": Bounds(max_jobs=30),
    }
    admission = Admission(declared, paces={"timed": Pace((10.0,) * 10, slots=1)})
    taken = dict.fromkeys(["shared", "timed", "full", "asked"], 0)
    for number in range(60):
        for queue in taken:
            (id,) = new_ids(wall_ms, 1)
            asked = Idempotency("ann", str(number), b"x") if queue == "asked" else None
            job = Job(id=id, queue=queue, task="t", body=b"{}", group="acme", idempotency=asked)
            answer = engine.run(engine.append([job], admission))
            taken[queue] += not isinstance(answer, Refusal) and answer[0].is_new
    print(*taken.values(), flush=True)
"""


def test_processes_together_take_what_the_bounds_allow_and_no_more(desk: Desk, path: Path):
    desk.engine.migrate()
    command = [sys.executable, "-c", textwrap.dedent(SENDER), str(path), str(desk.clock.wall_ms())]

    senders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [[int(word) for word in sender.communicate()[0].split()] for sender in senders]

    assert [sum(column) for column in zip(*said, strict=True)] == [20, 20, 30, 60]
    depths = [desk.depth(queue).jobs for queue in ("shared", "timed", "full", "asked")]
    assert depths == [20, 20, 30, 60]


def test_a_forked_child_meets_what_its_parent_sent(desk: Desk, engine: SqliteEngine):
    share = {"mail": Bounds(max_jobs=10, group_share=0.1)}
    first = desk.job(group="acme", idempotency=ASKED)
    desk.append(first, declared=share)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            again = desk.append(desk.job(idempotency=ASKED))
            more = desk.append(desk.job(group="acme"), declared=share)
            is_right = firsts(again)[0][1] == first.id and isinstance(more, Refusal)
            status = 0 if is_right else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_joined_request_is_remembered_if_the_caller_commits(
    desk: Desk, engine: SqliteEngine, path: Path
):
    engine.migrate()
    connection = apsw.Connection(str(path))
    share = Admission({"mail": Bounds(max_jobs=10, group_share=0.1)})
    first, second = (desk.job(group="acme", idempotency=ASKED) for _ in range(2))
    answers = []
    for job, end in ((first, "rollback"), (second, "commit")):
        connection.execute("begin immediate")
        answers.append(engine.joined(connection).run(engine.append([job], share)))
        connection.execute(end)
    again = desk.job(idempotency=ASKED)

    assert [firsts(answer) for answer in answers] == [[(first.id, None)], [(second.id, None)]]
    assert firsts(desk.append(again)) == [(again.id, second.id)]
    assert isinstance(engine.run(engine.append([desk.job(group="acme")], share)), Refusal)
