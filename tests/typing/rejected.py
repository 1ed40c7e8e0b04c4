"""What both type checkers must reject: each line that ends in `# error`, and no other."""

from __future__ import annotations

from datetime import timedelta

from backlane import Backlane, Call, Context, JobHandle, Middleware, Next, Queue, Retry, Snooze
from backlane.testing import testing
from backlane.worker import Worker

app = Backlane("sqlite:///jobs.db")


@app.task(queue="mail")
async def send_mail(user_id: int, template: str) -> str:
    return f"{user_id}: {template}"


@app.task
def resize(context: Context, path: str, *, width: int = 100) -> bytes:
    return path.encode() * width


# -- arguments --


async def arguments() -> None:
    send_mail.enqueue("7", template="hi")  # error
    send_mail.enqueue(7)  # error
    send_mail.enqueue(7, "hi", "there")  # error
    send_mail.enqueue(7, templat="hi")  # error
    send_mail.enqueue(7, template=None)  # error
    await send_mail.aenqueue("7", "hi")  # error
    send_mail.using(delay=1).enqueue("7", "hi")  # error
    await send_mail.using(delay=1).aenqueue(7)  # error
    resize.enqueue(path=b"a")  # error
    resize.enqueue("a", 100)  # error
    resize.enqueue(Context.detached(), "a")  # error
    resize("a", width="100")  # error
    resize()  # error
    send_mail("7", "hi").close()  # error
    send_mail.enqueue_many([7])  # error


# -- results --


async def results() -> None:
    number: int = send_mail.enqueue(7, "hi").result()  # error
    text: str = resize.enqueue("a").result()  # error
    other: JobHandle[int] = send_mail.enqueue(7, "hi")  # error
    late: int = await (await send_mail.aenqueue(7, "hi")).aresult()  # error
    direct: str = resize("a")  # error
    missing: str = send_mail(7, "hi")  # error
    all_of: list[JobHandle[int]] = send_mail.enqueue_many([((7, "hi"), {})])  # error
    print(number, text, other, late, direct, missing, all_of)


# -- options --


def options() -> None:
    send_mail.using(dely=60)  # error
    send_mail.using(delay="60")  # error
    send_mail.using(priority="high")  # error
    send_mail.using(headers={"a": 1})  # error
    send_mail.using(at="tomorrow")  # error
    send_mail.using(delay=1).using(quue="mail")  # error
    app.task(quue="mail")  # error
    app.task(priority="5")  # error
    app.task(retry=3)  # error
    app.task(runs_in="proces")  # error
    app.task(timeout=(1, 2, 3))  # error
    Queue("mail", max_job=3)  # error
    Queue("mail", runs_in="fiber")  # error
    Queue("mail", on_full="block")  # error
    Queue("mail", max_wait="30")  # error
    send_mail.using(on_full="block")  # error
    send_mail.using(ticket=7)  # error
    Queue(3)  # error
    Retry(atempts=3)  # error
    Retry(on=OSError)  # error
    Snooze("soon")  # error
    Backlane("memory://", quees=[])  # error
    Backlane("memory://", queues=["mail"])  # error
    Backlane(3)  # error
    app.messages("orders").send("text")  # error
    app.messages("orders").send(b"", queue="other")  # error
    app.messages("orders").receive(max="1")  # error
    app.job(7)  # error
    Worker(app, concurency=3)  # error
    Worker("app")  # error


# -- what is wrapped and watched --


def plain(call: Call, following: Next) -> object:
    return following(call)


async def short(call: Call) -> object:
    return call


def watch(event: int) -> None:
    print(event)


Middleware(attempt=plain)  # error
Middleware(attempt=short)  # error
app.observe(watch)  # error


def inside(context: Context) -> None:
    context.progress("half")  # error
    context.attempt = 2  # error
    for item in context.track(3):  # error
        print(item)


async def in_one_transaction(context: Context) -> None:
    with context.transaction(connection=3, autocommit=True):  # error
        pass
    async with context.transaction() as tx:
        tx.complete(1, 2)  # error
        tx.connection = None  # error
        await tx.complete(1)  # error


def kit() -> None:
    with testing(app) as t:
        t.advance(hours="3")  # error
        t.drain(timedelta)  # error


def tie(context: Context) -> None:
    send_mail.node(7)  # error
    send_mail.node("seven", template="hi")  # error
    send_mail.node(send_mail.node(7, "hi").out, "hi")  # error
    context.step("send", send_mail, 7, "hi", 3)  # error
    context.sleep_until(3)  # error
