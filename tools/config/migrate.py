"""`backup.py --migrate OLD.json`: a config of the documented system, written in today's form.

The changes are those that the loader would warn of (legacy.py), and those that only spare the
next reader a look into the docs: old names of keys, relative paths, INCLUDE. Nothing is run, and
values are written to the new text alone: the line about a change never has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.base import project
from tools.base.errors import ConfigError
from tools.config import general, legacy, loading, selection
from tools.config.declarations import General, placeholder
from tools.config.include import Entry, Files, Keys
from tools.config.legacy import Change
from tools.config.paths import anchored
from tools.config.validation import one_line
from tools.modules import options, registry
from tools.modules.options import Declaration


@dataclass(frozen=True)
class Migrated:
    """The new text, one line for each change, and what still keeps it from running."""

    text: str
    changes: tuple[str, ...]
    remaining: ConfigError | None


def migrated(path: Path) -> Migrated:
    """Return the config in today's form, with all that it includes.

    Raises ConfigError where the file cannot be read, is not JSON, or has no sections.
    """
    files = Files(insecure=True, comments=True)  # read as data: no program of it is run
    try:
        merged = files.merged(path)
        changes = [*legacy.repeated(files.repeats), *_of_old(merged)]
        merged = _applied(merged, changes)
        more = list(_of_style(merged))
        merged = _applied(merged, more)
    except ConfigError as error:
        raise ConfigError(one_line(str(error)), one_line(error.hint)) from None
    document = {key: legacy.plain(entry) for key, entry in merged.items()}
    lines = tuple(one_line(change.warning) for change in (*changes, *more))
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return Migrated(text, lines, _remaining(path, merged))


def _applied(merged: Keys, changes: list[Change]) -> Keys:
    for change in changes:
        merged = legacy.applied(merged, change, commented=True)
    return merged


def _home(merged: Mapping[str, Entry]) -> Path:
    """Return the folder of the modules: those of another copy of this program are ours."""
    home = legacy.home(merged["GENERAL"]) if "GENERAL" in merged else project.ROOT
    return project.ROOT if general.is_copy(home) else home


def _of_old(merged: Mapping[str, Entry]) -> Iterator[Change]:
    """Yield what the loader would warn of, and the placeholder of the documented templates."""
    if not any(isinstance(entry.value, dict) for entry in merged.values()):
        raise ConfigError(
            "the config has no section", "Use --migrate with a config of the documented system."
        )
    keys: Keys = merged["GENERAL"].value if "GENERAL" in merged else {}
    folder = keys.get("HOME_FOLDER")
    if folder is not None and _home(merged) == project.ROOT:
        text = "is no longer needed: the modules are those beside backup.py"
        yield Change(folder.where, ("GENERAL", "HOME_FOLDER"), text, {})
    address = keys.get("MESSAGE_CONFIG_COMMAND")
    if address is not None and placeholder(str(address.value)):
        text = "is a placeholder: removed, and no report is sent"
        yield Change(address.where, ("GENERAL", "MESSAGE_CONFIG_COMMAND"), text, {})
    yield from legacy.changes(merged, _home(merged))


def _of_style(merged: Mapping[str, Entry]) -> Iterator[Change]:
    """Yield changes: old names of keys, and paths that depend on the folder of the old file."""
    for name, entry in merged.items():
        if name.startswith("__") or not isinstance(entry.value, dict):
            continue
        if name == "GENERAL":
            yield from _paths(("GENERAL",), entry.value, General)
            continue
        built_in = legacy.module(entry.value, _home(merged))
        parameters = entry.value.get("PARAMETERS")
        if built_in and parameters is not None and isinstance(parameters.value, dict):
            declaration = registry.declaration(project.ROOT / built_in)
            yield from _paths((name, "PARAMETERS"), parameters.value, declaration)


def _paths(above: tuple[str, ...], keys: Keys, declaration: type[Declaration]) -> Iterator[Change]:
    for key, entry in keys.items():
        if key not in options.keys(declaration):
            continue
        name = options.canonical(declaration, key)
        if name != key and name in keys:
            yield Change(entry.where, (*above, key), f"is ignored: {name} is also set", {})
            continue
        value = _absolute(declaration, key, entry)
        texts = [f"is now called {name}"] if name != key else []
        if value is not entry.value:
            texts.append("the relative path is written as an absolute one")
        if texts:
            yield Change(entry.where, (*above, key), "; ".join(texts), {name: value})


def _absolute(declaration: type[Declaration], key: str, entry: Entry) -> Any:  # noqa: ANN401  (JSON value)
    """Return the value, its paths made absolute where one of them is relative."""
    try:
        value = anchored(declaration, key, entry)
    except ConfigError:
        return entry.value  # the loader reports it with file and line
    if value is entry.value:
        return value
    paths = options.strings(entry.value) if isinstance(entry.value, str) else entry.value
    single = isinstance(value, str)
    original = [entry.value] if single else list(paths)
    if all(word.startswith("/") for word in original):
        return entry.value
    return value


def _remaining(path: Path, merged: Keys) -> ConfigError | None:
    """Return why the new config cannot run yet, if it cannot."""
    bare = {key: _bare(entry) for key, entry in merged.items() if not key.startswith("__")}
    try:
        selection.select(loading.checked(path, bare), [], [])
    except ConfigError as error:
        return error
    return None


def _bare(entry: Entry) -> Entry:
    """Return the entry without comments."""
    if not isinstance(entry.value, dict):
        return entry
    values = {
        key: _bare(held) if isinstance(held, Entry) else held
        for key, held in entry.value.items()
        if not key.startswith("__")
    }
    return Entry(values, entry.where, entry.folder)
