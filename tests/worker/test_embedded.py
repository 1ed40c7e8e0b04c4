"""A worker within this process."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
from tests.worker.conftest import wait_until
from tests.worker.yard import make

from backlane import Backlane, Context, JobFailed, Queue, Retry, UnknownQueue, WrongUse
from backlane.engine.protocol import Declare
from backlane.errors import BadOption
from backlane.model import event as events
from backlane.model.job import State
from backlane.model.queue import DEFAULT_MAX_BYTES, Bounds, Kind
from backlane.worker import Worker


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def test_async_jobs_run_in_the_loop_of_the_block(app: Backlane):
    @app.task(name="where")
    async def where() -> int:
        return threading.get_ident()

    async def main() -> int:
        async with Worker(app):
            return await (await where.aenqueue()).aresult(timeout=5)

    assert asyncio.run(main()) == threading.get_ident()


def test_plain_functions_run_in_threads_and_may_block(app: Backlane):
    @app.task(name="where")
    def where() -> int:
        time.sleep(0.05)
        return threading.get_ident()

    async def main() -> list[int]:
        async with Worker(app):
            jobs = [await where.aenqueue() for _ in range(4)]
            return [await job.aresult(timeout=5) for job in jobs]

    threads = asyncio.run(main())

    assert threading.get_ident() not in threads


def test_a_plain_block_has_a_loop_of_its_own(app: Backlane):
    @app.task(name="add")
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0.01)
        return a + b

    with Worker(app):
        assert add.enqueue(1, 2).result(timeout=5) == 3


def test_no_more_run_at_a_time_than_its_concurrency(app: Backlane):
    running: list[int] = []
    most: list[int] = []

    @app.task(name="waits")
    async def waits() -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.pop()

    @app.task(name="blocks")
    def blocks() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    with Worker(app, concurrency=3):
        jobs = [task.enqueue() for _ in range(10) for task in (waits, blocks)]
        for job in jobs:
            job.result(timeout=10)

    assert 2 <= max(most) <= 3


def test_with_one_slot_neither_kind_starves(app: Backlane):
    @app.task(name="waits")
    async def waits() -> None:
        await asyncio.sleep(0)

    @app.task(name="blocks")
    def blocks() -> None:
        time.sleep(0.001)

    with Worker(app, concurrency=1):
        jobs = [task.enqueue() for _ in range(20) for task in (waits, blocks)]

        assert [job.result(timeout=10) for job in jobs] == [None] * 40


def test_a_blocked_loop_costs_no_lease(app: Backlane):
    @app.task(name="blocks")
    async def blocks() -> int:
        time.sleep(2.5)  # noqa: ASYNC251 - the fault under test
        return 1

    async def main() -> int:
        async with Worker(app, lease=1):
            job = await blocks.aenqueue()
            await job.aresult(timeout=10)
            return job.attempts

    assert asyncio.run(main()) == 1


def greet(name: str) -> str:
    return name


def test_a_worker_declares_all_bounds_of_its_queues():
    queue = Queue("mail", max_jobs=7, max_wait=5, group_share=0.5)
    app = Backlane("memory://", queues=[queue])
    app.task(name="greet", queue="mail")(greet)

    with Worker(app):
        record = app.queue("mail").record()

    assert record.declared == Bounds(7, DEFAULT_MAX_BYTES, 5_000, 0.5)


def test_a_worker_says_how_many_slots_each_of_its_queues_has():
    app = Backlane("memory://", queues=[Queue("mail", concurrency=2), Queue("video")])
    app.task(name="greet", queue="mail")(greet)
    app.task(name="wave", queue="video")(greet)

    def slots() -> list[int | None]:
        measured = app.engine.run(app.engine.measure(["mail", "video"]))
        return [sample.slots for sample in measured.queues]

    with Worker(app, concurrency=8):
        wait_until(lambda: slots() == [2, 8])


def test_bounds_that_differ_are_told_in_words(caplog: pytest.LogCaptureFixture):
    app = Backlane("memory://", queues=[Queue("mail", max_wait=5)])
    app.task(name="greet", queue="mail")(greet)
    app.engine.run(app.engine.tune("mail", Declare(Kind.TASKS, Bounds())))

    with Worker(app):
        pass

    assert "268435456 bytes at most, a wait of 5 s; if another version" in caplog.text


def test_leaving_the_block_lets_running_jobs_finish(app: Backlane):
    started = threading.Event()

    @app.task(name="slow")
    async def slow() -> int:
        started.set()
        await asyncio.sleep(0.2)
        return 1

    with Worker(app):
        job = slow.enqueue()
        started.wait(5)

    assert job.state is State.SUCCEEDED


def test_after_the_grace_async_jobs_are_cancelled_and_given_back(app: Backlane):
    started = threading.Event()

    @app.task(name="endless")
    async def endless() -> None:
        started.set()
        await asyncio.sleep(60)

    with Worker(app, grace=0):
        job = endless.enqueue()
        started.wait(5)

    assert (job.state, job.attempts) == (State.READY, 0)


def test_a_thread_job_hears_that_its_worker_leaves(app: Backlane):
    started = threading.Event()

    @app.task(name="endless")
    def endless(context: Context) -> None:
        started.set()
        while True:
            context.check()
            time.sleep(0.01)

    with Worker(app, grace=0):
        job = endless.enqueue()
        started.wait(5)

    assert (job.state, job.attempts) == (State.READY, 0)


def test_a_running_job_is_cancelled(app: Backlane):
    started = threading.Event()

    @app.task(name="endless")
    async def endless() -> None:
        started.set()
        await asyncio.sleep(60)

    with Worker(app):
        job = endless.enqueue()
        started.wait(5)
        job.cancel()
        wait_until(lambda: job.state is State.CANCELLED, 2)


def test_progress_is_written_at_most_once_a_second(app: Backlane):
    revisions: list[int] = []

    @app.task(name="reports")
    def reports(context: Context) -> None:
        for step in range(100):
            context.progress(step / 100)
            time.sleep(0.005)
        revisions.append(app.job(context.id).record().revision)

    with Worker(app):
        reports.enqueue().result(timeout=10)

    assert revisions[0] <= 3  # enqueued, started, and one report


def test_observers_hear_of_a_job_that_is_buried(app: Backlane):
    heard: list[events.Event] = []
    app.observe(heard.append)

    @app.task(name="fails", retry=Retry(attempts=1))
    def fails() -> None:
        raise ValueError("no")

    with Worker(app):
        with pytest.raises(JobFailed):
            fails.enqueue().result(timeout=5)
        wait_until(lambda: any(isinstance(each, events.JobBuried) for each in heard))


def test_observers_hear_when_their_worker_starts_and_drains(app: Backlane):
    heard: list[events.Event] = []
    app.observe(heard.append)

    with Worker(app):
        pass

    changes = [each.change for each in heard if isinstance(each, events.WorkerChanged)]
    assert changes == ["started", "draining"]


def test_process_jobs_run_in_child_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runs").touch()
    (tmp_path / "embedded_application.py").write_text(
        "from pathlib import Path\n"
        "from tests.worker.yard import make\n"
        f"app = make(Path({str(tmp_path)!r}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("embedded_application")

    with Worker(module.app, exclusive=1):
        pid = module.app.tasks["alone"].enqueue(1).result(timeout=15)

    del sys.modules["embedded_application"]
    assert pid
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    module.app.close()


def test_process_jobs_of_an_application_without_a_name_are_refused_at_start(tmp_path: Path):
    app = make(tmp_path)

    with pytest.raises(WrongUse, match="target='module:attribute'"), Worker(app):
        pass


def test_an_application_in_the_script_itself_does_not_count_as_importable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = ModuleType("__main__")
    script.app = make(tmp_path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", script)

    with pytest.raises(WrongUse), Worker(script.app):  # type: ignore[attr-defined]
        pass


def test_an_unknown_queue_is_refused(app: Backlane):
    with pytest.raises(UnknownQueue, match="default"), Worker(app, queues=["defalt"]):
        pass


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"lease": 0.5}, {"queues": "default"}])
def test_options_that_cannot_work_are_refused(app: Backlane, options: dict[str, object]):
    with pytest.raises(BadOption):
        Worker(app, **options)  # type: ignore[arg-type]


def test_a_worker_is_started_once(app: Backlane):
    worker = Worker(app)
    with worker:
        pass

    with pytest.raises(WrongUse), worker:
        pass


def test_a_queue_is_measured_by_the_slots_that_its_jobs_can_take(app: Backlane):
    """Slots for jobs alone in a process are none of a queue whose jobs run in threads."""
    app.task(name="greet")(greet)

    with Worker(app, concurrency=3, exclusive=2):
        wait_until(lambda: app.engine.run(app.engine.list_workers()))
        (sample,) = app.engine.run(app.engine.measure(["default"])).queues

    assert sample.slots == 3
