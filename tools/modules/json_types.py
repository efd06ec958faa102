"""Which types of JSON the value of a key may have, by the type of its field."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, get_args

from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.modules.json_values import Switch
from tools.modules.options import (
    Commands,
    Duration,
    Fields,
    Lists,
    Paths,
    Patterns,
    Ports,
    Size,
    Strings,
)

Types = tuple[str, ...]  # names of JSON Schema
_ACCEPTED: dict[object, Types] = {
    str: ("string",),
    Path: ("string",),
    Secret: ("string",),
    int: ("string", "integer"),
    Size: ("string", "integer"),
    float: ("string", "number"),
    Duration: ("string", "number"),
    bool: ("string", "boolean"),
    Switch: ("string", "boolean"),
    Paths: ("string", "array"),
    Strings: ("string", "array"),
    Patterns: ("string", "array"),
    Ports: ("string", "integer", "array"),
    Commands: ("string", "array"),
    Fields: ("string", "object"),
    Lists: ("string", "object"),
}
_IN_WORDS = {
    "string": "a string",
    "integer": "a number",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
    "object": "an object",
}
_UNQUOTED = ("integer", "number", "boolean")


def inner(kind: Any) -> Any:  # noqa: ANN401  (a type or a union)
    """Return X of `X | None`; any other type unchanged."""
    return next((entry for entry in get_args(kind) if entry is not type(None)), kind)


def accepted(kind: Any) -> Types:  # noqa: ANN401  (a type or a union)
    """Return the types of JSON that a field takes."""
    names = _ACCEPTED.get(kind) or _ACCEPTED.get(inner(kind))
    if names:
        return names
    if isinstance(inner(kind), type) and issubclass(inner(kind), Enum):
        return ("string",)
    raise TypeError(kind)


def entries(kind: Any) -> Types:  # noqa: ANN401  (a type)
    """Return the types of JSON of the entries of a list; () where its reader checks them."""
    if kind in (Paths, Strings, Patterns):
        return ("string",)
    return ("string", "integer") if kind == Ports else ()


def check(kind: Any, value: object, name: str) -> None:  # noqa: ANN401  (a type)
    """Reject a value of another type: as a text it would be a wrong one. It is not shown.

    kind: of the field; None: any. `null` is an empty value. Raises ConfigError.
    """
    if kind is None or value is None:
        return
    _check(accepted(kind), value, name)
    if isinstance(value, list | tuple) and entries(kind):
        for number, entry in enumerate(value, 1):
            _check(entries(kind), entry, f"{name}: entry {number}")


def _check(types: Types, value: object, name: str) -> None:
    actual = type_of(value)
    if actual in types or (actual == "integer" and "number" in types):
        return
    simple = types in (("string",), ("string", "array"))  # else the string is the other spelling
    expected = " or ".join(_IN_WORDS[entry] for entry in types if simple or entry != "string")
    hint = "Put the value into double quotes." if simple and actual in _UNQUOTED else ""
    raise ConfigError(f"{name}: must be {expected}, not {_IN_WORDS.get(actual, actual)}", hint)


def type_of(value: object) -> str:
    """Return the name of the type of a JSON value."""
    if isinstance(value, bool):
        return "boolean"
    for kind, name in ((int, "integer"), (float, "number"), (str, "string"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "array"
