"""OpenAPI: the document that says what can be asked here, `GET /openapi.json`.

It is made of the code: each task has a path of its own, with its arguments' schema from
the types it is annotated with, so that clients can be generated that know all tasks.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from backlane.app import Backlane
from backlane.gateway.answer import Plain
from backlane.gateway.operations import (
    JSON,
    OPERATIONS,
    SUBMIT,
    Answer,
    Operation,
    ProblemDocument,
)
from backlane.gateway.parameters import HEADERS, PARAMETERS
from backlane.gateway.resource import JobResource
from backlane.gateway.schema import REF, Schema, Schemas, example, plain
from backlane.gateway.site import ANY, Exchange, Reply, Rule, root
from backlane.gateway.tasks import Submission
from backlane.model.codec.json import encode
from backlane.problem import MEDIA_TYPE
from backlane.task import Task

AnyTask = Task[..., Any, Any]

TASK_PATH = "/v1/tasks/{task}/jobs"


KEPT = 8  # documents, one for each path that the gateway is mounted at


def rule_of(rules: Sequence[Rule]) -> Rule:
    """Return the route that serves the document of all these."""

    async def openapi(exchange: Exchange) -> Reply:
        app, at = exchange.app, root(exchange.scope)
        kept = exchange.site.documents
        key = (at, tuple(app.tasks), tuple(app.queues))
        body = kept.get(key)
        if body is None:
            has_tokens = exchange.site.tokens is not None
            # Milliseconds a task: others are not to wait for a thousand of them.
            made = await asyncio.to_thread(document, rules, app, has_tokens=has_tokens, root=at)
            body = encode(made)
            if len(kept) >= KEPT:
                kept.clear()
            kept[key] = body
        return Plain(200, body, [])

    return Rule("GET", "/openapi.json", openapi, ANY)


def document(rules: Sequence[Rule], app: Backlane, *, has_tokens: bool, root: str) -> Schema:
    """Return the document for these routes and an application, below the path `root`."""
    return _Document(rules, app, has_tokens=has_tokens).made(root)


class _Document:
    """One making of the document: all types are looked at together, so that names agree."""

    def __init__(self, rules: Sequence[Rule], app: Backlane, *, has_tokens: bool) -> None:
        self._rules, self._has_tokens = rules, has_tokens
        self._tasks = tasks = list(app.tasks.values())
        self._queues = sorted(app.queues)
        hints: list[Any] = [ProblemDocument, JobResource, Submission]
        for operation in OPERATIONS.values():
            hints += [answer.type for answer in operation.answers.values()]
            hints.append(operation.takes)
        for task in tasks:
            hints += [field.type for field in task.codec.parameters]
        made = Schemas(hints)
        self._components = made.components
        self._of = iter(made.schemas)
        self._problem = next(self._of)
        next(self._of)  # a job: referred to from each answer
        self._submission = self._resolved(next(self._of))
        self._typed = {
            key: ([next(self._of) for _ in operation.answers], next(self._of))
            for key, operation in OPERATIONS.items()
        }
        for operation in OPERATIONS.values():
            if operation.among:
                self._components[operation.takes.__name__]["anyOf"] = list(operation.among)
        self._arguments = {task.name: self._arguments_of(task) for task in tasks}
        for name, arguments in self._arguments.items():
            self._components[_arguments_name(name)] = arguments
        if tasks:
            self._components["ScheduleAsked"] |= self._schedule()

    def made(self, root: str) -> Schema:
        paths: dict[str, Schema] = {}
        for rule in self._rules:
            if rule.path == TASK_PATH:
                for task in self._tasks:
                    path = rule.path.replace("{task}", task.name)
                    paths[path] = {rule.method.lower(): self._submit(rule, task)}
            elif rule.endpoint in OPERATIONS:
                told = self._operation(rule, OPERATIONS[rule.endpoint])
                paths.setdefault(rule.path, {})[rule.method.lower()] = told
        document: Schema = {
            "openapi": "3.1.0",
            "info": {
                "title": "backlane",
                "version": version("backlane"),
                "description": "Jobs are submitted, followed and steered here.",
            },
            "servers": [{"url": root or "/"}],
            "paths": paths,
            "components": {"schemas": dict(sorted(self._components.items()))},
        }
        if self._has_tokens:
            document["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"}
            }
        return document

    # -- operations --

    def _operation(self, rule: Rule, operation: Operation) -> Schema:
        answers, body = self._typed[rule.endpoint]
        told: Schema = {
            "operationId": operation.id,
            "summary": _summary(rule.endpoint),
            "tags": [_tag(rule)],
            "parameters": _parameters(rule.path, operation),
            "responses": self._responses(rule, operation, answers),
            **self._security(rule),
        }
        if operation.takes is not None:
            schema = {} if operation.takes is bytes else body
            told["requestBody"] = {
                "required": operation.is_body_required,
                "content": {operation.media: {"schema": schema}},
            }
        return told

    def _submit(self, rule: Rule, task: AnyTask) -> Schema:
        arguments = self._arguments[task.name]
        answers, _ = self._typed[rule.endpoint]
        schema = self._body(task, arguments)
        told: Schema = {
            "operationId": f"submit.{task.name}",
            "summary": f"Run {task.name} later",
            "tags": ["tasks"],
            "parameters": _parameters("", SUBMIT),
            "requestBody": {
                "required": "arguments" in schema["required"],
                "content": {JSON: {"schema": schema, **self._example(task, arguments)}},
            },
            "responses": self._responses(rule, SUBMIT, answers),
            **self._security(rule),
        }
        if task.function.__doc__:
            told["description"] = inspect.cleandoc(task.function.__doc__)
        for status in ("200", "202"):
            told["responses"][status]["links"] = _LINKS
        return told

    def _body(self, task: AnyTask, arguments: Schema) -> Schema:
        properties = dict(self._submission["properties"])
        properties["arguments"] = {"$ref": REF + _arguments_name(task.name)}
        properties["queue"] = self._queue()
        properties["id"] = {"type": ["string", "null"], "format": "uuid", "default": None}
        return {
            **self._submission,
            "title": f"Submission of {task.name}",
            "properties": properties,
            "required": ["arguments"] if arguments["required"] else [],
        }

    def _queue(self) -> Schema:
        return {"enum": [*self._queues, None], "default": None}

    def _schedule(self) -> Schema:
        """Return what a type cannot tell of a schedule: whose arguments, and which of three."""
        asked = self._components["ScheduleAsked"]
        given, absent = asked["properties"], {"type": "null"}
        calls = []
        for task in self._tasks:
            arguments = self._arguments[task.name]
            call: Schema = {
                "properties": {
                    "task": {"const": task.name},
                    "arguments": {"$ref": REF + _arguments_name(task.name)},
                }
            }
            if arguments["required"]:
                call["required"] = ["arguments"]
            calls.append(call)
        rules = []
        for rule in ("cron", "every", "at"):
            others = {it: absent for it in ("cron", "every", "at", "tz") if it != rule}
            if rule == "cron":
                del others["tz"]
            (told,) = (it for it in given[rule]["anyOf"] if it != absent)
            rules.append({"properties": {rule: told, **others}, "required": [rule]})
        properties = {
            **given,
            "task": {"enum": [task.name for task in self._tasks]},
            "queue": self._queue(),
        }
        return {"properties": properties, "allOf": [{"oneOf": calls}, {"oneOf": rules}]}

    def _arguments_of(self, task: AnyTask) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in task.codec.parameters:
            schema = next(self._of)
            if field.required:
                required.append(field.encode_name)
            elif field.encode_name not in ("*", "**"):
                default = field.default_factory() if callable(field.default_factory) else None
                schema = {**schema, "default": plain(default)}
            properties[field.encode_name] = schema
        return {
            "title": f"Arguments of {task.name}",
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _example(self, task: AnyTask, arguments: Schema) -> Schema:
        """Return an example of a submission, if one can be made that the task takes."""
        made = example(arguments, self._components)
        try:
            task.codec.decode_arguments(encode(made))
        except Exception:  # noqa: BLE001 - the user's own validators may raise anything
            return {}
        return {"example": {"arguments": made}}

    def _responses(self, rule: Rule, operation: Operation, answers: Sequence[Schema]) -> Schema:
        told: dict[str, Schema] = {}
        for (status, answer), schema in zip(operation.answers.items(), answers, strict=True):
            told[str(status)] = _answered(answer, schema)
        problems = dict(operation.problems)
        if rule.scope is not None:
            problems.setdefault(503, "unavailable")
            problems[403] = "forbidden"
            if self._has_tokens:
                problems[401] = "unauthorized"
            if rule.method != "GET":
                problems.setdefault(408, "too-slow")
                problems.setdefault(413, "too-large")
        for status, kinds in problems.items():
            told[str(status)] = {
                "description": f"{HTTPStatus(status).phrase}: {kinds}.",
                "content": {MEDIA_TYPE: {"schema": self._problem}},
                **(_WITH_RETRY if status in (429, 503) else {}),
            }
        return dict(sorted(told.items()))

    def _security(self, rule: Rule) -> Schema:
        if not self._has_tokens or rule.scope is None:
            return {}
        return {
            "security": [{"token": []}],
            "x-scope": rule.scope,
        }

    def _resolved(self, schema: Schema) -> Schema:
        """Return a schema itself, where it is a reference to a component."""
        return self._components.pop(str(schema["$ref"]).removeprefix(REF))


_LINKS = {
    name: {"operationId": operation, "parameters": {"job": "$response.body#/id"}}
    for name, operation in (
        ("job", "getJob"),
        ("result", "getResult"),
        ("cancel", "cancelJob"),
        ("retry", "retryJob"),
    )
}


def _arguments_name(task: str) -> str:
    return f"Arguments.{task}".replace(":", "_")


def _header(name: str) -> Schema:
    schema, told = HEADERS[name]
    return {"description": told, "schema": schema}


_WITH_RETRY = {"headers": {"Retry-After": _header("Retry-After")}}


def _answered(answer: Answer, schema: Schema) -> Schema:
    told: Schema = {"description": answer.told}
    if answer.headers:
        told["headers"] = {name: _header(name) for name in answer.headers}
    if answer.type is not None:
        told["content"] = {answer.media: {"schema": schema}}
    return told


def _parameters(path: str, operation: Operation) -> list[Schema]:
    inside = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {
            "name": name.rpartition(".")[2],
            "in": where,
            "required": where == "path",
            "schema": PARAMETERS[name][0],
            "description": PARAMETERS[name][1],
        }
        for where, names in (
            ("path", inside),
            ("query", operation.query),
            ("header", operation.headers),
        )
        for name in names
    ]


def _tag(rule: Rule) -> str:
    parts = rule.path.split("/")
    return parts[2] if parts[1] == "v1" else "operation"


def _summary(endpoint: object) -> str:
    return (inspect.getdoc(endpoint) or "").partition("\n")[0]
