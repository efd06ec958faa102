"""Paths in a config: made absolute, and checked for what only a shell would expand."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from tools import filesystem_handling, os_works
from tools.base import hung_mount
from tools.base.errors import ConfigError, in_words
from tools.config.include import Entry, unexpanded
from tools.modules import options
from tools.modules.options import Declaration, Paths

T = TypeVar("T")
_LIST = 'Use a JSON list for paths with a space: ["/a", "/b c"].'
_QUOTES = ("'", '"')
_MOST_SPACES = 6  # words of one path
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


def anchored(declaration: type[Declaration], key: str, entry: Entry, location: str = "") -> Any:  # noqa: ANN401  (JSON value)
    """Return the value with its paths made absolute, from the folder of the file that holds it.

    A value without paths is returned unchanged. Raises ConfigError for an invalid path, and for
    one that only a shell would expand.
    """
    value = entry.value
    kind = options.kinds(declaration).get(options.canonical(declaration, key).lower())
    if value in ("", None) or kind not in (Path, Path | None, Paths, Paths | None):
        return value
    if kind in (Path, Path | None):
        if not isinstance(value, str):
            raise ConfigError(f"{location}: must be a path")
        return _checked(value, entry, location)
    try:
        paths = options.strings(value) if isinstance(value, str) else value
    except ValueError:
        paths = None
    if not isinstance(paths, list | tuple) or not all(isinstance(w, str) and w for w in paths):
        raise ConfigError(
            f"{location}: must be one or more paths", 'Use "/a /b" or ["/a", "/b c"].'
        )
    if isinstance(value, str):
        _check_spaces(paths, entry.folder, location)
    return [_checked(word, entry, location) for word in paths]


def absolute(folder: Path, path: str) -> str:
    """Return a path without a final slash; normpath keeps two at the beginning, as POSIX allows."""
    return re.sub(r"^/+", "/", os.path.normpath(folder / path))


def _checked(word: str, entry: Entry, location: str) -> str:
    path = absolute(entry.folder, word)
    unexpanded(word, Path(path), location)
    if _WINDOWS.match(word) and not os.path.lexists(path):
        raise ConfigError(
            f"{location}: {word}: is a Windows path", "Use a Unix path, for example /a/b."
        )
    return path


def _check_spaces(paths: Sequence[str], folder: Path, location: str) -> None:
    """Reject a text that was split at a space inside a path: the pieces would be other paths."""
    for first, second in pairwise(paths):
        if os.path.lexists(absolute(folder, second)):
            continue
        if first.endswith("\\"):
            problem = f"{first} {second}: a backslash does not keep a space in a path"
            raise ConfigError(f"{location}: {problem}", _LIST)
        if first[0] in _QUOTES:
            problem = f"{first} {second}: quotes do not keep a space in a path"
            raise ConfigError(f"{location}: {problem}", _LIST)
    for begin in range(len(paths)):
        for end in range(begin + 2, min(begin + _MOST_SPACES, len(paths)) + 1):
            _check_joined(paths[begin:end], folder, location)


def _check_joined(paths: Sequence[str], folder: Path, location: str) -> None:
    """Reject paths that joined are one existing path, but not all existing paths alone."""
    joined = " ".join(paths)
    exists = os.path.lexists(absolute(folder, joined))
    if exists and not all(os.path.lexists(absolute(folder, word)) for word in paths):
        raise ConfigError(f"{location}: {joined}: is read as {len(paths)} paths", _LIST)


def check_folder(path: Path | None, location: str) -> None:
    """Reject a file where a folder is needed; a folder above it may be closed to this user."""

    def is_file(folder: Path) -> bool:
        return os.path.exists(folder) and not os.path.isdir(folder)  # noqa: PTH110, PTH112  (they do not raise)

    if path is None:
        return
    if answered(path, functools.partial(is_file, path), location):
        raise ConfigError(f"{location}: {path}: not a directory", "Name a folder.")
    if link := answered(path, functools.partial(filesystem_handling.looping_link, path), location):
        raise ConfigError(f"{location}: {link}: {filesystem_handling.LOOP}", "Name a folder.")


def answered(path: Path, look: Callable[[], T], location: str) -> T:
    """Return what a look at a path returns. Raises ConfigError where its mount is silent."""
    try:
        return hung_mount.answer(path, look)
    except TimeoutError as error:
        problem, hint = in_words(error)
        raise ConfigError(f"{location}: {problem}", hint) from None


def unwritable(key: str, folder: Path) -> str:
    """Return the hint for a folder of the backup that this user cannot create or write.

    An existing folder may serve others as well: no command here changes its owner.
    """
    user = os_works.user()
    another = f"set {key} in GENERAL to a folder that {user} can write"
    if os.path.lexists(folder):
        return f"{another[0].upper()}{another[1:]}."
    return f"As root, create it: {creating(key, folder)}; or {another}."


def creating(key: str, folder: Path) -> str:
    """Return the command by which root creates a folder of the backup; the log has readers."""
    user = shlex.quote(os_works.user())
    who = f"-o {user} -g {user} -m 0750" if key == "LOG_FOLDER" else f"-o {user} -m 0700"
    return f"install -d {who} {shlex.quote(str(folder))}"
