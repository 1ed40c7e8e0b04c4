"""Bad limits: of tasks, queues and applications, held and tuned."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from tests.bad_input.book import Bad, World
from tests.bad_input.options import NAMES, Use, bad, ordinary

from backlane import Backlane, Limit, Queue, UnknownLimit, UnknownOption
from backlane.errors import WrongUse

WHOLE = [0, -1, 1.5, "5", True, [1], 10**30]
RATES = [
    "",
    "100",
    "100/",
    "/s",
    "0/s",
    "-1/s",
    "1e3/s",
    "10/w",
    "\u0661/s",  # a digit, but none of ours
    "1000001/s",
    "9" * 13 + "/s",
]
RATES_OF_PAIRS: list[Any] = [
    5,
    (1,),
    (0, 1),
    (1, 0),
    (1, -1),
    (1, "s"),
    (1.5, 1),
    (1, 1, 1),
    [1, 1],
]
NO_LIMITS: list[Any] = [3, "3/s", {"concurrency": 3}, [Limit(concurrency=1)], Limit]
ONE = Limit(concurrency=1)


def limited(world: World) -> Backlane:
    app = Backlane("memory://", limits={"stripe": ONE})
    app.task(name="send", limits=["stripe"])(ordinary).enqueue()
    return app


def ordered(_: World) -> Any:
    app = Backlane("memory://", queues=[Queue("q", ordering="group")])
    return app.task(name="send", queue="q")(ordinary)


REFUSED: dict[str, tuple[Use, list[Any]]] = {
    "Limit(concurrency=…)": (lambda world, it: Limit(concurrency=it), WHOLE),
    "Limit(rate=…)": (lambda world, it: Limit(rate=it), [*RATES, *RATES_OF_PAIRS]),
    "Limit(burst=…)": (lambda world, it: Limit(rate="1/s", burst=it), WHOLE),
    "Limit(per_group=…)": (lambda world, it: Limit(1, per_group=it), [None, 1, "yes"]),
    "Limit() of nothing": (lambda world, it: Limit(per_group=it), [True, False]),
    "Limit() with a burst alone": (lambda world, it: Limit(1, burst=it), [1, 10]),
    "Queue(limit=…)": (lambda world, it: Queue("q", limit=it), NO_LIMITS),
    "Queue(fair=…)": (lambda world, it: Queue("q", fair=it), [None, 1, "yes"]),
    "Queue(ordering=…)": (lambda world, it: Queue("q", ordering=it), ["fifo", True, ["group"], 3]),
    "Queue(ordering=…) and a concurrency per group": (
        lambda world, it: Queue("q", ordering="group", limit=it),
        [Limit(2, per_group=True), Limit(1, "1/s", per_group=True)],
    ),
    "@app.task(limit=…)": (
        lambda world, it: world.app.task(name="n", limit=it)(ordinary),
        NO_LIMITS,
    ),
    "@app.task(limits=…)": (
        lambda world, it: world.app.task(name="n", limits=it)(ordinary),
        ["stripe", b"stripe", 7, None, {"stripe": ONE}],
    ),
    "Backlane(limits=…)": (
        lambda world, it: Backlane("memory://", limits=it),
        [None, 3, "stripe", ["stripe"], {"s": 3}, {"task:a": ONE}, {"queue:a": ONE}],
    ),
    "Backlane(limits={…: …})": (
        lambda world, it: Backlane("memory://", limits={it: ONE}),
        [name for name in NAMES if not isinstance(name, list)],
    ),
    "app.limit(timeout=…)": (
        lambda world, it: limited(world).limit("stripe", timeout=it),
        [-1, "5", float("nan"), [5]],
    ),
    "app.limit(group=…)": (lambda world, it: limited(world).limit("stripe", group=it), ["ann", ""]),
    "app.limits.tune(concurrency=…)": (
        lambda world, it: limited(world).limits.tune("stripe", concurrency=it),
        WHOLE,
    ),
    "app.limits.tune(rate=…)": (
        lambda world, it: limited(world).limits.tune("stripe", rate=it),
        RATES,
    ),
    "app.limits.tune(burst=…)": (
        lambda world, it: limited(world).limits.tune("stripe", burst=it),
        [*WHOLE, 3],
    ),
    "using(priority=…) of a group in order": (
        lambda world, it: ordered(world).using(group="ann", priority=it),
        [9],
    ),
    "using(delay=…) of a group in order": (
        lambda world, it: ordered(world).using(delay=it).using(group="ann"),
        [9],
    ),
}


async def _in_a_loop(app: Backlane) -> None:
    with app.limit("stripe"):
        pass


def unknown() -> Iterator[Bad]:
    """What is misspelt is told with the nearest."""
    calls: dict[str, Any] = {
        "app.limit('strpe')": lambda world: limited(world).limit("strpe"),
        "app.limit([])": lambda world: limited(world).limit("x" * 500),
        "app.limits.tune('strpe')": lambda world: limited(world).limits.tune(
            "strpe", concurrency=1
        ),
        "app.limits.reset('strpe')": lambda world: limited(world).limits.reset("strpe"),
        "limits=['strpe']": lambda world: limited(world).task(name="n", limits=["strpe"])(ordinary),
    }
    for what, call in calls.items():
        yield Bad(what, call, UnknownLimit)
    yield Bad("Limit(concurency=…)", lambda _: Limit(concurency=3), UnknownOption)  # type: ignore[call-arg]
    yield Bad(
        "with app.limit(…) in a loop",
        lambda world: asyncio.run(_in_a_loop(limited(world))),
        WrongUse,
    )


def cases() -> Iterator[Bad]:
    """All of these."""
    for where, (use, values) in REFUSED.items():
        for value in values:
            yield bad(where, use, value)
    yield from unknown()
