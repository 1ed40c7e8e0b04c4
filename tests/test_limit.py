"""Limits, fair queues and order, as an application declares and uses them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tests.hand import take

from backlane import (
    Backlane,
    BadOption,
    LeaseLost,
    Limit,
    LimitTimeout,
    Queue,
    UnknownLimit,
    WrongUse,
    holding,
)
from backlane.engine.selection import Selection
from backlane.handle import JobHandle
from backlane.model import limit as stored
from backlane.model.job import JobRecord, State
from backlane.model.limit import Rate, Use
from backlane.testing import testing

ONE = Limit(concurrency=1)


def send(to: str = "") -> None: ...


def record(app: Backlane, job: JobHandle) -> JobRecord:
    return app.engine.run(app.engine.find(Selection(ids=(job.id.bytes,)), 1)).records[0]


def uses(app: Backlane, job: JobHandle) -> tuple[Use, ...]:
    return record(app, job).uses


# -- what jobs are under --


def test_a_job_is_under_the_limits_of_its_task():
    app = Backlane("memory://", limits={"stripe": ONE, "eu": Limit(rate="1/s", per_group=True)})
    task = app.task(name="send", limit=Limit(concurrency=2), limits=["stripe", "eu"])(send)

    job, of_group = task.enqueue(), task.using(group="ann").enqueue()

    assert uses(app, job) == (Use("task:send"), Use("stripe"), Use("eu"))
    assert uses(app, of_group) == (Use("task:send"), Use("stripe"), Use("eu", "ann"))


def test_a_job_is_under_what_its_queue_says_of_groups():
    queues = [Queue("mail", limit=Limit(rate="1/s", per_group=True), ordering="group")]
    app = Backlane("memory://", queues=queues)
    task = app.task(name="send", queue="mail")(send)

    of_group, elsewhere = task.using(group="ann"), task.using(group="ann", queue="default")

    assert uses(app, task.enqueue()) == (Use("queue:mail"),)
    assert uses(app, of_group.enqueue()) == (
        Use("queue:mail", "ann", turn=True),
        Use("queue:mail", "ann"),
    )
    assert uses(app, elsewhere.enqueue()) == ()


def test_messages_are_under_what_their_queue_says():
    queues = [Queue("orders", limit=ONE, ordering="group")]
    app = Backlane("memory://", queues=queues)
    orders = app.messages("orders")
    orders.send(b"1", group="ann")
    orders.send(b"2", group="ann")
    orders.send(b"3", group="bob")

    first = orders.receive(max=10)
    assert [message.body for message in first] == [b"1"]
    assert orders.receive(max=10) == []

    first[0].ack()
    assert len(orders.receive(max=10)) == 1


def test_an_append_takes_along_what_its_jobs_are_under_alone():
    app = Backlane("memory://", queues=[Queue("mail", limit=ONE)], limits={"stripe": ONE})
    app.task(name="send", queue="mail")(send).enqueue()

    assert [limit.name for limit in app.limits.list()] == ["queue:mail"]


def test_a_worker_gets_no_more_than_a_limit_allows():
    app = Backlane("memory://")
    task = app.task(name="send", limit=Limit(concurrency=2))(send)
    jobs = [task.enqueue() for _ in range(4)]

    assert len(take(app, number=10)) == 2
    states = [record(app, job).state for job in jobs]
    assert states == [State.RUNNING, State.RUNNING, State.BLOCKED, State.BLOCKED]


def test_a_fair_queue_serves_groups_in_turn():
    app = Backlane("memory://", queues=[Queue("mail", fair=True)])
    task = app.task(name="send", queue="mail")(send)
    for group, number in (("ann", 4), ("bob", 2)):
        task.using(group=group).enqueue_many([((), {})] * number)

    leases = take(app, "mail", 10)

    assert [lease.group for lease in leases] == ["ann", "bob", "ann", "bob", "ann", "ann"]
    assert app.queue("mail").record().is_fair


def test_the_jobs_of_a_group_run_in_order_in_a_test():
    app = Backlane("memory://", queues=[Queue("mail", ordering="group")])
    seen: list[str] = []

    @app.task(name="send", queue="mail")
    def note(to: str) -> None:
        seen.append(to)

    with testing(app) as kit:
        for to in "abc":
            note.using(group="ann").enqueue(to)
        kit.drain()

    assert seen == ["a", "b", "c"]


# -- what is refused where it is written --


def test_an_unknown_limit_is_refused_with_the_nearest():
    app = Backlane("memory://", limits={"stripe": ONE})

    with pytest.raises(UnknownLimit, match=r"no limit 'strpe' is declared \(did you mean 'stripe'"):
        app.task(name="send", limits=["strpe"])(send)
    with pytest.raises(UnknownLimit, match="did you mean 'stripe'"):
        app.limit("strpe")


@pytest.mark.parametrize("name", ["task:send", "queue:mail"])
def test_names_of_tasks_and_queues_are_reserved(name):
    with pytest.raises(BadOption, match=r"give their limits as @app.task\(limit=…\)"):
        Backlane("memory://", limits={name: ONE})


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ([ONE], "use a dict of names"),
        ({"stripe": 3}, r"limits\['stripe'\]: limit is 3; use Limit"),
        ({"a b": ONE}, "cannot name a limit"),
    ],
)
def test_what_is_no_dict_of_limits_is_refused(limits, told):
    with pytest.raises(BadOption, match=told):
        Backlane("memory://", limits=limits)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limit": 3}, "task 'send': limit is 3; use Limit"),
        ({"limit": "3/s"}, "use Limit"),
        ({"limits": "stripe"}, "give a list of names of limits"),
        ({"limits": 7}, "give a list of names of limits"),
    ],
)
def test_bad_limits_of_a_task_are_refused(options, told):
    app = Backlane("memory://", limits={"stripe": ONE})

    with pytest.raises(BadOption, match=told):
        app.task(name="send", **options)(send)
    assert "task:send" not in app.limits.declared


@pytest.mark.parametrize("options", [{"priority": 9}, {"delay": 5}])
def test_what_asks_for_another_order_is_refused_in_an_ordered_queue(options):
    app = Backlane("memory://", queues=[Queue("mail", ordering="group")])
    task = app.task(name="send", queue="mail")(send)

    with pytest.raises(
        BadOption, match=f"in the order of their enqueue, and {next(iter(options))}"
    ):
        task.using(group="ann", **options)
    with pytest.raises(BadOption, match="in the order of their enqueue"):
        task.using(**options).using(group="ann", **options)
    task.using(**options).enqueue()


def test_a_group_of_a_limit_that_has_none_is_refused():
    app = Backlane("memory://", limits={"stripe": ONE})

    with pytest.raises(BadOption, match="not per group"):
        app.limit("stripe", group="ann")


# -- tuned --


def test_a_limit_is_tuned_and_reset(every_url):
    with Backlane(every_url, limits={"stripe": Limit(concurrency=1, rate="10/s")}) as app:
        app.task(name="send", limits=["stripe"])(send).enqueue()

        tuned = app.limits.tune("stripe", concurrency=5)
        faster = app.limits.tune("stripe", rate="100/s", burst=3)
        free = app.limits.tune("stripe", concurrency=None)
        reset = app.limits.reset("stripe")

    assert tuned.limit == stored.Limit(5, Rate(10, 1_000, 1))
    assert faster.limit == stored.Limit(5, Rate(100, 1_000, 3))
    assert free.limit == stored.Limit(None, Rate(100, 1_000, 3))
    assert (reset.limit, reset.tuned) == (stored.Limit(1, Rate(10, 1_000, 1)), None)


@pytest.mark.parametrize("name", ["stripe", "queue:mail", "task:work"])
def test_a_declared_limit_is_tuned_before_anything_made_it(every_url, name):
    with Backlane(
        every_url,
        queues=[Queue("mail", limit=Limit(concurrency=2))],
        limits={"stripe": Limit(concurrency=2)},
    ) as app:
        app.task(name="work", limit=Limit(concurrency=2))(work)

        assert app.limits.reset(name).limit == stored.Limit(2)
        tuned = app.limits.tune(name, concurrency=5)
        with pytest.raises(UnknownLimit, match="did you mean 'stripe'"):
            app.limits.tune("stripes", concurrency=5)

    assert (tuned.declared, tuned.tuned) == (stored.Limit(2), stored.Limit(5))


def work() -> None: ...


def test_limits_are_tuned_from_coroutines():
    app = Backlane("memory://", limits={"stripe": ONE})
    app.task(name="send", limits=["stripe"])(send).enqueue()

    async def tune() -> list[int | None]:
        tuned = await app.limits.atune("stripe", concurrency=4)
        (listed,) = await app.limits.alist()
        reset = await app.limits.areset("stripe")
        return [tuned.limit.concurrency, listed.limit.concurrency, reset.limit.concurrency]

    assert asyncio.run(tune()) == [4, 4, 1]


def test_tuning_keeps_what_a_limit_says_of_groups():
    app = Backlane("memory://")
    app.task(name="send", limit=Limit(concurrency=1, per_group=True))(send).enqueue()

    assert app.limits.tune("task:send", concurrency=2).limit == stored.Limit(2, per_group=True)


def test_a_queue_that_has_no_limit_can_be_given_one():
    app = Backlane("memory://")
    app.task(name="send")(send).enqueue_many([((), {})] * 3)

    app.limits.tune("queue:default", concurrency=2)

    assert len(take(app, number=10)) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "nothing is to be changed"),
        ({"concurrency": 0}, "concurrency is 0; use a whole number from 1"),
        ({"rate": "fast"}, "use a text such as"),
        ({"burst": 3}, "burst is a part of a rate"),
    ],
)
def test_bad_tuning_is_refused(change, told):
    app = Backlane("memory://", limits={"stripe": ONE})
    app.task(name="send", limits=["stripe"])(send).enqueue()

    with pytest.raises(BadOption, match=told):
        app.limits.tune("stripe", **change)


def test_a_limit_that_the_store_lacks_is_not_tuned():
    app = Backlane("memory://", limits={"stripe": ONE})
    app.task(name="send", limits=["stripe"])(send).enqueue()

    with pytest.raises(UnknownLimit, match="did you mean 'stripe'"):
        app.limits.tune("strpe", concurrency=2)
    with pytest.raises(UnknownLimit):
        app.limits.reset("eu")


# -- outside of jobs --


def test_a_block_holds_a_place_and_gives_it_back(every_url):
    with Backlane(every_url, limits={"stripe": ONE}) as app:
        with app.limit("stripe", timeout=5):
            (inside,) = app.limits.list()
            with pytest.raises(LimitTimeout, match=r"within 0.05 s; wait for longer"):
                app.limit("stripe", timeout=0.05).__enter__()
        (after,) = app.limits.list()

        assert (inside.running, after.running) == (1, 0)


def test_a_block_of_a_coroutine_holds_a_place_and_gives_it_back(every_url):
    async def hold(app: Backlane) -> list[int]:
        counts = []
        async with app.limit("stripe", timeout=5):
            counts.append((await app.limits.alist())[0].running)
            with pytest.raises(LimitTimeout):
                await app.limit("stripe", timeout=0.05).__aenter__()
        counts.append((await app.limits.alist())[0].running)
        return counts

    with Backlane(every_url, limits={"stripe": ONE}) as app:
        assert asyncio.run(hold(app)) == [1, 0]


def test_an_error_in_a_block_gives_the_place_back_and_goes_on():
    app = Backlane("memory://", limits={"stripe": ONE})

    with pytest.raises(ZeroDivisionError), app.limit("stripe"):
        raise ZeroDivisionError

    assert app.limits.list()[0].running == 0


def test_who_waits_gets_the_place_that_is_given_back():
    app = Backlane("memory://", limits={"stripe": ONE})
    most, lock, inside = [0], threading.Lock(), [0]

    def work() -> None:
        with app.limit("stripe", timeout=20):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]


def test_one_block_can_be_entered_by_many_tasks_at_once():
    app = Backlane("memory://", limits={"stripe": Limit(concurrency=3)})
    block, most, inside = app.limit("stripe", timeout=20), 0, 0

    async def work() -> None:
        nonlocal most, inside
        async with block:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*[work() for _ in range(8)])

    asyncio.run(all_of_them())

    assert most == 3
    assert app.limits.list()[0].running == 0


def test_jobs_and_blocks_share_a_limit():
    app = Backlane("memory://", limits={"stripe": ONE})
    job = app.task(name="send", limits=["stripe"])(send).enqueue()

    with app.limit("stripe"):
        assert take(app) == []
        assert record(app, job).state is State.BLOCKED

    assert len(take(app)) == 1


def test_a_plain_block_is_refused_in_a_running_loop():
    app = Backlane("memory://", limits={"stripe": ONE})

    async def enter() -> None:
        with app.limit("stripe"):
            pass

    with pytest.raises(WrongUse, match="use `async with`"):
        asyncio.run(enter())


def test_a_place_is_kept_while_the_block_runs(monkeypatch):
    monkeypatch.setattr(holding, "LEASE_MS", 300)
    monkeypatch.setattr(holding, "EVERY_SECONDS", 0.05)
    app = Backlane("memory://", limits={"stripe": ONE})

    with app.limit("stripe"):
        time.sleep(0.8)
        assert app.limits.list()[0].running == 1


def lose(app: Backlane) -> None:
    """Let another take the only place, as if its lease had ended."""
    app.engine._store.limits.parts.clear()  # type: ignore[attr-defined]
    use = Use("stripe")
    app.engine.run(app.engine.acquire(use, None, b"another", 60_000))


def test_a_block_that_lost_its_place_is_told_at_its_end(monkeypatch):
    monkeypatch.setattr(holding, "EVERY_SECONDS", 0.02)
    app = Backlane("memory://", limits={"stripe": ONE})

    def work() -> None:
        with app.limit("stripe"):
            lose(app)
            time.sleep(0.2)

    with pytest.raises(LeaseLost, match="others may have been in it"):
        work()

    assert app.limits.list()[0].running == 1  # the other's


def test_an_async_block_that_lost_its_place_is_stopped_at_once(monkeypatch):
    monkeypatch.setattr(holding, "EVERY_SECONDS", 0.02)
    app = Backlane("memory://", limits={"stripe": ONE})
    began = time.monotonic()

    async def hold() -> None:
        async with app.limit("stripe"):
            lose(app)
            await asyncio.sleep(30)

    async def work() -> str:
        with pytest.raises(LeaseLost):
            await hold()
        await asyncio.sleep(0)  # it was not cancelled for good
        return "went on"

    assert asyncio.run(work()) == "went on"
    assert time.monotonic() - began < 10


def test_a_waiting_coroutine_that_is_cancelled_leaves_nothing_behind():
    app = Backlane("memory://", limits={"stripe": ONE})

    async def work() -> None:
        async with app.limit("stripe"):
            waiting = asyncio.ensure_future(app.limit("stripe").__aenter__())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(work())

    assert app.limits.list()[0].running == 0
