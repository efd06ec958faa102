#!/usr/bin/env python3
"""conf/schema.json, from the declarations: `python3 tools/config/schema.py > conf/schema.json`.

JSON Schema, draft 2020-12. Editors complete and check with it; the program itself checks
with the declarations.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

from tools.base import project
from tools.config.declarations import General, SectionKeys
from tools.config.notify_keys import TYPES
from tools.modules import json_types, options, registry
from tools.modules.json_values import Switch
from tools.modules.options import Commands, Declaration

_LITERALS: dict[object, tuple[bool, ...]] = {Switch: (True, False)}
Schema = dict[str, Any]
_COMMENTS: Schema = {"^__": {}}


def _kind(kind: Any, default: Any) -> Schema:  # noqa: ANN401  (a type; any default)
    """Return the types of a key: always a string, and its own type."""
    if kind == Commands:  # as a string it would have to be JSON again
        argument_list = {"type": "array", "items": {"type": "string"}}
        return {"type": "array", "items": {"anyOf": [{"type": "string"}, argument_list]}}
    inner = json_types.inner(kind)
    accepted = _type(json_types.accepted(kind))
    entries = json_types.entries(kind)
    if entries:
        return {"type": accepted, "items": {"type": _type(entries)}}
    if isinstance(inner, type) and issubclass(inner, Enum):
        return {"enum": [*(entry.value for entry in inner), *_LITERALS.get(inner, ())]}
    schema: Schema = {"type": accepted}
    if inner is bool:
        schema["examples"] = ["True", "False"]
    if isinstance(default, str | int | float) and default != "" and default is not None:
        schema["default"] = str(default)
    return schema


def _type(names: json_types.Types) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _properties(declaration: type[Declaration], skip: tuple[str, ...] = ()) -> Schema:
    kinds = options.kinds(declaration)
    properties = {}
    for key, field in options.keys(declaration).items():
        if key not in skip:
            about = {"description": field.metadata["help"]}
            properties[key] = {**about, **_kind(kinds[field.name], field.default)}
    return properties


def _section() -> Schema:
    keys = _properties(SectionKeys)
    keys["ACTION"] = {"enum": ["execute", "load"], "description": keys["ACTION"]["description"]}
    keys["ON_ERROR"]["enum"] = ["continue", "stop"]
    keys["PARAMETERS"] = {"type": "object"}
    return {
        "type": "object",
        "required": ["ACTION"],
        "properties": keys,
        "patternProperties": _COMMENTS,
        "additionalProperties": False,
        "allOf": [_built_in(path) for path in registry.MODULES],
    }


def _built_in(path: str) -> Schema:
    """Return the schema of PARAMETERS for built-in modules."""
    folder, file = path.removesuffix(".py").split("/")
    is_module = not registry.MODULES[path].plugin
    named: Schema = {"NAME": {"const": folder}}
    if not is_module:
        named = {"FROM": {"const": folder}, "FILENAME": {"const": file}}
    if is_module:
        named["EXECUTABLE"] = {"enum": ["", f"{file}.py"] if file == folder else [f"{file}.py"]}
    required = [key for key in named if key != "EXECUTABLE" or file != folder]
    parameters = {
        "properties": _properties(registry.declaration(project.ROOT / path)),
        "patternProperties": _COMMENTS,
        "additionalProperties": False,
    }
    return {
        "if": {"properties": named, "required": required},
        "then": {"properties": {"PARAMETERS": parameters}},
    }


def _notify() -> Schema:
    """Return the schema of NOTIFY: a section of the user's where it has ACTION."""
    channels = {
        "type": "object",
        "patternProperties": _COMMENTS,
        "additionalProperties": {"$ref": "#/$defs/channel"},
    }
    return {
        "if": {"required": ["ACTION"]},
        "then": {"$ref": "#/$defs/section"},
        "else": channels,
    }


def _channel() -> Schema:
    """Return the schema of one channel of NOTIFY."""
    return {
        "type": "object",
        "required": ["TYPE"],
        "properties": {"TYPE": {"enum": list(TYPES)}},
        "allOf": [
            {"if": {"properties": {"TYPE": {"const": name}}}, "then": _of_type(declaration)}
            for name, declaration in TYPES.items()
        ],
    }


def _of_type(declaration: type[Declaration]) -> Schema:
    keys = _properties(declaration)
    fields = dataclasses.fields(declaration)
    needed = [field for field in fields if field.default is dataclasses.MISSING]
    return {
        "required": [options.key_of(field) for field in needed],
        "properties": keys,
        "patternProperties": _COMMENTS,
        "additionalProperties": False,
    }


def schema() -> Schema:
    """Return the schema of a config."""
    general = {
        "type": "object",
        "properties": _properties(General),
        "patternProperties": _COMMENTS,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nc-backup-py: conf.json",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "INCLUDE": {"type": ["string", "array"], "items": {"type": "string"}},
            "GENERAL": general,
            "NOTIFY": _notify(),
        },
        "patternProperties": _COMMENTS,
        "additionalProperties": {"$ref": "#/$defs/section"},
        "$defs": {"section": _section(), "channel": _channel()},
    }


def text() -> str:
    """Return the text of the schema file."""
    return json.dumps(schema(), indent=1) + "\n"


def main(_argv: Sequence[str]) -> int:
    """Print the schema; return the exit code."""
    sys.stdout.write(text())
    return 0
