"""What both type checkers must accept: the example application, and the types it gets."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from backlane import (
    At,
    Backlane,
    Call,
    Context,
    Cron,
    Every,
    Failure,
    JobChange,
    JobFailed,
    JobHandle,
    JobTransaction,
    Message,
    Middleware,
    Next,
    Node,
    Progress,
    Queue,
    QueueFull,
    Retry,
    Schedule,
    Snooze,
    State,
    Task,
    Unique,
    Workflow,
    WorkflowHandle,
    WorkflowProgress,
    chain,
    chord,
    events,
    group,
)
from backlane.testing import testing
from backlane.worker import Worker


@dataclass
class Video:
    """A result of one's own."""

    path: str
    length: timedelta


async def timed(call: Call, following: Next) -> object:
    return await following(call)


app = Backlane(
    "sqlite:///jobs.db",
    queues=[
        Queue("mail", max_jobs=50_000, max_wait=timedelta(seconds=30), group_share=0.1),
        Queue("video", runs_in="process", concurrency=2, on_full="wait", on_full_timeout=60),
    ],
    middleware=[Middleware(attempt=timed, enqueue=timed)],
)


# -- declaring --


@app.task(queue="mail", timeout=30, retry=Retry(attempts=8, base=1, cap=300, on=(OSError,)))
async def send_mail(user_id: int, template: str) -> str:
    return f"{user_id}: {template}"


@app.task(queue="video")
def transcode(context: Context, path: str, *, quality: float = 0.5) -> Video:
    for part in context.track([path]):
        context.progress(quality, part)
    if context.cancelled:
        raise Snooze(timedelta(minutes=1))
    return Video(path, timedelta(0))


@app.task(name="tally", priority=7, expires=timedelta(hours=1), keep_result=False)
def tally(*numbers: int, **named: float) -> None: ...


@app.task
def plain(when: datetime | None = None) -> list[int]:
    return [when.year] if when else []


@app.task
async def with_context(context: Context, number: int) -> int:
    context.check()
    return number + context.attempt


assert_type(send_mail.name, str)
by_name: Task[..., Coroutine[Any, Any, str], str] = send_mail
enqueuing: Callable[[int, str], JobHandle[str]] = send_mail.enqueue


# -- calling --


async def call_directly() -> None:
    assert_type(await send_mail(7, template="hi"), str)
    assert_type(await with_context(3), int)
    assert_type(transcode("a.mov", quality=1.0), Video)
    assert_type(plain(), list[int])
    assert_type(tally(1, 2, three=3.0), None)


def enqueue() -> None:
    job = send_mail.enqueue(7, template="hi")
    assert_type(job, JobHandle[str])
    assert_type(job.result(timeout=5), str)
    assert_type(job.id, uuid.UUID)
    assert_type(job.state, State)
    assert_type(job.progress, Progress | None)
    assert_type(job.cancel(), bool)
    assert_type(transcode.enqueue("a.mov", quality=0.9).result(), Video)
    assert_type(tally.enqueue(1, 2, three=3.0).result(), None)
    assert_type(plain.enqueue(datetime.now(UTC)).result(timedelta(seconds=1)), list[int])
    assert_type(send_mail.using(delay=60, priority=5, key="a").enqueue(7, "hi"), JobHandle[str])
    send_mail.using(at=datetime.now(UTC), headers={"a": "b"}, group="acme", id=uuid.uuid4())
    send_mail.using(on_full="wait", on_full_timeout=5, ticket="t", idempotency_key="k")
    assert_type(send_mail.enqueue(7, "hi").pressure, float | None)
    assert_type(send_mail.enqueue(7, "hi").expected_wait, timedelta | None)
    send_mail.using(queue="video", expires=timedelta(days=1)).using(delay=0.5).enqueue(7, "hi")
    many = send_mail.enqueue_many([((7, "hi"), {}), ((8,), {"template": "hi"})], atomic=True)
    assert_type(many, list[JobHandle[str]])
    for change in job.follow():
        assert_type(change, JobChange)


async def aenqueue() -> None:
    job = await send_mail.aenqueue(7, template="hi")
    assert_type(job, JobHandle[str])
    assert_type(await job.aresult(timeout=5), str)
    assert_type(await (await with_context.aenqueue(3)).aresult(), int)
    assert_type(await send_mail.using(delay=1).aenqueue(7, "hi"), JobHandle[str])
    assert_type(await send_mail.aenqueue_many([((7, "hi"), {})]), list[JobHandle[str]])
    assert_type(await job.acancel(), bool)
    async for change in job.events():
        assert_type(change.state, State)


def refusals() -> None:
    try:
        send_mail.enqueue(7, "hi").result()
    except QueueFull as full:
        assert_type(full.retry_after, timedelta | None)
    except JobFailed as failed:
        assert_type(failed.reason, str)
    assert_type(app.job(uuid.uuid4()), JobHandle[Any])


# -- transactions --


def joining(session: object) -> None:
    assert_type(send_mail.using(connection=session).enqueue(7, "hi"), JobHandle[str])
    assert_type(send_mail.using(connection="default").enqueue(7, "hi"), JobHandle[str])


def completing(context: Context) -> str:
    with context.transaction() as tx:
        assert_type(tx.complete(3), int)
        return tx.complete("paid")


