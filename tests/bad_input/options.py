"""Bad names, options, durations, ids and addresses."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from tests.bad_input.book import Bad, World

from backlane import Backlane, BadOption, Context, Middleware, Queue, Retry, Snooze
from backlane.errors import NotSupported, UnknownOption, UnknownQueue

Use = Callable[[World, Any], object]


async def passing(call: Any, following: Any) -> Any:
    return await following(call)


def ordinary(x: int = 0) -> int:
    return x


NAMES = ["", "a b", "ü", "a/b", "a\n", "a\x00", "x" * 129, "../a", "{}", None, 3, b"mail", ["mail"]]

NAMED: dict[str, Use] = {
    "Queue(…)": lambda world, name: Queue(name),
    "@app.task(name=…)": lambda world, name: world.app.task(name=name)(ordinary),
    "@app.task(queue=…)": lambda world, name: world.app.task(name="n", queue=name)(ordinary),
    "using(queue=…)": lambda world, name: world.good.using(queue=name),
    "app.messages(…)": lambda world, name: world.app.messages(name),
}


def names() -> Iterator[Bad]:
    for where, use in NAMED.items():
        for name in NAMES:
            if where.startswith("@app.task(name") and name is None:
                continue  # not given
            yield bad(where, use, name)
    for where in ("key", "group", "idempotency_key"):
        for text in ["", "x" * 257, "half \ud800", None, 3, b"k", ["k"]]:
            yield bad(f"using({where}=…)", using(where), text)
            yield bad(f"send({where}=…)", sending(where), text)


def using(option: str) -> Use:
    return lambda world, value: world.good.using(**{option: value})


def sending(option: str) -> Use:
    return lambda world, value: world.app.messages("raw").send(b"x", **{option: value})


DURATIONS: list[Any] = [
    -1,
    -0.001,
    float("nan"),
    float("inf"),
    1e12,
    "5",
    "5s",
    True,
    [5],
    {},
    timedelta(seconds=-1),
    timedelta.max,
]

TIMED: dict[str, Use] = {
    "using(delay=…)": using("delay"),
    "using(expires=…)": using("expires"),
    "send(delay=…)": sending("delay"),
    "send(expires=…)": sending("expires"),
    "@app.task(timeout=…)": lambda world, it: world.app.task(name="t", timeout=it)(ordinary),
    "@app.task(expires=…)": lambda world, it: world.app.task(name="t", expires=it)(ordinary),
    "using(on_full_timeout=…)": using("on_full_timeout"),
    "send(on_full_timeout=…)": sending("on_full_timeout"),
    "Queue(max_wait=…)": lambda world, it: Queue("q", max_wait=it),
    "Queue(on_full_timeout=…)": lambda world, it: Queue("q", on_full_timeout=it),
    "Retry(base=…)": lambda world, it: Retry(base=it),
    "Retry(cap=…)": lambda world, it: Retry(cap=it),
    "Snooze(…)": lambda world, it: Snooze(it),
    "receive(wait=…)": lambda world, it: world.app.messages("raw").receive(wait=it),
    "receive(lease=…)": lambda world, it: world.app.messages("raw").receive(lease=it),
    "extend(by=…)": lambda world, it: world.app.messages("raw").extend(RECEIPT, by=it),
    "release(delay=…)": lambda world, it: world.app.messages("raw").release(RECEIPT, delay=it),
    "result(timeout=…)": lambda world, it: world.good.enqueue(1).result(timeout=it),
}

RECEIPT = f"{'0' * 32}.1"


def durations() -> Iterator[Bad]:
    for where, use in TIMED.items():
        for duration in DURATIONS:
            yield bad(where, use, duration)


def bad(where: str, use: Use, value: Any) -> Bad:
    return Bad(f"{where} with {value!r:.40}", lambda world: use(world, value), BadOption)


def tuned(world: World, **bounds: Any) -> object:
    world.good.enqueue(1)
    return world.app.queue("default").tune(**bounds)


WHOLE = [0, -1, 1.5, "5", True, [1]]
COUNTED = [*WHOLE, 2**63, 10**30]  # what a store has to hold

OPTIONS: dict[str, tuple[Use, list[Any]]] = {
    "Queue(max_jobs=…)": (lambda world, it: Queue("q", max_jobs=it), COUNTED),
    "Queue(max_bytes=…)": (lambda world, it: Queue("q", max_bytes=it), COUNTED),
    "Queue(concurrency=…)": (lambda world, it: Queue("q", concurrency=it), COUNTED),
    "Queue(runs_in=…)": (
        lambda world, it: Queue("q", runs_in=it),
        ["", "proces", 3, True, b"loop"],
    ),
    "Queue(max_wait=0)": (lambda world, it: Queue("q", max_wait=it), [0, 0.0, timedelta(0)]),
    "Queue(group_share=…)": (
        lambda world, it: Queue("q", group_share=it),
        [0, -0.1, 1.1, float("nan"), "0.1", True, [0.1]],
    ),
    "Queue(on_full=…)": (lambda world, it: Queue("q", on_full=it), ["", "block", None, True, 3]),
    "using(ticket=…)": (using("ticket"), [3, b"ticket", True, ["t"]]),
    "send(ticket=…)": (sending("ticket"), [3, b"ticket", True, ["t"]]),
    "using(on_full=…)": (using("on_full"), ["", "block", None, True, 3]),
    "send(on_full=…)": (sending("on_full"), ["", "block", None, True, 3]),
    "tune(group_share=…)": (
        lambda world, it: tuned(world, group_share=it),
        [0, -0.1, 1.1, float("nan"), "0.1", True],
    ),
    "tune(max_wait=0)": (lambda world, it: tuned(world, max_wait=it), [0, timedelta(0)]),
    "expected_wait(…)": (
        lambda world, it: world.app.queue("default").expected_wait(it),
        [-1, 10, 5.0, "5", None],
    ),
    "enqueue_many(…) with an id": (
        lambda world, it: world.good.using(**it).enqueue_many([((1,), {})]),
        [{"idempotency_key": "k"}],
    ),
    "send_many(…) with an id": (
        lambda world, it: world.app.messages("raw").send_many([b"a"], **it),
        [{"idempotency_key": "k"}, {"id": "0197a0c5-7c00-7000-8000-000000000007"}],
    ),
    "Retry(attempts=…)": (lambda world, it: Retry(attempts=it), [*WHOLE, None]),
    "Retry(on=…)": (lambda world, it: Retry(on=it), [ValueError, [ValueError], ("a",), (3,), None]),
    "Retry(never=…)": (lambda world, it: Retry(never=it), [ValueError, ("OSError",), (int,), 3]),
    "Retry(base above cap)": (lambda world, it: Retry(base=it, cap=1), [2, 1.5, timedelta(1)]),
    "using(priority=…)": (using("priority"), [-1, 10, 5.0, "5", True, None]),
    "send(priority=…)": (sending("priority"), [-1, 10, 5.0, "5", True, None]),
    "@app.task(priority=…)": (
        lambda world, it: world.app.task(name="t", priority=it)(ordinary),
        [-1, 10, 5.0, "5", True, None],
    ),
    "@app.task(timeout=(soft, hard))": (
        lambda world, it: world.app.task(name="t", timeout=it)(ordinary),
        [0, (5, 1), (0, 1), (1,), (1, 2, 3), (), ("a", 2), (1, None), [1, 2]],
    ),
    "@app.task(retry=…)": (
        lambda world, it: world.app.task(name="t", retry=it)(ordinary),
        [3, "3", None, Retry, True],
    ),
    "@app.task(runs_in=…)": (
        lambda world, it: world.app.task(name="t", runs_in=it)(ordinary),
        ["", "proces", 3, "Thread"],
    ),
    "@app.task(keep_result=…)": (
        lambda world, it: world.app.task(name="t", keep_result=it)(ordinary),
        [1, "yes", None],
    ),
    "@app.task on": (
        lambda world, it: world.app.task(name="t")(it),
        [3, "f", print, int, ordinary.__get__(3), lambda: 1, Bad, None],
    ),
    "using(at=…)": (using("at"), ["2030-01-01", 3, None, datetime(2030, 1, 1)]),  # noqa: DTZ001
    "using(headers=…)": (using("headers"), [None, 3, "a", ["a"], [("a", "b")]]),
    "send(headers=…)": (sending("headers"), [None, 3, "a", ["a"]]),
    "receive(max=…)": (
        lambda world, it: world.app.messages("raw").receive(max=it),
        [0, -1, 1.5, "5", True, None, 1001],
    ),
    "send(…)": (lambda world, it: world.app.messages("raw").send(it), ["a", None, 3, [b"a"], {}]),
    "send_many(…)": (
        lambda world, it: world.app.messages("raw").send_many(it),
        [b"abc", ["a"], [None], 3, None, "abc"],
    ),
    "ack(…)": (
        lambda world, it: world.app.messages("raw").ack(it),
        ["", "a", None, 3, b"a", "0" * 32, f"{'0' * 32}.x", f"{'g' * 32}.1", f"{'0' * 32}.{9**30}"],
    ),
    "ack_many(…)": (lambda world, it: world.app.messages("raw").ack_many(it), [3, None, "ab", [3]]),
    "enqueue_many(…)": (
        lambda world, it: world.good.enqueue_many(it),
        [3, None, "ab", [3], [(1,)], [((1,), {}, 3)], [((1,), 3)], [([1], {})], [((1,), None)]],
    ),
    "enqueue_many(atomic=…)": (
        lambda world, it: world.good.enqueue_many([((1,), {})], atomic=it),
        [1, "yes", None],
    ),
    "app.observe(…)": (lambda world, it: world.app.observe(it), [3, None, "print"]),
    "Middleware(enqueue=…)": (lambda world, it: Middleware(enqueue=it), [3, "f", [passing]]),
    "Middleware(attempt=…)": (lambda world, it: Middleware(attempt=it), [3, "f", [passing]]),
    "Backlane(url)": (
        lambda world, it: Backlane(it).engine,
        ["", "jobs.db", None, 3, b"memory://", "memory", "sqlight:///a", "nosuch://", "memory://a"],
    ),
    "Backlane(queues=…)": (
        lambda world, it: Backlane("memory://", queues=it),
        [3, None, "ab", ["mail"], [Queue("a"), Queue("a")], Queue("a")],
    ),
    "Backlane(middleware=…)": (
        lambda world, it: Backlane("memory://", middleware=it),
        [3, None, [passing], passing, ["a"], Middleware(enqueue=passing)],
    ),
    "Backlane(retry=…)": (lambda world, it: Backlane("memory://", retry=it), [3, None, Retry]),
    "Backlane(clock=…)": (lambda world, it: Backlane("memory://", clock=it), [3, "now"]),
    "Backlane(max_bytes=…)": (lambda world, it: Backlane("memory://", max_bytes=it), WHOLE),
    "progress(…)": (
        lambda world, it: Context.detached().progress(it),
        [-0.1, 1.1, float("nan"), "half"],
    ),
}


def options() -> Iterator[Bad]:
    for where, (use, values) in OPTIONS.items():
        for value in values:
            yield bad(where, use, value)


MISSPELT: list[tuple[str, Callable[[World], object]]] = [
    ("Backlane(quees=…)", lambda world: Backlane("memory://", quees=())),  # type: ignore[arg-type]
    ("Queue(max_job=…)", lambda world: Queue("q", max_job=3)),  # type: ignore[call-arg]
    ("Retry(atempts=…)", lambda world: Retry(atempts=3)),  # type: ignore[call-arg]
    ("@app.task(quue=…)", lambda world: world.app.task(quue="a")),  # type: ignore[call-overload]
    ("using(dely=…)", lambda world: world.good.using(dely=3)),  # type: ignore[call-arg]
    ("send(prioritty=…)", lambda world: world.app.messages("raw").send(b"", prioritty=3)),  # type: ignore[call-arg]
]


def misspelt() -> Iterator[Bad]:
    for what, call in MISSPELT:
        yield Bad(what, call, UnknownOption)


IDS = [
    "",
    "a",
    "0" * 32,
    str(uuid.UUID(int=4)),
    uuid.UUID(int=5, version=4),
    b"",
    b"0" * 16,
    3,
    None,
    ["a"],
]


def ids() -> Iterator[Bad]:
    for given in IDS:
        yield bad("app.job(…)", lambda world, it: world.app.job(it), given)
        yield bad("using(id=…)", using("id"), given)
        yield bad("send(id=…)", sending("id"), given)


def conflicts() -> Iterator[Bad]:
    """Yield options that are each right and wrong together, or wrong here."""
    when = datetime.fromisoformat("2030-01-01T00:00:00Z")
    closed = [Queue("mail")]
    yield Bad("delay and at", lambda world: world.good.using(delay=1, at=when), BadOption)
    yield Bad(
        "a queue that is not declared",
        lambda world: Backlane("memory://", queues=closed).task(queue="mial")(ordinary),
        UnknownQueue,
    )
    yield Bad(
        "messages of a queue that is not declared",
        lambda world: Backlane("memory://", queues=closed).messages("mial"),
        UnknownQueue,
    )
    yield Bad(
        "a task of the same name",
        lambda world: world.app.task(name=world.good.name)(ordinary),
        BadOption,
    )
    yield Bad(
        "a connection on an engine without one",
        lambda world: world.good.using(connection=object()),
        (NotSupported, BadOption),
    )
    yield Bad(
        "a wait for room in an open transaction",
        lambda world: world.good.using(on_full="wait", connection=object()),
        (NotSupported, BadOption),
    )
    yield Bad(
        "an async thread",
        lambda world: world.app.task(name="t", runs_in="thread")(passing),
        BadOption,
    )


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    yield from names()
    yield from durations()
    yield from options()
    yield from misspelt()
    yield from ids()
    yield from conflicts()
