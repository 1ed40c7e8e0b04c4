"""Sightings: jobs as a test looks at them, by the call they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backlane.errors import BadOption, Undecodable
from backlane.handle import JobHandle
from backlane.model.codec import plain
from backlane.model.job import JobRecord, State
from backlane.task import Task

LISTED = 20  # jobs that a failed assertion lists


class Sighting(msgspec.Struct, frozen=True):
    """A job that was enqueued: the call as its function will get it, and its record.

    `arguments` holds all arguments by name, defaults included.
    """

    job: JobHandle[Any]
    task: str
    arguments: Mapping[str, Any]
    record: JobRecord

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def queue(self) -> str:
        return self.record.queue

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.task}({shown}) in {self.queue!r}, {self.state.value}"


def see(job: JobHandle[Any], record: JobRecord, task: Task[..., Any, Any] | None) -> Sighting:
    """Look at a job; of an unknown task, or undecodable, only what is stored can be seen."""
    try:
        arguments = _stored(record) if task is None else _given(task, record)
    except Undecodable:
        arguments = _stored(record)
    return Sighting(job, record.task or "", arguments, record)


def is_call(sighting: Sighting, wanted: Mapping[str, Any]) -> bool:
    """Say whether a job has all of these arguments; others may be as they are."""
    missing = object()
    return all(sighting.arguments.get(name, missing) == value for name, value in wanted.items())


def named(
    task: Task[..., Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return some arguments of a task by name.

    Raises:
        BadOption: no call of the task can have them.
    """
    try:
        return _by_name(_signature(task).bind_partial(*args, **kwargs), _signature(task))
    except TypeError as error:
        raise BadOption(f"no call of {task.name} can have these arguments: {error}") from error


def call_text(task: Task[..., Any, Any], wanted: Mapping[str, Any]) -> str:
    """Return a call as it is written; `...` stands for arguments left open."""
    given = [f"{name}={value!r}" for name, value in wanted.items()]
    is_open = len(wanted) < len(_signature(task).parameters)
    return f"{task.name}({', '.join([*given, '...'] if is_open else given)})"


def listed(sightings: Sequence[Sighting]) -> str:
    """Return the jobs one a line, the newest of many."""
    if not sightings:
        return "nothing was enqueued"
    lines = [f"  {one}" for one in sightings[-LISTED:]]
    if len(sightings) > LISTED:
        lines.insert(0, f"  … {len(sightings) - LISTED} before")
    return "\n".join(["enqueued were:", *lines])


def _given(task: Task[..., Any, Any], record: JobRecord) -> dict[str, Any]:
    args, kwargs = task.codec.decode_arguments(record.body)
    signature = _signature(task)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return _by_name(bound, signature)


def _stored(record: JobRecord) -> dict[str, Any]:
    found = plain(record.body)
    return dict(found) if isinstance(found, dict) else {"body": found}


def _signature(task: Task[..., Any, Any]) -> inspect.Signature:
    signature = inspect.signature(task.function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:] if task.takes_context else parameters)


def _by_name(bound: inspect.BoundArguments, signature: inspect.Signature) -> dict[str, Any]:
    """The arguments by name, those of `**kwargs` under their own names."""
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    return arguments
