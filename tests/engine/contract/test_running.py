"""run and arun: one meaning in two colours, from any thread; owners; the store's care."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.engine.contract.desk import Desk, retry, settlement

from backlane.engine.protocol import Admission, Engine, Note, Presence, Wanted
from backlane.engine.selection import Cancel, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import Progress, State
from backlane.model.outcome import Succeeded
from backlane.model.queue import Bounds

WANTED = Wanted(owner="ann", number=10, lease_ms=30_000, queues=("mail",))


@pytest.fixture(params=engines.MAKERS, ids=lambda maker: maker.name)
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Desk, Desk]]:
    """Two empty engines of a kind, on clocks that show the same time."""
    with contextlib.ExitStack() as open_ones:
        desks = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            clock = FakeClock()
            engine = open_ones.enter_context(request.param.opened(folder, clock))
            desks.append(Desk(engine, clock))
        yield desks[0], desks[1]


def test_every_verb_answers_the_same_in_both_colours(twins: tuple[Desk, Desk]) -> None:
    sync, other = twins
    ids = [sync.new_id() for _ in range(4)]

    def script(engine: Engine) -> Iterator[object]:
        """Yield plans; receive their answers."""
        admission = Admission({"mail": Bounds(max_jobs=3)})
        yield engine.append([sync.job(id=job) for job in ids[:3]], admission)
        yield engine.append([sync.job(id=ids[3])], admission)
        yield engine.announce(
            Presence(owner="ann", host="box", pid=1, queues=("mail",), slots=1, running=0)
        )
        claimed = yield engine.claim(WANTED)
        first, second, third = claimed.leases  # type: ignore[attr-defined]
        yield engine.note([Note(first.job, first.token, Progress(0.5))])
        yield engine.extend([(first.job, first.token)], 60_000)
        yield engine.amend(Selection(ids=(second.job,)), Cancel())
        outcomes = [settlement(first, Succeeded(b"1")), settlement(second, retry(0))]
        yield engine.turn([*outcomes, settlement(third, retry(60))], [WANTED])
        yield engine.find(Selection(ids=tuple(ids)))
        yield engine.list_queues()
        yield engine.list_workers()

    def in_sync() -> list[object]:
        plans, answers = script(sync.engine), []
        plan = next(plans)
        while True:
            answers.append(sync.engine.run(plan))  # type: ignore[arg-type]
            try:
                plan = plans.send(answers[-1])
            except StopIteration:
                return answers

    async def in_async() -> list[object]:
        plans, answers = script(other.engine), []
        plan = next(plans)
        while True:
            answers.append(await other.engine.arun(plan))  # type: ignore[arg-type]
            try:
                plan = plans.send(answers[-1])
            except StopIteration:
                return answers

    assert in_sync() == asyncio.run(in_async())


def test_a_verb_does_nothing_until_it_is_run(desk: Desk) -> None:
    desk.engine.append([desk.job()], Admission())

    assert desk.run(desk.engine.list_queues()) == []


def test_a_plan_may_be_run_again(desk: Desk) -> None:
    job = desk.job()
    plan = desk.engine.append([job], Admission())

    first, second = desk.run(plan), desk.run(plan)

    assert isinstance(first, list)
    assert isinstance(second, list)
    assert (first[0].is_new, second[0].is_new) == (True, False)


def test_threads_share_an_engine(desk: Desk) -> None:
    jobs = [[desk.job() for _ in range(25)] for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda mine: [desk.append(job) for job in mine], jobs))
        claims = list(pool.map(lambda n: desk.claimed_ids(25, owner=f"w{n}"), range(8)))

    given = [job for claim in claims for job in claim]
    assert sorted(given) == sorted(job.id for mine in jobs for job in mine)


def test_threads_at_a_bound_never_pass_it(desk: Desk) -> None:
    bounds = Bounds(max_jobs=20)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: desk.append(desk.job(), bounds=bounds), range(60)))

    assert sum(isinstance(answer, list) for answer in answers) == 20
    assert desk.depth().jobs == 20


def test_coroutines_share_an_engine(desk: Desk) -> None:
    async def flood() -> None:
        plans = [desk.engine.append([desk.job()], Admission()) for _ in range(50)]
        await asyncio.gather(*(desk.engine.arun(plan) for plan in plans))

    asyncio.run(flood())

    assert desk.depth().ready == 50


def test_an_engine_serves_loop_after_loop(desk: Desk) -> None:
    for _ in range(3):
        asyncio.run(desk.engine.arun(desk.engine.append([desk.job()], Admission())))

    assert desk.depth().ready == 3


def test_a_cancelled_caller_cancels_all_of_its_plan_or_nothing(desk: Desk) -> None:
    jobs = [desk.job() for _ in range(50)]

    async def leave() -> None:
        task = asyncio.create_task(desk.engine.arun(desk.engine.append(jobs, Admission())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    desk.add()

    assert desk.depth().ready in (1, 51)


def test_a_plan_that_raises_changes_nothing_and_harms_no_other(desk: Desk) -> None:
    wrong = desk.engine.append([desk.job(), None], Admission())  # type: ignore[list-item]

    with pytest.raises(Exception, match=r"None|NoneType"):
        desk.run(wrong)
    desk.add()

    assert desk.depth().jobs == 1


# -- owners --


def test_an_owner_departs_when_it_gives_up_its_sign_of_life(desk: Desk) -> None:
    ann, bob = desk.engine.enlist("ann"), desk.engine.enlist("bob")
    desk.add(2)
    desk.claim(1, owner="ann")
    desk.claim(1, owner="bob")
    assert asyncio.run(desk.engine.departed()) == ()

    ann.close()

    assert asyncio.run(desk.engine.departed()) == ("ann",)
    bob.close()


def test_an_owner_that_never_enlisted_is_not_known_dead(desk: Desk) -> None:
    """A raw message's lease has no owner liveness: it ends by time alone."""
    desk.add()
    desk.claim(1, owner="receiver")

    assert asyncio.run(desk.engine.departed()) == ()


def test_a_departed_owner_whose_jobs_were_taken_is_forgotten(desk: Desk) -> None:
    sign = desk.engine.enlist("ann")
    job = desk.add_one()
    desk.claim(1, owner="ann")
    sign.close()
    departed = asyncio.run(desk.engine.departed())

    assert desk.claimed_ids(owner="bob", departed=departed) == [job]
    assert asyncio.run(desk.engine.departed()) == ()


# -- the store --


def test_a_closed_engine_opens_anew(desk: Desk) -> None:
    job = desk.add_one()

    desk.engine.close()

    assert desk.state(job) is State.READY
    desk.add()


def test_an_engine_that_was_never_used_closes(desk: Desk) -> None:
    desk.engine.close()
    desk.engine.close()


def test_migrating_twice_applies_once(desk: Desk) -> None:
    desk.engine.migrate()

    assert desk.engine.migrate() == []


def test_findings_say_what_mends_them(desk: Desk) -> None:
    for finding in desk.engine.diagnose():
        assert finding.state in ("ok", "warning", "error")
        assert finding.subject
        assert finding.text
        assert finding.remedy or finding.state == "ok"


def test_an_engine_is_used_by_threads_that_come_and_go(desk: Desk) -> None:
    for _ in range(5):
        worker = threading.Thread(target=desk.add)
        worker.start()
        worker.join()

    assert desk.depth().ready == 5
