"""The application: queues, registration, lookups, events, its life cycle."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tests.hand import succeed, take

from backlane import (
    Backlane,
    BadOption,
    JobNotFound,
    JobRecord,
    Middleware,
    Queue,
    QueueFull,
    Retry,
    UnknownOption,
    UnknownQueue,
    WrongUse,
    events,
)
from backlane.engine.memory import MemoryEngine
from backlane.model.clock import FakeClock
from backlane.model.queue import Bounds


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def double(number: int) -> int:
    return 2 * number


def triple(number: int) -> int:
    return 3 * number


# -- queues --


def test_without_queues_a_task_may_name_any_queue(app):
    app.task(queue="mail")(double)

    assert set(app.queues) == {"default", "mail"}


def test_with_queues_a_task_that_names_another_is_refused_with_the_nearest():
    app = Backlane("memory://", queues=[Queue("mail"), Queue("video")])

    with pytest.raises(UnknownQueue, match=r"did you mean 'mail'.*declared are mail, video"):
        app.task(queue="mial")(double)


def test_with_queues_the_default_queue_exists_all_the_same():
    app = Backlane("memory://", queues=[Queue("mail")])

    task = app.task(double)

    assert task.queue == "default"


def test_with_queues_an_enqueue_cannot_name_another():
    app = Backlane("memory://", queues=[Queue("mail")])
    task = app.task(queue="mail")(double)

    with pytest.raises(UnknownQueue):
        task.using(queue="mails")


def test_a_queue_declared_twice_is_refused():
    with pytest.raises(BadOption, match="twice"):
        Backlane("memory://", queues=[Queue("mail"), Queue("mail")])


def test_a_queue_given_as_text_is_refused_with_the_way_to_write_it():
    with pytest.raises(BadOption, match=r"Queue\('mail'\)"):
        Backlane("memory://", queues=["mail"])


def test_only_bounds_that_the_code_gives_are_declared_to_the_engine():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=2), Queue("video")])
    task = app.task(queue="mail")(double)

    task.enqueue(1)
    [queue] = app.engine.run(app.engine.list_queues())

    assert queue.bounds == Bounds(max_jobs=2)


# -- options of the application --


def test_an_unknown_option_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownOption, match="did you mean 'queues'"):
        Backlane("memory://", queue=[])


@pytest.mark.parametrize("url", ["jobs.db", "", None, 7])
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(BadOption, match=r"sqlite:///jobs\.db"):
        Backlane(url)


def test_an_unknown_scheme_is_refused_with_the_nearest_at_the_first_use():
    app = Backlane("sqlit:///jobs.db")

    with pytest.raises(BadOption, match="did you mean 'sqlite'"):
        app.task(double).enqueue(1)


def test_a_middleware_that_does_not_say_what_it_wraps_is_refused():
    async def wrap(call, following):
        return await following(call)

    with pytest.raises(BadOption, match=r"Middleware\(attempt=…\)"):
        Backlane("memory://", middleware=[wrap])


def test_middleware_is_kept_by_what_it_wraps():
    async def first(call, following): ...
    async def second(call, following): ...

    app = Backlane("memory://", middleware=[Middleware(first, second), Middleware(attempt=first)])

    assert app.enqueue_middleware == (first,)
    assert app.attempt_middleware == (second, first)


def test_a_task_without_a_retry_has_the_applications():
    app = Backlane("memory://", retry=Retry(attempts=3))

    plain, own = app.task(double), app.task(retry=Retry(attempts=5))(triple)

    assert (plain.policy.attempts, own.policy.attempts) == (3, 5)


# -- registration --


def test_tasks_are_registered_by_module_and_name(app):
    task = app.task(double)

    assert app.tasks == {f"{__name__}.double": task}


def test_the_registry_cannot_be_changed_from_outside(app):
    with pytest.raises(TypeError):
        app.tasks["x"] = None


def test_a_duplicate_name_is_refused_and_both_places_are_told(app):
    app.task(name="twice")(double)

    with pytest.raises(BadOption, match=r"'twice' already, .*test_app.py:\d+; .*test_app.py:\d+"):
        app.task(name="twice")(triple)


# -- a queue holds tasks or messages --


def test_messages_are_refused_in_a_queue_that_a_task_names(app):
    app.task(queue="mail")(double)

    with pytest.raises(WrongUse, match=r"'mail' holds tasks .*double"):
        app.messages("mail")


def test_a_task_is_refused_in_a_queue_of_messages(app):
    app.messages("orders")

    with pytest.raises(WrongUse, match="'orders' holds messages"):
        app.task(queue="orders")(double)


def test_a_queue_of_messages_is_none_that_a_worker_serves(app):
    app.task(queue="mail")(double)

    app.messages("orders")

    assert set(app.queues) == {"default", "mail"}


def test_what_another_process_fixed_is_told_when_the_store_refuses(app):
    other = Backlane("memory://")
    with other.replaced(app.engine, app.clock):
        other.messages("mail").send(b"hi")

        with pytest.raises(WrongUse, match="its first use has fixed which"):
            app.task(queue="mail")(double).enqueue(1)


def test_messages_of_one_name_are_one_object(app):
    assert app.messages("orders") is app.messages("orders")


# -- a queue at run time --


def test_a_queue_tells_its_depth(app):
    app.task(queue="mail")(double).enqueue_many([((1,), {}), ((2,), {})])

    record = app.queue("mail").record()

    assert (record.name, record.depth.ready, record.appended) == ("mail", 2, 2)
    assert asyncio.run(app.queue("mail").arecord()).depth == record.depth


def test_a_paused_queue_stores_jobs_and_gives_none_until_it_is_resumed(app):
    task, mail = app.task(queue="mail")(double), app.queue("mail")
    task.enqueue(1)

    paused = mail.pause()
    task.enqueue(2)
    during = take(app, "mail")
    resumed = asyncio.run(mail.aresume())

    assert (paused.paused, resumed.paused) == (True, False)
    assert (len(during), len(take(app, "mail", number=9))) == (0, 2)


def test_a_tuned_bound_goes_before_the_declared_one_until_it_is_reset():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=1)])
    task, mail = app.task(queue="mail")(double), app.queue("mail")
    task.enqueue(1)

    tuned = mail.tune(max_jobs=2)
    task.enqueue(2)
    reset = asyncio.run(mail.atune(reset=True))

    assert (tuned.bounds.max_jobs, reset.bounds.max_jobs) == (2, 1)
    with pytest.raises(QueueFull):
        task.enqueue(3)


def test_observers_hear_of_what_is_changed_at_a_queue(app):
    heard = []
    app.task(queue="mail")(double).enqueue(1)
    app.observe(heard.append)
    mail = app.queue("mail")

    asyncio.run(mail.apause())
    mail.resume()
    mail.tune(max_jobs=5)

    assert heard == [events.QueueChanged("mail", it) for it in ("paused", "resumed", "tuned")]


@pytest.mark.parametrize("verb", ["record", "pause", "resume", "tune"])
def test_a_queue_that_was_never_used_is_unknown_to_the_store(app, verb):
    with pytest.raises(UnknownQueue, match="made by the first job"):
        getattr(app.queue("mail"), verb)()


@pytest.mark.parametrize("bound", [0, -1, True, "9", 1.5])
def test_a_bound_that_cannot_work_is_refused(app, bound):
    app.task(queue="mail")(double).enqueue(1)

    with pytest.raises(BadOption, match="max_jobs is"):
        app.queue("mail").tune(max_jobs=bound)


# -- jobs by id --


def test_a_job_is_found_by_its_id_and_decoded_by_its_task(app):
    task = app.task(double)
    made = task.enqueue(4)
    succeed(app, 8)

    found = app.job(str(made.id))

    assert found == made
    assert found.result() == 8


def test_the_result_of_a_task_unknown_here_is_plain_data(app):
    app.task(name="tuples")(tuples)
    made = app.tasks["tuples"].enqueue()
    succeed(app, (1, 2))
    other = Backlane("memory://")

    with other.replaced(app.engine, app.clock):
        result = other.job(made.id).result()

    assert (result, made.result()) == ([1, 2], (1, 2))


def tuples() -> tuple[int, int]:
    return 1, 2


def test_an_unknown_id_is_an_error_and_never_a_silent_pending(app):
    with pytest.raises(JobNotFound, match="no job"):
        app.job("01890000-0000-7000-8000-000000000000")


@pytest.mark.parametrize("given", ["x", uuid.UUID(int=5, version=4), b"short"])
def test_what_cannot_be_an_id_is_refused(app, given):
    with pytest.raises(BadOption, match="is not a job id"):
        app.job(given)


# -- events --


def test_an_observer_hears_of_enqueues_and_duplicates(app):
    heard = []
    app.observe(heard.append)
    task = app.task(double).using(key="once")

    first, second = task.enqueue(1), task.enqueue(1)

    name = f"{__name__}.double"
    assert heard == [
        events.JobEnqueued(first.id, name, "default", is_new=True),
        events.JobEnqueued(second.id, name, "default", is_new=False),
    ]


def test_an_observer_hears_of_refusals():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=1)])
    heard = []
    app.observe(heard.append)
    task = app.task(queue="mail")(double)

    with pytest.raises(QueueFull):
        task.enqueue_many([((1,), {}), ((2,), {})])

    assert heard == [events.JobRefused(task.name, "mail", "jobs", 2)]


def test_an_observer_that_raises_is_logged_and_neither_detached_nor_in_the_way(app, caplog):
    calls = []

    @app.observe
    def broken(event):
        calls.append(event)
        raise OSError("no disk")

    task = app.task(double)

    task.enqueue(1)
    task.enqueue(2)

    assert len(calls) == 2
    assert caplog.text.count("stays attached") == 2


# -- its life --


def test_the_engine_is_connected_once_and_kept(app):
    assert app.engine is app.engine


def test_another_engine_and_clock_may_stand_in_for_a_while(app):
    task, clock = app.task(double), FakeClock()
    engine = MemoryEngine(clock)

    with app.replaced(engine, clock):
        inside = task.enqueue(1)
        record: JobRecord = inside.record()

    assert record.enqueued_ms == clock.wall_ms()
    with pytest.raises(JobNotFound):
        inside.record()


def test_a_closed_application_opens_again_at_the_next_use(tmp_path):
    app = Backlane(f"sqlite:///{tmp_path}/jobs.db")
    task = app.task(double)
    with app:
        first = task.enqueue(1)

    assert first.state == "ready"
    app.close()


async def aclosed(app: Backlane) -> str:
    async with app:
        job = await app.task(double).aenqueue(1)
    return (await job.arecord()).state


def test_closing_has_an_async_form(tmp_path):
    app = Backlane(f"sqlite:///{tmp_path}/jobs.db")

    assert asyncio.run(aclosed(app)) == "ready"
    app.close()
