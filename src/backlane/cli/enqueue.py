"""`backlane enqueue`: one call of a task, its arguments given in words."""

from __future__ import annotations

import inspect
import uuid
from contextlib import closing
from typing import Any

import click
import msgspec

from backlane.app import Backlane
from backlane.cli.application import load
from backlane.cli.output import Output
from backlane.cli.store import refuse_emptiness
from backlane.errors import Undecodable, UnknownTask, nearest
from backlane.handle import JobHandle
from backlane.task import Task


class EnqueueView(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of `enqueue`; state and result are there with `--wait`."""

    id: uuid.UUID
    task: str
    state: str | None = None
    result: object = None


@click.command()
@click.argument("target", metavar="MODULE:ATTR")
@click.argument("task", metavar="TASK")
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1)
@click.option("--delay", type=click.FloatRange(0), metavar="SECONDS", help="Due this much later.")
@click.option("--expires", type=click.FloatRange(0), metavar="SECONDS", help="Then it ends unrun.")
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="N", help="0 to 9, higher goes first."
)
@click.option("--queue", metavar="NAME", help="Another queue than the task's own.")
@click.option("--key", metavar="KEY", help="While a job of this key is unfinished, it is taken.")
@click.option("--group", metavar="NAME", help="What jobs share, as a tenant.")
@click.option("--idempotency-key", metavar="KEY", help="For 24 h the same call is the same job.")
@click.option(
    "--on-full", type=click.Choice(["refuse", "wait"]), help="What to do when the queue is full."
)
@click.option(
    "--on-full-timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait for room no longer than this.",
)
@click.option("--id", metavar="ID", help="The id: sent again, it is the same job.")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def enqueue(
    target: str,
    task: str,
    arguments: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Enqueue one call of a task.

    Arguments are one JSON object ('{"user_id": 7}') or name=value, where a value is
    read as JSON if it is JSON and the parameter is not plain text, and else as text.
    """
    output = Output(as_json)
    with closing(load(target)) as app:
        refuse_emptiness(app.url, make=True)
        found, args, kwargs = call_of(app, task, arguments)
        given = {name: value for name, value in options.items() if value is not None}
        job = found.using(**given).enqueue(*args, **kwargs)
        if wait or timeout is not None:
            _answer(output, job, task, timeout)
        elif as_json:
            output.document(EnqueueView(job.id, task))
        else:
            output.line(str(job.id))


def call_of(
    app: Backlane, task: str, arguments: tuple[str, ...]
) -> tuple[Task[Any, Any, Any], tuple[Any, ...], dict[str, Any]]:
    """Return a task and the arguments that are given in words."""
    found = _task(app, task)
    args, kwargs = _typed(found, msgspec.json.encode(_named_arguments(found, arguments)))
    return found, args, kwargs


def _answer(output: Output, job: JobHandle[Any], task: str, timeout: float | None) -> None:
    if not output.as_json:
        output.line(str(job.id))  # at once: who interrupts the wait can still find the job
    result = job.result(timeout)
    if output.as_json:
        output.document(EnqueueView(job.id, task, str(job.state), result))
    else:
        output.line(msgspec.json.encode(result, enc_hook=str).decode())


def _task(app: Backlane, name: str) -> Task[Any, Any, Any]:
    if name not in app.tasks:
        known = f"; it has {', '.join(sorted(app.tasks))}" if app.tasks else "; it has none"
        raise UnknownTask(
            f"no task {name!r} in this application{nearest(name, app.tasks) or known}"
        )
    return app.tasks[name]


def _named_arguments(task: Task[Any, Any, Any], given: tuple[str, ...]) -> dict[str, object]:
    """Return the arguments by name, out of one JSON object or of name=value."""
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            return msgspec.json.decode(given[0], type=dict[str, object])
        except msgspec.MsgspecError as error:
            raise click.UsageError(f"the arguments are not a JSON object: {error}") from error
    parameters = inspect.signature(task.function).parameters
    named: dict[str, object] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise click.UsageError(
                f"{each!r} is no argument; use name=value, or one JSON object for all"
            )
        if name in named:
            raise click.UsageError(f"argument {name!r} is given twice")
        named[name] = _value(text, parameters.get(name))
    return named


def _value(text: str, parameter: inspect.Parameter | None) -> object:
    if parameter is not None and parameter.annotation in (str, "str"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _typed(task: Task[Any, Any, Any], body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read the arguments as the task's annotations do: a date out of its text, and so on."""
    try:
        return task.codec.decode_arguments(body)
    except Undecodable as error:
        raise click.UsageError(f"task {task.name!r}: {error.__cause__ or error}") from error
