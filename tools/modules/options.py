"""The argument contract: `--KEY value` pairs, declared once as a frozen dataclass.

A field's name in capitals is its key. Unknown keys are skipped here: the runner hands
every key of GENERAL to every module. Whether conf.json may hold a key is asked with
`keys`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    NewType,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from tools.base import foreign_json, masking
from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.modules import json_values

T = TypeVar("T", bound="Declaration")
_LAST_PORT = 65535
Duration = NewType("Duration", float)  # seconds; written as 90, "90s", "5m", "12h", "7d", "4w"
Size = NewType("Size", int)  # bytes; written as 4096, "500K", "5M", "1G": powers of 1024
Paths = tuple[Path, ...]
Strings = tuple[str, ...]
Ports = tuple[int, ...]  # of TCP; separated by white space or commas
Patterns = NewType("Patterns", Strings)  # of paths (path_patterns); a list is always read literally
Fields = NewType("Fields", str)  # a JSON object of texts, or a dictionary of Python as a text
Commands = tuple[Strings, ...]  # argument lists; no shell reads them
Lists = Mapping[str, Strings]  # a JSON object: names, each with a text or a list of texts


class Declaration(Protocol):
    """The keys of a module: a frozen dataclass, each field made by `option`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


class _Varied(Protocol):
    """A declaration that is the union of its variants."""

    def variants(self) -> tuple[str, Mapping[str, type[Declaration]]]: ...


def option(  # noqa: PLR0913  (the facts of one option, by keyword)
    help: str,  # noqa: A002  (as dataclasses.field and argparse name it)
    default: Any = dataclasses.MISSING,  # noqa: ANN401  (any default of any type)
    *,
    aliases: Sequence[str] = (),
    flag: str = "",
    least: float | None = None,
    unit: str = "",
    empty: bool = False,
) -> Any:  # noqa: ANN401  (as dataclasses.field)
    """Declare one option; without a default it is required.

    aliases: other names of the key, in capitals. flag: a word that sets it to True by
    itself ("-d"). least: the smallest number allowed. unit: of the number, for hints.
    empty: an empty value means the default, though the default is not empty.
    """
    about = {"help": help, "aliases": tuple(aliases), "flag": flag, "least": least}
    about |= {"unit": unit, "empty": empty}
    return dataclasses.field(default=default, metadata=about)


def variants(declaration: type[Declaration]) -> tuple[str, Mapping[str, type[Declaration]]]:
    """Return the key by which a declaration chooses another one, and those by its values.

    A declaration with a class method `variants` is the union of its variants; `fill` returns
    the chosen one. Each of them has its fields.
    """
    if "variants" not in vars(declaration):
        return "", {}
    return cast("_Varied", declaration).variants()


def fields(declaration: type[Declaration]) -> list[dataclasses.Field[Any]]:
    """Return the fields of a declaration, then those that its variants add."""
    by_name: dict[str, dataclasses.Field[Any]] = {}
    for one in (declaration, *variants(declaration)[1].values()):
        by_name.update({f.name: f for f in dataclasses.fields(one) if f.name not in by_name})
    return list(by_name.values())


def _chosen(declaration: type[T], arguments: Mapping[str, str]) -> type[T]:
    """Return the variant that the values choose; the declaration itself where there is none."""
    key, by_value = variants(declaration)
    default = next((one.default for one in fields(declaration) if key_of(one) == key), "")
    chosen = by_value.get(arguments.get(key) or str(default), declaration)
    return cast("type[T]", chosen)


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the key of a field: its name in capitals, as FINALLY for `finally_`."""
    return field.name.upper().rstrip("_")


def keys(declaration: type[Declaration]) -> dict[str, dataclasses.Field[Any]]:
    """Return every key that the declaration knows, aliases included, with its field."""
    by_key = {}
    for field in fields(declaration):
        by_key[key_of(field)] = field
        by_key.update(dict.fromkeys(field.metadata.get("aliases", ()), field))
    return by_key


def is_chosen(declaration: type[Declaration], arguments: Mapping[str, str]) -> bool:
    """Return False where the values choose a variant that there is not."""
    key, by_value = variants(declaration)
    return key not in arguments or arguments[key] in by_value


def foreign_keys(declaration: type[Declaration], arguments: Mapping[str, str]) -> set[str]:
    """Return the keys of a declaration that only other variants than the chosen one have."""
    return set(keys(declaration)) - set(keys(_chosen(declaration, arguments)))


def canonical(declaration: type[Declaration], key: str) -> str:
    """Return the preferred name of a key (TARGETS for OBJECTIVES)."""
    field = keys(declaration).get(key.upper())
    return key_of(field) if field else key


_kinds: dict[type[Declaration], Mapping[str, Any]] = {}  # reading annotations is slow


def kinds(declaration: type[Declaration]) -> Mapping[str, Any]:
    """Return the type of each field by its name, and by its key in lower case."""
    if declaration not in _kinds:
        _kinds[declaration] = {}
        for variant in (*variants(declaration)[1].values(), declaration):
            hints = get_type_hints(variant)
            hints |= {name.rstrip("_"): kind for name, kind in hints.items()}
            _kinds[declaration] = {**_kinds[declaration], **hints}
    return _kinds[declaration]


def to_text(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    """Return a JSON value as the text of one argument.

    A list becomes words separated by spaces, or, where that would lose something, JSON.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        entries = [to_text(entry) for entry in value]
        if all(word and not re.search(r"[\s\[\"]", word) for word in entries):
            return " ".join(entries)
        return json.dumps(entries)
    if value is None:
        return ""
    return json.dumps(value)


