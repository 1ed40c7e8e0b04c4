"""The options that select jobs, in the words of `Selection`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import click
import msgspec

from backlane.cli.store import JOB_ID
from backlane.engine.selection import Selection
from backlane.model.job import State
from backlane.model.outcome import Reason

Command = Callable[..., None]

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
