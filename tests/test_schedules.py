"""Schedules of an application: declared, put, looked at and changed, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.hand import only, succeed, take

from backlane import (
    At,
    Backlane,
    BadOption,
    Cron,
    Every,
    NoResult,
    Queue,
    Schedule,
    TooLarge,
    Unencodable,
    UnknownOption,
    UnknownSchedule,
    UnknownTask,
    WrongUse,
)
from backlane.engine.scheduling import Put
from backlane.model.clock import SystemClock
from backlane.model.schedule import decode_spec
from backlane.tick import ticks

HOURLY = Every(timedelta(hours=1))


def report(number: int, *, colour: str = "red") -> int:
    return number


@pytest.fixture
def app(every_url: str) -> Iterator[Backlane]:
    with Backlane(every_url, queues=[Queue("slow")]) as app:
        app.task(name="report", keep_latest=True, tags=["daily"])(report)
        yield app


def tick(app: Backlane, later: timedelta) -> None:
    """Apply what is due, as a worker would whose clock is so much later."""
    templates = {name: task.template for name, task in app.tasks.items()}
    timetable = app.engine.run(app.engine.list_schedules())
    now_ms = timetable.now_ms + later // timedelta(milliseconds=1)
    moved = type(timetable)(now_ms, timetable.schedules)
    found = ticks(moved, templates, lambda name, error: pytest.fail(f"{name}: {error}"))
    answers = app.engine.run(app.engine.tick(found, app.admission))
    assert all(answer.is_applied for answer in answers)


# -- put, and what there is --


def test_a_schedule_is_put_listed_and_removed(app: Backlane) -> None:
    before = datetime.now(UTC)
    made = app.schedules.put("daily", "0 3 * * *", app.tasks["report"], args=(7,), tz="Asia/Tokyo")

    assert app.schedules.list() == [app.schedules.get("daily")]
    assert (made.name, made.task, made.rule) == ("daily", "report", "0 3 * * * (Asia/Tokyo)")
    assert (made.is_declared, made.paused, made.last_job) == (False, False, None)
    assert made.next is not None
    assert made.next.hour == 18
    assert timedelta(0) < made.next - before <= timedelta(days=1)
    assert bytes(made.arguments) == b'{"number":7,"colour":"red"}'
    app.schedules.remove("daily")
    assert app.schedules.list() == []


def test_the_next_times_are_told(app: Backlane) -> None:
    app.schedules.put("hourly", HOURLY, app.tasks["report"], args=(7,))

    found = app.schedules.next("hourly", 3)

    assert [(moment.minute, moment.second) for moment in found] == [(0, 0)] * 3
    assert found[1] - found[0] == found[2] - found[1] == timedelta(hours=1)
    assert app.schedules.get("hourly").next == found[0]


def test_the_twins_do_the_same(app: Backlane) -> None:
    async def all_of_them() -> list[Any]:
        schedules, task = app.schedules, app.tasks["report"]
        return [
            (await schedules.aput("hourly", HOURLY, task, args=(7,))).name,
            [it.name for it in await schedules.alist()],
            (await schedules.aget("hourly")).paused,
            (await schedules.apause("hourly")).paused,
            (await schedules.aresume("hourly")).paused,
            len(await schedules.anext("hourly", 2)),
            (await schedules.arun_now("hourly")).is_new,
            await schedules.aremove("hourly"),
            await schedules.alist(),
        ]

    assert asyncio.run(all_of_them()) == [
        *("hourly", ["hourly"], False, True, False, 2, True, None, [])
    ]


def test_a_paused_schedule_has_no_next_time(app: Backlane) -> None:
    app.schedules.put("hourly", HOURLY, app.tasks["report"], args=(7,))

    assert app.schedules.pause("hourly").next is None
    assert app.schedules.resume("hourly").next is not None


@pytest.mark.parametrize("verb", ["pause", "resume", "remove", "get", "next", "run_now"])
def test_an_unknown_schedule_is_refused_with_the_nearest(app: Backlane, verb: str) -> None:
    app.schedules.put("nightly", HOURLY, app.tasks["report"], args=(7,))

    with pytest.raises(UnknownSchedule, match="did you mean 'nightly'"):
        getattr(app.schedules, verb)("nightl")


# -- what it makes --


def test_a_tick_makes_the_call_that_was_put(app: Backlane) -> None:
    how = app.tasks["report"].using(
        queue="slow", priority=8, group="acme", tags=["x"], headers={"tenant": "acme"}, expires=900
    )
    app.schedules.put("hourly", HOURLY, how, args=(7,), kwargs={"colour": "blue"})

    tick(app, timedelta(hours=1))

    lease = only(take(app, "slow"))
    record = app.job(str(app.schedules.get("hourly").last_job)).record()
    assert lease.job == record.id
    assert app.tasks["report"].codec.decode_arguments(lease.body) == ((7,), {"colour": "blue"})
    assert (record.priority, record.group, record.tags) == (8, "acme", ("daily", "x"))
    assert record.deadline_ms == record.enqueued_ms + 900_000
    assert lease.headers is not None
    assert b'"tenant":"acme"' in lease.headers
    assert b'"schedule":"hourly"' in lease.headers


def test_a_tick_goes_with_the_task_as_it_is_now(app: Backlane) -> None:
    app.schedules.put("hourly", HOURLY, app.tasks["report"], args=(7,))
    record = app.engine.run(app.engine.list_schedules()).schedules[0]

    assert decode_spec(record.spec).queue is None
    assert decode_spec(record.spec).priority is None


def test_run_now_is_once_more_and_moves_nothing(app: Backlane) -> None:
    app.schedules.put("hourly", HOURLY, app.tasks["report"], args=(7,))
    before = app.schedules.get("hourly")

    first, second = app.schedules.run_now("hourly"), app.schedules.run_now("hourly")

    assert first.id != second.id
    assert app.schedules.get("hourly") == before
    succeed(app, 7)
    assert first.result(timeout=5) == 7


def test_run_now_of_a_task_of_another_application_is_refused(app: Backlane) -> None:
    put = Put(spec=b'{"every_ms":60000}', task="theirs")
    app.engine.run(app.engine.alter_schedule("foreign", put))

    with pytest.raises(UnknownTask, match="theirs"):
        app.schedules.run_now("foreign")


def test_a_schedule_that_this_version_cannot_read_is_shown(app: Backlane) -> None:
    put = Put(spec=b'{"sunset":true}', task="report")
    app.engine.run(app.engine.alter_schedule("odd", put))
    app.engine.run(app.engine.alter_schedule("broken", Put(spec=b"\xff", task="report")))

    found = {it.name: it for it in app.schedules.list()}

    assert "update it" in found["odd"].rule
    assert "put it anew" in found["broken"].rule
    assert found["odd"].next is None


# -- latest --


def test_the_newest_result_is_read_at_once(app: Backlane) -> None:
    task = app.tasks["report"]
    with pytest.raises(NoResult, match="report"):
        task.latest()
    app.schedules.put("hourly", HOURLY, task, args=(7,))
    tick(app, timedelta(hours=1))
    succeed(app, 7)
    app.schedules.run_now("hourly")  # the next one is on its way

    assert task.latest() == 7
    assert asyncio.run(task.alatest()) == 7


def test_a_task_that_keeps_no_newest_result_says_so(app: Backlane) -> None:
    app.task(name="plain")(lambda_like)

    with pytest.raises(WrongUse, match="keep_latest=True"):
        app.tasks["plain"].latest()


def lambda_like() -> None: ...


# -- bad input: refused where it is written --


@pytest.mark.parametrize(
    ("rule", "options", "error"),
    [
        ("0 3 * *", {}, BadOption),
        ("61 * * * *", {}, BadOption),
        (5, {}, BadOption),
        (timedelta(0), {}, BadOption),
        ("0 3 * * *", {"tz": "Mars/Olympus"}, BadOption),
        (HOURLY, {"tz": "UTC"}, BadOption),
        (HOURLY, {"catch_up": "some"}, BadOption),
        (HOURLY, {"jitter": -1}, BadOption),
        (HOURLY, {"most": 0}, BadOption),
        (HOURLY, {"args": [7]}, BadOption),
        (HOURLY, {"kwargs": [7]}, BadOption),
        (HOURLY, {"jiter": 5}, UnknownOption),
        (HOURLY, {"name": "other"}, UnknownOption),
        (HOURLY, {"args": ()}, TypeError),
        (HOURLY, {"args": (7, 8)}, TypeError),
        (HOURLY, {"args": ("seven",)}, Unencodable),
        (HOURLY, {"args": (7,), "kwargs": {"colour": "x" * 2_000_000}}, TooLarge),
        (At(datetime(2020, 1, 1, tzinfo=UTC)), {}, BadOption),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_put(
    rule: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    app = Backlane("memory://")
    task = app.task(name="report")(report)

    with pytest.raises(error):
        app.schedules.put("daily", rule, task, **({"args": (7,)} | options))

    assert app.schedules.list() == []


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, None, 5, "a/b"])
def test_a_name_that_cannot_be_one_is_refused(name: Any) -> None:
    app = Backlane("memory://")

    with pytest.raises(BadOption, match="cannot name a schedule"):
        app.schedules.put(name, HOURLY, app.task(name="report")(report), args=(7,))


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 5},
        {"at": datetime(2031, 1, 1, tzinfo=UTC)},
        {"id": "01890a5d-ac96-774b-bcce-b302099a8057"},
        {"on_full": "wait"},
        {"idempotency_key": "x"},
    ],
)
def test_what_is_of_one_enqueue_has_no_place_in_a_schedule(options: dict[str, Any]) -> None:
    app = Backlane("memory://")
    how = app.task(name="report")(report).using(**options)

    with pytest.raises(BadOption, match=f"{next(iter(options))}= is of one enqueue"):
        app.schedules.put("daily", HOURLY, how, args=(7,))


def test_a_task_of_another_application_is_refused() -> None:
    app, other = Backlane("memory://"), Backlane("memory://")
    theirs = other.task(name="report")(report)
    app.task(name="report")(report)

    for task in (theirs, report, "report", None):
        with pytest.raises(BadOption):
            app.schedules.put("daily", HOURLY, task, args=(7,))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, -1, 1_001, 2.0, None])
def test_a_number_of_next_times_that_is_none_is_refused(number: Any) -> None:
    app = Backlane("memory://")
    app.schedules.put("daily", HOURLY, app.task(name="report")(report), args=(7,))

    with pytest.raises(BadOption, match="number is"):
        app.schedules.next("daily", number)


# -- declared by code --


def test_a_decorator_declares_and_returns_the_task() -> None:
    app = Backlane("memory://")

    task = app.schedule(Cron("@daily", "Europe/Paris"), args=(1,))(app.task(name="report")(report))
    again = app.schedule("@hourly", name="report-hourly", args=(2,), jitter=60)(task)

    assert task is again is app.tasks["report"]
    assert list(app.schedules.declared) == ["report", "report-hourly"]
    spec = decode_spec(app.schedules.declared["report-hourly"].spec)
    assert (spec.cron, spec.jitter_ms, spec.body) == (
        "@hourly",
        60_000,
        b'{"number":2,"colour":"red"}',
    )


def test_a_decorator_makes_a_task_of_a_function() -> None:
    app = Backlane("memory://")

    task = app.schedule("@daily", args=(1,))(report)

    assert task.name.endswith("report")
    assert task(7) == 7


def test_declaring_opens_nothing(tmp_path: Any) -> None:
    path = tmp_path / "jobs.db"
    app = Backlane(f"sqlite:///{path}")

    app.schedule("@daily", args=(1,))(app.task(name="report")(report))

    assert not path.exists()


def test_what_cannot_be_declared_is_refused_there() -> None:
    app = Backlane("memory://")
    task = app.task(name="report")(report)
    with pytest.raises(BadOption, match="cannot be read"):
        app.schedule("61 * * * *")
    with pytest.raises(UnknownOption, match="did you mean 'jitter'"):
        app.schedule("@daily", jiter=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing"):
        app.schedule("@daily")(task)
    with pytest.raises(BadOption, match="cannot name a schedule"):
        app.schedule("@daily", name="a b", args=(7,))(task)
    app.schedule("@daily", args=(7,))(task)
    with pytest.raises(BadOption, match="there is a schedule 'report' already"):
        app.schedule("@hourly", args=(7,))(task)


def test_a_schedule_reads_as_what_it_is() -> None:
    app = Backlane("memory://", clock=SystemClock())
    made = app.schedules.put("daily", "@daily", app.task(name="report")(report), args=(7,))

    assert isinstance(made, Schedule)
    assert repr(app.schedules) == "<Schedules of memory://>"