def text_of(kind: Any, value: Any) -> str:  # noqa: ANN401  (a type; any JSON value)
    """Return a JSON value as the text of one argument, for a field of a type (None: any)."""
    if kind is Patterns and isinstance(value, list):
        return json.dumps([to_text(entry) for entry in value])
    if kind == Commands and isinstance(value, list):
        return json.dumps(value)
    return to_text(value)


def texts(declaration: type[Declaration], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of JSON values by key, each as the type of its field needs it."""
    kind_by_key = kinds(declaration)
    return {key: text_of(kind_by_key.get(key.lower()), value) for key, value in values.items()}


def strings(text: str) -> Strings:
    """Return the words of a list: separated by white space, or a JSON list."""
    if text.lstrip().startswith("["):
        entries = foreign_json.load(text)
        if not all(isinstance(entry, str) for entry in entries):
            raise ValueError(text)
        return tuple(entries)
    return tuple(text.split())


def patterns(text: str) -> Patterns:
    """Return path patterns: words, in which quotes and commas have no meaning, or a JSON list.

    Raises ValueError for words with quotes or commas: they would match nothing.
    """
    entries = strings(text)
    outside = re.sub(r"\{[^{}\s]*\}", "", text)  # braces are rejected where patterns are compiled
    if not text.lstrip().startswith("[") and re.search(r"[\"',]", outside):
        raise ValueError(text)
    return Patterns(entries)


def ports(text: str) -> Ports:
    """Return ports, each from 1 to 65535 and named once. Raises ValueError."""
    numbers = tuple(int(word) for entry in strings(text) for word in entry.split(",") if word)
    valid = all(0 < number <= _LAST_PORT for number in numbers)
    if not numbers or not valid or len(set(numbers)) != len(numbers):
        raise ValueError(text)
    return numbers


def pairs(argv: Sequence[str], flags: Iterable[str] = ()) -> dict[str, str]:
    """Read argv strictly two by two, so that a value may begin with a dash."""
    remaining = list(argv)
    arguments: dict[str, str] = {}
    flags = set(flags)
    while remaining:
        key = remaining.pop(0)
        if key in flags:
            arguments[key] = "True"
        elif key.startswith("--") and remaining:
            arguments[key[2:].upper()] = remaining.pop(0)
        else:
            problem = f"{key} has no value" if key.startswith("--") else f"{key!r} is no --KEY"
            hint = "--help lists the keys."
            raise ConfigError(f"arguments must come as --KEY value pairs: {problem}", hint)
    return arguments


def _boolean(text: str) -> bool:
    spelt = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return spelt[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def duration(text: str) -> Duration:
    """Return the seconds of "90", "90s", "5m", "12h", "7d" or "4w". Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if not match:
        raise ValueError(text)
    unit = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]
    return Duration(float(match[1]) * unit)


