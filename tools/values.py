"""A value of a config: its paths made absolute, and errors that say where it stands."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tools import options
from tools.errors import ConfigError
from tools.included import Entry, Keys
from tools.options import Paths

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LONGEST_MESSAGE = 600  # characters
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def anchored(declaration: type[Any], key: str, entry: Entry, place: str = "") -> Any:  # noqa: ANN401  (JSON value)
    """The value with its paths made absolute, from the folder of the file that holds it."""
    value = entry.value
    kind = options.kinds(declaration).get(options.canonical(declaration, key).lower())
    if value in ("", None) or kind not in (Path, Path | None, Paths, Paths | None):
        return value
    if kind in (Path, Path | None):
        if not isinstance(value, str):
            raise ConfigError(f"{place}: must be a text that names a path")
        return _absolute(entry.folder, value)
    try:
        words = options.words(value) if isinstance(value, str) else value
    except ValueError:
        words = None
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
        raise ConfigError(f"{place}: must be paths", 'Like "/a /b" or ["/a", "/b c"].')
    return [_absolute(entry.folder, word) for word in words]


def _absolute(folder: Path, path: str) -> str:
    """Without a final slash; normpath leaves two slashes at the beginning, as POSIX allows."""
    return re.sub(r"^/+", "/", os.path.normpath(folder / path))


def filled(
    declaration: type[Any], texts: Mapping[str, str], places: Mapping[str, str], otherwise: str
) -> Any:  # noqa: ANN401  (an instance of the declaration)
    """options.fill, with file, line and key in whatever it raises.

    places: where each key that is given stands; otherwise: what a key that is not is called by.
    """
    known = options.keys(declaration)

    def named(key: str) -> str:
        names = [key, *(name for name in known if known[name] is known.get(key))]
        names = [name.rstrip("_") for name in names]
        return next((places[name] for name in names if name in places), f"{otherwise}.{names[0]}")

    try:
        return options.fill(declaration, texts, named)
    except ConfigError as error:
        text = str(error)
        if text.startswith((otherwise, *places.values())):
            raise
        key, _, what = text.partition(":")
        text = f"{named(key)}:{what}" if key in known else f"{otherwise}: {text}"
        raise ConfigError(text, error.hint) from None


def trouble(path: Path, kind: Callable[[int], bool]) -> str:
    """Why a path is not what it must be, in brackets; "" if it is."""
    try:
        return "" if kind(path.stat().st_mode) else " (it is something else)"
    except OSError as error:
        return f" ({(error.strerror or 'cannot be read').lower()})"
    except ValueError:
        return " (no name that this system knows)"  # its encoding lacks a character


def one_line(text: str) -> str:
    """A message as it can be shown anywhere, whatever stands in the file."""
    shown = _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    if len(shown) <= _LONGEST_MESSAGE:
        return shown
    return f"{shown[: _LONGEST_MESSAGE // 2]} ... {shown[-_LONGEST_MESSAGE // 2 :]}"


def refuse_unknown(key: str, entry: Entry, known: Iterable[str], called: str) -> None:
    """Refuse a key that is not known, naming the nearest one that is."""
    if key in known:
        return
    near = difflib.get_close_matches(key.upper(), known, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"{entry.where}: {called}.{key}: unknown key", hint)


def check_key(key: str, entry: Entry, called: str) -> None:
    """Refuse what cannot be the key of an argument."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{entry.where}: {called}.{key!r}: no key", "Use A-Z, 0-9 and _.")


def choice(value: str, allowed: tuple[str, ...], keys: Keys, name: str, key: str) -> None:
    """Refuse a value that is none of those that are allowed."""
    if value not in allowed:
        near = ", ".join(word for word in allowed if word)
        raise ConfigError(
            f"{keys[key].where}: {name}.{key}: {value!r} is not known", f"Known: {near}."
        )
