"""The options that select jobs, in the words of `Selection`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime

import click
import msgspec

from backlane.cli.store import JOB_ID
from backlane.engine.selection import Selection
from backlane.errors import BadOption
from backlane.model.clock import SystemClock
from backlane.model.job import State
from backlane.model.outcome import Reason
from backlane.model.schedule import moment_ms

Command = Callable[..., None]

AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Moment(click.ParamType[int]):
    """A moment in milliseconds: an ISO time (UTC, if it names no zone), or how long ago."""

    name = "time"

    def convert(self, value: object, *_: object) -> int:
        if isinstance(value, int):
            return value
        ago = AGO.fullmatch(str(value))
        if ago is not None:
            return SystemClock().wall_ms() - int(float(ago[1]) * SECONDS[ago[2]] * 1000)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError as error:
            raise BadOption(
                f"{value!r} is no time; use 2030-01-31T12:00, or how long ago: 90s, 15m, 6h, 2d"
            ) from error
        return moment_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC), "time")


MOMENT = Moment()

_OPTIONS: dict[str, Callable[[Command], Command]] = {
    "ids": click.argument("ids", nargs=-1, type=JOB_ID, metavar="[ID]..."),
    "queue": click.option("--queue", metavar="NAME", help="Jobs of this queue."),
    "task": click.option("--task", metavar="NAME", help="Calls of this task."),
    "states": click.option(
        "--state",
        "states",
        multiple=True,
        metavar="STATE",
        type=click.Choice([str(each) for each in State]),
        help=f"In this state: {', '.join(State)}; may be repeated.",
    ),
    "reasons": click.option(
        "--reason",
        "reasons",
        multiple=True,
        metavar="REASON",
        type=click.Choice([str(each) for each in Reason]),
        help=f"Failed with this reason: {', '.join(Reason)}; may be repeated.",
    ),
    "key": click.option("--key", metavar="KEY", help="Jobs enqueued with this key."),
    "group": click.option("--group", metavar="NAME", help="Jobs of this group."),
    "tag": click.option("--tag", metavar="TAG", help="Jobs with this tag."),
    "workflow": click.option(
        "--workflow", metavar="ID", type=JOB_ID, help="Jobs of this workflow."
    ),
    "since_ms": click.option(
        "--since",
        "since_ms",
        metavar="TIME",
        type=MOMENT,
        help="Enqueued then or later: an ISO time, or so long ago, as 90s, 15m, 6h or 2d.",
    ),
    "before_ms": click.option(
        "--before", "before_ms", metavar="TIME", type=MOMENT, help="Enqueued earlier than that."
    ),
    "text": click.option("--text", metavar="TEXT", help="Jobs with TEXT in an error's message."),
}


def selecting(*names: str) -> Callable[[Command], Command]:
    """Give a command these options, and hand it one `selection` made of them."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_selection(**given: object) -> None:
            fields = {name: given.pop(name) for name in names}
            command(selection=msgspec.convert(fields, Selection), **given)

        decorated: Command = with_selection
        for name in reversed(names):
            decorated = _OPTIONS[name](decorated)
        return decorated

    return decorate