def size(text: str) -> Size:
    """Return the bytes of "4096", "500K", "5M", "1.5G". Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)", text.strip(), re.I)
    if not match:
        raise ValueError(text)
    return Size(int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")))


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: ("a text", str),
    int: ("a whole number", int),
    float: ("a number", _number),
    bool: ('"True" or "False"', _boolean),
    Path: ("a path", Path),
    Secret: ("a secret", Secret),
    Duration: ("a duration (90, 30s, 5m, 12h, 7d)", duration),
    Size: ("a size (4096, 500K, 5M, 1G)", size),
    Paths: ("paths", lambda text: tuple(Path(word) for word in strings(text))),
    Strings: ("words", strings),
    Patterns: ("a list of patterns", patterns),
    Commands: ("a list of argument lists", json_values.commands),
    Ports: ("a list of ports (1 to 65535, each once)", ports),
    Fields: ("a dictionary", Fields),
    Lists: ("an object of lists of texts", json_values.lists),
}


_UNSHOWN = (Secret, Commands, Fields, Lists)  # no error shows their values: they hold passwords


def reader(kind: Any) -> tuple[str, Callable[[str], Any]]:  # noqa: ANN401  (a type or a union)
    """Return the name of a type, and the function that reads it; `X | None` reads X."""
    if get_origin(kind) in (Union, types.UnionType):
        return reader(next(entry for entry in get_args(kind) if entry is not type(None)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = ", ".join(str(entry.value) for entry in kind)
        return f"one of {choices}", lambda text: kind(text.strip().lower())
    return _READERS[kind]


def fill(
    declaration: type[T], arguments: Mapping[str, str], named: Callable[[str], str] = "--{}".format
) -> T:
    """Fill the dataclass from texts by key.

    An empty text is only accepted where the default is empty too, or where the declaration says
    so: a template that was not filled in must not mean /etc. `named` returns what a message
    calls a key (where it stands in a file).
    Raises ConfigError for a value of the wrong kind, an empty one, and a missing key.
    """
    declaration = _chosen(declaration, arguments)
    hints = kinds(declaration)
    names = {field.name for field in dataclasses.fields(declaration)}
    by_key = {key: field for key, field in keys(declaration).items() if field.name in names}
    values: dict[str, Any] = {}
    for key, text in arguments.items():
        field = by_key.get(key)
        if field is None or (text == "" and field.default is not dataclasses.MISSING):
            if field is not None:
                _check_empty(field, named(key))
            continue
        type_name, read = reader(hints[field.name])
        try:
            values[field.name] = read(text)
        except ValueError:
            hint = _hint(text, hints[field.name], field)
            subject = "" if hints[field.name] in _UNSHOWN else f"{masking.quoted(text)} is "
            raise ConfigError(f"{named(key)}: {subject}not {type_name}", hint) from None
        least = field.metadata.get("least")
        if least is not None and values[field.name] < least:
            hint = f"Set it to {least:g} or more."
            raise ConfigError(f"{named(key)}: {text} is less than {least:g}", hint)
    for field in dataclasses.fields(declaration):
        missing = field.default is dataclasses.MISSING and field.name not in values
        if missing:
            raise ConfigError(
                f"{named(key_of(field))} is required", hint=str(field.metadata["help"]) + "."
            )
    return declaration(**values)


def _check_empty(field: dataclasses.Field[Any], key: str) -> None:
    """Reject an empty value that would silently mean a default which is not empty."""
    default = shown_default(field)
    if default and not field.metadata.get("empty"):
        raise ConfigError(
            f"{key}: is empty", f"Set a value, or remove the key to use the default ({default})."
        )


_QUOTED = re.compile(r"\"[^\"]+\"|'[^']+'|[^\s\"',]+")
_SIZED = re.compile(r"\s*(\d+)\s*([mgt])(?:i?b)?\s*", re.I)


def _hint(text: str, kind: Any, field: dataclasses.Field[Any]) -> str:  # noqa: ANN401  (a type)
    """Return how a value of the wrong kind is written; "" where the error says enough."""
    if kind is Secret:
        return ""
    if kind is Patterns and not text.lstrip().startswith("["):
        listed = json.dumps([match[0].strip("\"'") for match in _QUOTED.finditer(text)])
        return f"Write patterns with quotes, commas or spaces as a JSON list, for example {listed}."
    if kind == Commands:
        return (
            'Write each argument as a string, as in [["systemctl", "stop", "app"]]. No shell runs.'
        )
    if text.lstrip().startswith("[") and kind in (Strings, Paths, Patterns):
        return 'A value that begins with [ must be a JSON list of strings, for example ["[ab]"].'
    unit = field.metadata.get("unit", "")
    if not unit:
        return ""
    size = _SIZED.fullmatch(text)
    scale = {"m": 1, "g": 1024, "t": 1024**2}
    example = int(size[1]) * scale[size[2].lower()] if size else shown_default(field)
    return f"Set the number of {unit}, without a unit, for example {example}."


def flags(declaration: type[Declaration]) -> dict[str, str]:
    """Return the words that stand alone, with the key that they set."""
    declared = dataclasses.fields(declaration)
    return {f.metadata["flag"]: key_of(f) for f in declared if f.metadata.get("flag")}


def parse(declaration: type[T], argv: Sequence[str]) -> T:
    """Fill the dataclass `declaration` from argv."""
    alone = flags(declaration)
    arguments = pairs(argv, alone)
    return fill(declaration, {alone.get(key, key): value for key, value in arguments.items()})


def shown_default(field: dataclasses.Field[Any]) -> str:
    """Return the default as in conf.json; "required" where there is none."""
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, Enum):
        return str(field.default.value)
    if isinstance(field.default, tuple):
        return " ".join(map(str, field.default))
    return str(field.default)
