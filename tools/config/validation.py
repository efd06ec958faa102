"""Checks of keys and values of a config; each error names file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.base import foreign, masking
from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.config.include import Entry, Keys
from tools.modules import json_types, options
from tools.modules.options import Declaration

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
NEAR = 0.8  # how alike an unknown key must be to a known one to be a typo of it
_LONGEST_MESSAGE = 600  # characters
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def filled(
    declaration: type[Declaration],
    values: Mapping[str, Any],
    places: Mapping[str, str],
    otherwise: str,
) -> Any:  # noqa: ANN401  (an instance of the declaration)
    """Call options.fill with JSON values; its errors get file, line and key.

    places: file, line and path of each key that is set; otherwise: the start of the path of others
    """
    known = options.keys(declaration)

    def named(key: str) -> str:
        names = [key, *(name for name in known if known[name] is known.get(key))]
        names = [name.rstrip("_") for name in names]
        return next((places[name] for name in names if name in places), f"{otherwise}.{names[0]}")

    kinds = options.kinds(declaration)
    for key, value in values.items():
        json_types.check(kinds.get(options.canonical(declaration, key).lower()), value, named(key))
    try:
        return options.fill(declaration, options.texts(declaration, values), named)
    except ConfigError as error:
        text = str(error)
        if text.startswith((otherwise, *places.values())):
            raise
        key, _, problem = text.partition(":")
        text = f"{named(key)}:{problem}" if key in known else f"{otherwise}: {text}"
        raise ConfigError(text, error.hint, error.fix) from None


def trouble(path: Path, kind: Callable[[int], bool]) -> str:
    """Return in brackets why a path is not what it must be; "" if it is."""
    try:
        return "" if kind(path.stat().st_mode) else " (wrong type of file)"
    except OSError as error:
        return f" ({(error.strerror or 'cannot be read').lower()})"
    except ValueError:
        return " (name not valid on this system)"  # its encoding lacks a character


def one_line(text: str) -> str:
    """Return a message as one printable line, whatever the file contains."""
    printable = _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return foreign.shortened(printable, _LONGEST_MESSAGE)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return the known key that an unknown one was probably meant to be; "" if there is none.

    That is one in another case, one that differs in few characters, or one of which it has a
    word too many or too few (INCLUDE for FILESET_INCLUDE).
    """
    upper = key.upper()
    names = list(known)
    if upper in names:
        return upper
    near = difflib.get_close_matches(upper, names, 1, NEAR)
    if near:
        return near[0]
    tokens = _tokens(upper)
    return next((name for name in names if tokens < _tokens(name) or tokens > _tokens(name)), "")


def _tokens(key: str) -> set[str]:
    return set(key.split("_")) - {""}


def refuse_unknown(key: str, entry: Entry, known: Iterable[str], parent: str) -> None:
    """Reject an unknown key; the hint names the nearest known one."""
    names = list(known)
    if key in names:
        return
    near = nearest(key, names) or next(iter(difflib.get_close_matches(key, names, 1, 0.5)), "")
    hint = f"Did you mean {near}?" if near else f"Choose from: {', '.join(names)}."
    raise ConfigError(f"{entry.where}: {parent}.{key}: unknown key", hint)


def refuse_misplaced(key: str, entry: Entry, declaration: type[Declaration], parent: str) -> None:
    """Reject a key of a module that is next to PARAMETERS instead of in it."""
    if key in options.keys(declaration):
        raise ConfigError(
            f"{entry.where}: {parent}.{key}: belongs in PARAMETERS",
            f'Write "PARAMETERS": {{"{key}": ...}} in the section {parent}.',
        )


def check_key(key: str, entry: Entry, parent: str) -> None:
    """Reject what cannot be the key of an argument."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{entry.where}: {parent}.{key!r}: invalid key", "Use A-Z, 0-9 and _.")


def choice(value: str, allowed: tuple[str, ...], keys: Keys, name: str, key: str) -> None:
    """Reject a value that is not one of the allowed ones."""
    if value not in allowed:
        near = ", ".join(word for word in allowed if word)
        quoted = masking.quoted(value)
        raise ConfigError(
            f"{keys[key].where}: {name}.{key}: {quoted}: invalid value", f"Choose from: {near}."
        )


def literal_secret(
    location: str, key: str, value: object, declaration: type[Declaration] | None
) -> list[str]:
    """Return a warning for a secret in the config itself, and mask it."""
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    text = options.to_text(value) if is_plain else ""
    if not text or masking.reference(text):
        return []
    kind = (
        options.kinds(declaration).get(options.canonical(declaration, key).lower())
        if declaration
        else None
    )
    if kind is Secret:
        Secret(text)
    elif not masking.secretive(key):
        return []
    return [f"{location}: secret in the config; use env:NAME or file:/path instead"]
