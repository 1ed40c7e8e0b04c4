"""Schemas: what types allow, as JSON Schema (2020-12) says it.

msgspec knows its own types; added is what it leaves open: pydantic models, paths, and the
form of times, numbers and bytes in text. A schema may allow what a decoder then refuses
(a validator of the user's own); it never forbids what is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from pathlib import PurePath
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from backlane.model.codec.json import encode_foreign, is_pydantic

log = logging.getLogger("backlane.gateway")

Schema = dict[str, Any]

REF = "#/components/schemas/"

# Names of formats tell people; these tell programs.
_PATTERNS: Mapping[tuple[str, str], Schema] = {
    ("format", "decimal"): {"pattern": r"^-?[0-9]{1,100}(\.[0-9]{1,100})?$"},
    ("contentEncoding", "base64"): {
        "pattern": (
            "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
        )
    },
}
_TIMES = {
    datetime: Meta(extra_json_schema={"format": "date-time"}),
    time: Meta(extra_json_schema={"format": "time"}),
}


class Schemas:
    """The schemas of some types, and the components that these refer to."""

    def __init__(self, hints: Sequence[Any]) -> None:
        self._models: dict[type, None] = {}
        formed = [_with_form(hint) for hint in hints]
        try:
            told, components = self._generated(formed)
        except Exception:  # noqa: BLE001 - a default of the user's own may fail in any way
            # Told without those that cannot be told, rather than not at all.
            told, components = self._generated([self._sayable(hint) for hint in formed])
        self.schemas: list[Schema] = [_completed(schema) for schema in told]
        self.components: dict[str, Schema] = _completed(dict(components))
        for model in self._models:
            self._add_model(model)

    def _generated(self, hints: Sequence[Any]) -> tuple[tuple[Schema, ...], dict[str, Schema]]:
        return msgspec.json.schema_components(
            hints, schema_hook=self._foreign, ref_template=REF + "{name}"
        )

    def _sayable(self, hint: Any) -> Any:
        try:
            self._generated([hint])
        except Exception as error:  # noqa: BLE001 - as above
            log.debug("no schema for %r: %r", hint, error)
            return Any
        return hint

    def _foreign(self, kind: type) -> Schema:
        """Return the schema of what msgspec does not know."""
        if kind is object:
            return {}
        if issubclass(kind, PurePath):
            return {"type": "string", "format": "path"}
        if is_pydantic(kind):
            self._models[kind] = None
            return {"$ref": REF + _model_name(kind)}
        return {}

    def _add_model(self, model: Any) -> None:
        name = _model_name(model)
        # Its own components get its name in front, for two models may have one each.
        schema: Schema = model.model_json_schema(ref_template=f"{REF}{name}.{{model}}")
        inner: Mapping[str, Schema] = schema.pop("$defs", {})
        for each, told in inner.items():
            self.components[f"{name}.{each}"] = told
        if set(schema) == {"$ref"}:  # a model that holds itself
            self.components[name] = inner[schema["$ref"].removeprefix(f"{REF}{name}.")]
        else:
            self.components[name] = schema


def plain(value: object) -> object:
    """Return a value as JSON has it."""
    return msgspec.to_builtins(value, enc_hook=encode_foreign, str_keys=True)


def example(schema: Schema, components: Mapping[str, Schema], depth: int = 0) -> object:
    """Return some value that a schema allows, or nearly: whoever shows it tries it first."""
    if "$ref" in schema:
        schema = components.get(str(schema["$ref"]).removeprefix(REF), {})
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema and depth < 8:
            return example(schema[key][0], components, depth + 1)
    match schema.get("type"):
        case "object":
            asked = schema.get("required", []) if depth < 8 else []
            fields = schema.get("properties", {})
            return {it: example(fields.get(it, {}), components, depth + 1) for it in asked}
        case "array":
            return [example(it, components, depth + 1) for it in schema.get("prefixItems", [])]
        case "string":
            return _TEXTS.get(schema.get("format", ""), "text")
        case "integer" | "number":
            return schema.get("minimum", 7)
        case "boolean":
            return True
        case _:
            return None


_TEXTS = {
    "date-time": "2026-03-01T09:30:00Z",
    "date": "2026-03-01",
    "time": "09:30:00",
    "duration": "PT30S",
    "decimal": "19.90",
    "uuid": "0199a7c2-5b1e-7c3a-9f00-3d2b8c1e4a55",
    "path": "in/picture.jpg",
}


def _with_form(hint: Any) -> Any:
    """Return a hint that says of times how they are written, also within `X | None`."""
    if isinstance(hint, type) and hint in _TIMES:
        return Annotated[hint, _TIMES[hint]]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_with_form(each) for each in get_args(hint))]  # noqa: UP007 - made here
    return hint


def _completed(schema: Any) -> Any:
    """Return a schema with the patterns that its formats stand for."""
    if isinstance(schema, list | tuple):
        return [_completed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {key: _completed(each) for key, each in schema.items()}
    for (key, value), more in _PATTERNS.items():
        if whole.get(key) == value and "pattern" not in whole:
            whole |= more
    return whole


def _model_name(kind: type) -> str:
    made = f"{kind.__module__}.{kind.__qualname__}"
    return "".join(it if it.isascii() and (it.isalnum() or it in ".-_") else "_" for it in made)
