"""The OpenAPI document: valid, complete, and true to the types of the tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from click.testing import CliRunner
from schemathesis.specs.openapi import definitions
from tests.gateway import kinds
from tests.gateway.live import live

from backlane import Backlane
from backlane.cli import main
from backlane.gateway import openapi
from backlane.gateway.application import RULES

Document = dict[str, Any]


def document(app: Backlane, **options: Any) -> Document:
    return openapi.document(RULES, app, **{"has_tokens": False, "root": "", **options})


@pytest.fixture(scope="module")
def told() -> Document:
    return document(kinds.make("memory://"))


def arguments(told: Document, task: str) -> Document:
    schema: Document = told["components"]["schemas"][f"Arguments.{task}"]
    return schema


def of_one(function: Any) -> Document:
    """The schema of the arguments of one task."""
    app = Backlane("memory://")
    app.task(name="it")(function)
    return arguments(document(app), "it")


def test_it_is_a_valid_document_of_openapi_3_1(told):
    jsonschema_rs.Draft202012Validator(definitions.OPENAPI_31).validate(told)


def test_all_schemas_are_valid_and_refer_to_what_is_there(told):
    for schema in schemas_in(told):
        jsonschema_rs.meta.validate(schema)
    names = told["components"]["schemas"]
    for value in values_of(told, "$ref"):
        assert value.removeprefix("#/components/schemas/") in names


def schemas_in(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            yield {"components": {}, **node["schema"]}
        for each in node.values():
            yield from schemas_in(each)
    elif isinstance(node, list):
        for each in node:
            yield from schemas_in(each)


def values_of(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, each in node.items():
            if name == key and isinstance(each, str):
                yield each
            else:
                yield from values_of(each, key)
    elif isinstance(node, list):
        for each in node:
            yield from values_of(each, key)


def test_every_route_is_told(told):
    known = {
        (method.upper(), path) for path, methods in told["paths"].items() for method in methods
    }
    app = kinds.make("memory://")
    for rule in RULES:
        if rule.path == "/openapi.json":
            continue
        if rule.path == openapi.TASK_PATH:
            for task in app.tasks:
                assert (rule.method, rule.path.replace("{task}", task)) in known
        else:
            assert (rule.method, rule.path) in known


def test_operations_have_ids_of_their_own(told):
    ids = [it["operationId"] for path in told["paths"].values() for it in path.values()]

    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("function", kinds.TASKS, ids=lambda it: it.__name__)
def test_each_task_has_an_example_that_it_takes(told, function):
    app = kinds.make("memory://")
    told_of = told["paths"][f"/v1/tasks/{function.__name__}/jobs"]["post"]
    shown = told_of["requestBody"]["content"]["application/json"]["example"]["arguments"]
    schema = {**arguments(told, function.__name__), "components": told["components"]}

    jsonschema_rs.Draft202012Validator(schema).validate(shown)
    app.tasks[function.__name__].codec.decode_arguments(msgspec.json.encode(shown))


def test_a_docstring_is_the_description(told):
    operation = told["paths"]["/v1/tasks/variadic/jobs"]["post"]

    assert operation["description"].startswith("Take a context, and as many arguments")
    assert "The context is the worker's to give." in operation["description"]


def test_the_context_is_no_argument_and_the_rest_has_its_names(told):
    assert list(arguments(told, "variadic")["properties"]) == ["first", "*", "named", "**"]
    assert arguments(told, "variadic")["required"] == ["first"]


def test_defaults_are_told_as_they_are_sent(told):
    properties = arguments(told, "moments")["properties"]
    colour = arguments(told, "amounts")["properties"]["colour"]

    assert properties["span"]["default"] == "PT1S"
    assert colour["default"] == "blue"
    assert arguments(told, "texts")["properties"]["path"]["default"] == "here"
    assert "default" not in arguments(told, "numbers")["properties"]["whole"]


def test_unknown_arguments_are_forbidden(told):
    assert arguments(told, "nothing")["additionalProperties"] is False


def test_a_task_that_needs_nothing_needs_no_body(told):
    body = {
        name: told["paths"][f"/v1/tasks/{name}/jobs"]["post"]["requestBody"]["required"]
        for name in ("nothing", "numbers")
    }

    assert body == {"nothing": False, "numbers": True}


def test_models_of_pydantic_are_told_by_themselves(told):
    order = told["components"]["schemas"]["tests.gateway.kinds.Order"]

    assert order["properties"]["items"]["items"]["$ref"].endswith("tests.gateway.kinds.Order.Item")


def test_what_cannot_be_told_is_left_open_and_spoils_nothing_else():
    @dataclass
    class Odd:
        value: Any = field(default=lambda: None)

    def odd(odd: Odd, number: int) -> None: ...

    odd.__annotations__ = {"odd": Odd, "number": int, "return": None}

    assert of_one(odd)["properties"] == {"odd": {}, "number": {"type": "integer"}}


def test_two_classes_of_one_name_are_two_schemas():
    def first() -> Any:
        @dataclass
        class Same:
            a: int

        return Same

    def second() -> Any:
        @dataclass
        class Same:
            b: str

        return Same

    def both(one: Any, two: Any) -> None: ...

    both.__annotations__ = {"one": first(), "two": second(), "return": None}
    app = Backlane("memory://")
    app.task(name="both")(both)
    told = document(app)
    one, two = (
        told["components"]["schemas"][it["$ref"].removeprefix("#/components/schemas/")]
        for it in arguments(told, "both")["properties"].values()
    )

    assert (set(one["properties"]), set(two["properties"])) == ({"a"}, {"b"})


def test_tokens_are_asked_for_where_there_are_some():
    app = kinds.make("memory://")
    without, told = document(app), document(app, has_tokens=True)

    assert "securitySchemes" not in without["components"]
    assert told["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert told["paths"]["/v1/queues"]["get"]["security"] == [{"token": []}]
    assert "401" in told["paths"]["/v1/queues"]["get"]["responses"]
    assert "security" not in told["paths"]["/healthz"]["get"]


def test_where_it_is_mounted_is_told():
    assert document(Backlane("memory://"), root="/jobs")["servers"] == [{"url": "/jobs"}]


def test_it_is_served(tmp_path: Path):
    with Backlane(f"sqlite:///{tmp_path}/jobs.db") as app, live(app) as served:
        status, headers, before = served.get("/openapi.json")
        app.task(name="late")(kinds.numbers)
        _, _, after = served.get("/openapi.json")

    assert (status, headers["content-type"]) == (200, "application/json")
    assert "/v1/tasks/late/jobs" in after["paths"]
    assert "/v1/tasks/late/jobs" not in before["paths"]


def test_it_is_printed_without_a_server():
    told = CliRunner().invoke(main, ["serve", "tests.gateway.kinds:printed", "--print-openapi"])

    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == json.loads(json.dumps(document(kinds.printed)))


@pytest.mark.parametrize(
    ("body", "is_fitting"),
    [
        ({"task": "nothing", "every": 60}, True),
        ({"task": "nothing", "cron": "0 3 * * MON-FRI", "tz": "Europe/Paris"}, True),
        ({"task": "nothing", "cron": "@daily", "every": None}, True),
        ({"task": "numbers", "at": "2030-01-01T00:00:00Z", "arguments": {"whole": 1}}, False),
        ({"task": "numbers", "every": 60}, False),
        ({"task": "nothing", "every": 60, "arguments": {"whole": 1}}, False),
        ({"task": "nobodys", "every": 60}, False),
        ({"task": "nothing"}, False),
        ({"task": "nothing", "every": 60, "cron": "@daily"}, False),
        ({"task": "nothing", "every": 60, "tz": "UTC"}, False),
        ({"task": "nothing", "cron": "daily"}, False),
        ({"task": "nothing", "every": 60, "queue": "nowhere"}, False),
    ],
)
def test_it_tells_which_schedules_can_be(told: Document, body: Document, is_fitting: bool) -> None:
    assert is_valid(told, "ScheduleAsked", body) == is_fitting


@pytest.mark.parametrize(
    ("body", "is_fitting"),
    [
        ({"rate": "10/s", "burst": 3}, True),
        ({"rate": None}, True),
        ({"burst": 3}, True),
        ({"concurrency": None, "rate": None}, True),
        ({"reset": True}, True),
        ({}, False),
        ({"reset": False}, False),
        ({"rate": None, "burst": 3}, False),
        ({"rate": "0/s"}, False),
    ],
)
def test_it_tells_how_limits_can_be_tuned(told: Document, body: Document, is_fitting: bool) -> None:
    assert is_valid(told, "LimitTuning", body) == is_fitting


def is_valid(told: Document, component: str, body: Document) -> bool:
    schema = {"$ref": f"#/components/schemas/{component}", "components": told["components"]}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(body)