async def in_one_transaction(context: Context, session: object) -> None:
    with context.transaction() as tx:
        assert_type(tx, JobTransaction)
        tx.connection.execute("update account set paid = 1")
        tx.complete("paid")
    async with context.transaction(session) as tx:
        await tx.connection.execute("update account set paid = 1")
        tx.complete()


# -- messages, observers, life --


def messages() -> None:
    orders = app.messages("orders")
    assert_type(orders.send(b"...", delay=5, priority=9), uuid.UUID)
    assert_type(orders.send_many([b"a", b"b"]), list[uuid.UUID])
    for message in orders.receive(max=10, wait=20):
        assert_type(message, Message)
        assert_type(message.body, bytes)
        message.extend(by=60)
        message.ack()


async def amessages() -> None:
    orders = app.messages("orders")
    await orders.asend(b"...")
    for message in await orders.areceive(max=10, wait=20, lease=timedelta(minutes=1)):
        await message.aack()


@app.observe
def watch(event: events.Event) -> None:
    if isinstance(event, events.JobBuried):
        assert_type(event.reason, str)


async def stream(job: JobHandle[Video]) -> AsyncIterator[State]:
    async for change in job.events():
        yield change.state


async def live() -> None:
    async with app, Worker(app, queues=["mail"], concurrency=10):
        await aenqueue()
    with app, Worker(app):
        enqueue()


def in_a_test() -> None:
    with testing(app) as kit:
        job = send_mail.enqueue(7, template="hi")
        video = transcode.enqueue("a.mov", quality=0.9)
        kit.assert_enqueued(send_mail, user_id=7)
        kit.drain()
        kit.advance(hours=3)
        assert_type(job.result(), str)
        assert_type(video.result(), Video)


if __name__ == "__main__":
    asyncio.run(live())


# -- on time, and once --


@app.schedule("0 3 * * *", tz="Europe/Paris", catch_up="all")
@app.task(keep_latest=True, unique=Unique(until="started"), keep=timedelta(days=1), tags=["a"])
async def nightly(number: int = 0) -> Video:
    return Video("", timedelta(number))


@app.schedule(Every(60), args=(7,), jitter=timedelta(seconds=5))
def minutely(context: Context, number: int) -> int:
    return number


def on_time() -> None:
    assert_type(nightly.latest(), Video)
    assert_type(nightly.enqueue(7), JobHandle[Video])
    assert_type(minutely(7), int)
    assert_type(minutely.enqueue(number=7), JobHandle[int])
    assert_type(app.schedules.put("x", Cron("@daily"), nightly), Schedule)
    assert_type(app.schedules.put("y", At(datetime.now(UTC)), minutely.using(priority=3)), Schedule)
    assert_type(app.schedules.list(), list[Schedule])


# -- tied together --


@app.task
def resize(video: Video, width: int = 640) -> bytes:
    return video.path[:width].encode()


@app.task
async def total(sizes: list[bytes]) -> int:
    return sum(map(len, sizes))


@app.task
def alarm(failure: Failure) -> None:
    assert_type(failure.job, uuid.UUID)
    assert_type(failure.state, State)


def tie() -> None:
    video = transcode.node("a.mov", quality=1.0)
    assert_type(video, Node[Video])
    assert_type(video.out, Video)
    assert_type(video.out_or_none, Video | None)
    small = resize.using(priority=8).node(video.out, width=3)
    assert_type(total.node([small.out, resize.node(video.out).out]), Node[int])
    assert_type(small.after(video).on_error(alarm.node()), Node[bytes])
    run = small.enqueue()
    assert_type(run, WorkflowHandle[bytes])
    assert_type(run.result(timeout=5), bytes)
    assert_type(run.progress, WorkflowProgress)
    assert_type(run.cancel(), int)
    assert_type(group([small, resize.node()]), Workflow[list[bytes]])
    assert_type(chord([small, video], total.node(), partial=True), Workflow[int])
    assert_type(resize.map([Video("", timedelta())]), Node[list[bytes]])
    assert_type(resize.starmap([], partial=True).out, list[bytes])
    assert_type(total.chunks(resize.map().out, 100), Node[list[int]])
    chain(video, group([resize.node(), resize.node()]), total.node()).on_error(alarm.node())
    assert_type(app.workflow(run.id), WorkflowHandle[Any])


async def atie() -> None:
    run = await chord([resize.node(transcode.node("a.mov").out)], total.node()).aenqueue()
    assert_type(await run.aresult(), int)
    async for progress in run.events():
        assert_type(progress.fraction, float)


def stepwise(context: Context, amount: int) -> None:
    assert_type(context.step("resize", resize, Video("", timedelta()), amount), bytes)
    asked = context.step("ask", transcode.enqueue, "a.mov", quality=0.5)
    assert_type(asked, JobHandle[Video])
    assert_type(context.join([asked], partial=True), list[Video | None])
    context.sleep_until(datetime.now(UTC))


async def astepwise(context: Context) -> None:
    sent = await context.astep("send", send_mail, 7, template="hi")
    assert_type(sent, str)
    asked = await context.astep("ask", send_mail.aenqueue, 7, "hi")
    assert_type(await context.ajoin([asked]), list[str | None])
