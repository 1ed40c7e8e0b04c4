"""`backlane capacity`: live figures, planning on paper, and tasks cheaper than a job."""

from __future__ import annotations

import json
import math
import uuid
from contextlib import closing

import pytest

from backlane.cli.capacity import seen
from backlane.cli.overhead import FEWEST, cheap_tasks, overhead_ms
from backlane.engine.connect import connect
from backlane.engine.protocol import Admission, Presence
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job, JobRecord, State
from backlane.model.outcome import Settlement, Succeeded
from backlane.model.pressure.meter import Meter
from backlane.model.queue import Bounds, LineSample, QueueSample

LOOK = ("--over", "0.2")


@pytest.fixture
def ran(stage):
    """Bring jobs to their end that each ran for so many milliseconds."""

    def run(number: int, ran_ms: int, *, task: str = "send_mail", queue: str = "mail") -> None:
        engine = stage.engine
        for _ in range(number):
            job = Job(id=new_id(SystemClock().wall_ms()), queue=queue, task=task, body=b"{}")
            engine.run(engine.append([job], Admission()))
            token = stage.claimed(str(uuid.UUID(bytes=job.id)))
            engine.run(engine.settle([Settlement(job.id, token, Succeeded(), ran_ms)]))

    return run


@pytest.fixture
def announced(engine):
    """Announce a worker with so many slots for the queue `mail`."""

    def announce(slots: int) -> None:
        presence = Presence(owner="w", host="h", pid=1, queues=("mail",), slots=slots, running=0)
        engine.run(engine.announce(presence))

    return announce


def record(task: str, ran_ms: int | None) -> JobRecord:
    return JobRecord(
        id=bytes(16),
        queue="mail",
        task=task,
        state=State.SUCCEEDED,
        revision=1,
        priority=5,
        attempt=1,
        token=1,
        enqueued_ms=0,
        ran_ms=ran_ms,
    )


# -- on paper --


def test_a_plan_needs_no_store(backlane):
    result = backlane("capacity", "--arrivals", "8", "--service", "0.1", "--slots", "1", "--json")

    (plan,) = json.loads(result.stdout)["queues"]
    assert plan["utilisation"] == pytest.approx(0.8)
    assert plan["mean_wait_s"] == pytest.approx(0.4)
    assert plan["p95_wait_s"] == pytest.approx(math.log(16) * 0.5)


def test_a_plan_says_how_many_slots_a_wait_needs_and_its_bound(backlane):
    arguments = ("--arrivals", "100", "--service", "0.2", "--wait", "0.05", "--percent", "95")

    result = backlane("capacity", *arguments, "--json")

    (plan,) = json.loads(result.stdout)["queues"]
    assert plan["slots_needed"] == plan["slots"] == 26
    assert plan["p95_wait_s"] <= 0.05
    assert plan["max_jobs"] == 26 + 6


def test_a_plan_that_cannot_work_says_what_would(backlane):
    result = backlane("capacity", "--arrivals", "100", "--service", "1", "--slots", "50")

    assert result.exit_code == 0
    assert "grows" in result.stdout
    assert (
        "the plan: 50 slots can take 50.0 of 100.0 jobs/s, so the line grows until it is full; "
        "at least 101 would do" in result.stdout
    )


@pytest.mark.parametrize(
    "arguments", [("--arrivals", "1"), ("--slots", "3"), ("--arrivals", "1", "--service", "1")]
)
def test_half_a_plan_is_wrong_use(backlane, arguments):
    assert backlane("capacity", *arguments).exit_code == 2


# -- live --


def test_live_figures_come_from_two_looks(shown, ran, stage, announced):
    ran(10, 200)
    stage.enqueued("mail", 30)
    announced(4)

    (queue,) = shown("capacity", *LOOK, "--wait", "1")["queues"]

    assert queue["queue"] == "mail"
    assert queue["service_s"] == pytest.approx(0.2)
    assert (queue["slots"], queue["ready"], queue["arrivals"]) == (4, 30, 0)
    assert queue["wait_now_s"] == pytest.approx(1.55)  # 31 jobs at 4 slots / 0.2 s
    assert queue["max_jobs"] == 4 + 20
    assert queue["stable"] is True


def test_where_a_line_stands_what_is_taken_counts_and_not_the_slots():
    """Four slots for jobs of 200 ms could take 20 a second; here they take 10."""
    meter = Meter()
    for second in range(5):
        done, came = 10 * second, 15 * second
        line = LineSample(5, ready=50, running=4, appended=came, started=done)
        meter.took(
            QueueSample(
                name="mail",
                bounds=Bounds(),
                lines=(line,),
                ended=done,
                ran_ms=200 * done,
                oldest_ready_ms=5_000,
                slots=4,
            ),
            second * 1_000,
        )

    view = seen("mail", meter, 1.0, None)

    assert view.service_s == pytest.approx(0.2)
    assert view.can_take == pytest.approx(10)
    assert view.utilisation == pytest.approx(1.5)
    assert view.stable is False
    assert view.slots_needed == 7
    assert view.max_jobs == 4 + 10


def test_what_nothing_tells_is_left_open(shown, backlane, stage, url):
    stage.enqueued("mail", 3)

    (queue,) = shown("capacity", *LOOK)["queues"]
    text = backlane("capacity", *LOOK, "--url", url).stdout

    assert queue["wait_now_s"] is queue["slots"] is queue["utilisation"] is None
    assert text.splitlines()[1].split() == ["mail", "0.0", "0.0", "-", "-", "-", "3", *"---"]


def test_only_the_named_queues_are_told(shown, backlane, stage, url):
    stage.enqueued("mail")
    stage.enqueued("video")

    queues = shown("capacity", "video", *LOOK)["queues"]
    unknown = backlane("capacity", "vidoe", *LOOK, "--url", url)

    assert [queue["queue"] for queue in queues] == ["video"]
    assert unknown.exit_code == 1
    assert "did you mean 'video'?" in unknown.stderr


def test_an_empty_store_says_so(backlane, engine, url):
    assert backlane("capacity", "--url", url).stdout == "no queues: nothing was enqueued here yet\n"


# -- cheaper than a job --


def test_the_overhead_is_measured_beside_the_store_and_leaves_nothing(engine, here):
    before = sorted(path.name for path in here.iterdir())

    with closing(connect(f"sqlite:///{here}/shop.db?durability=normal", SystemClock())) as it:
        measured = overhead_ms(it)

    assert 0 < measured < 1_000
    assert sorted(path.name for path in here.iterdir()) == before


def test_tasks_that_run_shorter_than_a_job_costs_are_named():
    records = [record("quick", n % 2) for n in range(FEWEST)]
    records += [record("slow", 40) for _ in range(FEWEST)]
    records += [record("rare", 0) for _ in range(FEWEST - 1)]
    records += [record("unrun", None) for _ in range(FEWEST)]

    (cheap,) = cheap_tasks(records, 3.0)

    assert (cheap.task, cheap.jobs, cheap.run_ms) == ("quick", FEWEST, 1.0)


def test_the_figure_is_told_with_the_advice(backlane, shown, ran, url):
    ran(FEWEST, 500)

    answer = shown("capacity", *LOOK)
    text = backlane("capacity", *LOOK, "--url", url).stdout

    assert answer["overhead_ms"] > 0
    assert answer["cheap"] == []
    assert "ms here beside its run (append, claim and settle, one by one)" in text
