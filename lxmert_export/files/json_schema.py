"""Holds parsed JSON to a JSON schema, in the keywords that the schemas of this package use.

The package ``jsonschema`` knows all keywords and is no dependency of devices: tests hold the two to the same verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
# What describes a schema and asks nothing.
DESCRIPTIVE = frozenset(("$schema", "$id", "$defs", "title", "description", "format", "default"))
ASKING = frozenset(
    (
        "type", "const", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "items",
        "required", "properties", "additionalProperties", "propertyNames", "$ref", "anyOf", "allOf", "if", "then",
    )
)  # fmt: skip


def first_problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Returns the first way in which a value is not what a schema says, with its place; None if there is none.

    ``NotImplementedError``: the schema uses a keyword that is not known here.
    """
    return next(_problems(value, schema, schema, ""), None)


def _problems(value: Any, schema: Any, root: Mapping[str, Any], place: str) -> Iterator[str]:
    if schema is True:
        return
    if unknown := schema.keys() - DESCRIPTIVE - ASKING:
        raise NotImplementedError(f"unknown keywords in a schema: {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        yield from _problems(value, _referred(schema, root), root, place)
    yield from _of_alternatives(value, schema, root, place)
    yield from _of_scalars(value, schema, place or "it")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place or 'it'} has {len(value)} entries, fewer than {schema['minItems']}"
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{place or 'it'} has {len(value)} entries, more than {schema['maxItems']}"
        for number, entry in enumerate(value):
            yield from _problems(entry, schema.get("items", True), root, f"{place}[{number}]")
    if isinstance(value, dict):
        yield from _of_objects(value, schema, root, place)


def _of_alternatives(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], place: str) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from _problems(value, part, root, place)
    if "anyOf" in schema:
        found = [next(_problems(value, part, root, place), None) for part in schema["anyOf"]]
        if None not in found:
            yield max(map(str, reversed(found)), key=_depth)  # what is wrong furthest inside says most
    if "if" in schema and next(_problems(value, schema["if"], root, place), None) is None:
        yield from _problems(value, schema.get("then", True), root, place)


def _depth(problem: str) -> int:
    """How long the place is that a problem names first."""
    return len(problem.partition(" ")[0])


def _of_scalars(value: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, name) for name in names):
            yield f"{place} is {_shown(value)}, not of type {' or '.join(names)}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place} is {_shown(value)}, not {schema['const']!r}"
    if "enum" in schema and not any(_same(value, known) for known in schema["enum"]):
        yield f"{place} is {_shown(value)}, not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield f"{place} is {_shown(value)}, below {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{place} is {_shown(value)}, above {schema['maximum']}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield f"{place} is too short"
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{place} has {len(value)} characters, more than {schema['maxLength']}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{place} is {_shown(value)}, which does not match {schema['pattern']}"


def _of_objects(value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], place: str) -> Iterator[str]:
    prefix = f"{place}." if place else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{prefix}{name} is missing"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, entry in value.items():
        if "propertyNames" in schema:
            yield from _problems(name, schema["propertyNames"], root, f"the name {_shown(name)} in {place or 'it'}")
        if name in known:
            yield from _problems(entry, known[name], root, prefix + name)
        elif others is False:
            yield f"{prefix}{name[:80]} is unknown"
        else:
            yield from _problems(entry, others, root, prefix + name[:80])


def _referred(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    return root["$defs"][schema["$ref"].removeprefix("#/$defs/")]


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])


def _same(value: Any, known: Any) -> bool:
    return value == known and isinstance(value, bool) == isinstance(known, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
