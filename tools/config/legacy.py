"""Configs of the documented system: keys that are read in another way than they are written.

Each difference is a Change with its reason: the loader warns of it, `--migrate` writes it down.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.base import project
from tools.base.errors import ConfigError
from tools.config import notify
from tools.config.declarations import SECTION_KEYS, General
from tools.config.include import Entry, Keys
from tools.config.json_parser import Repeat
from tools.config.validation import NEAR, nearest
from tools.modules import options, registry
from tools.modules.options import Declaration

_STORAGE = "storage/storage.py"
_ENCRYPTION = "encryption/encryption.py"
_CLEANUP = "cleanup"
_CLEANUP_MODULE = "cleanup/cleanup.py"
_KEPT_WITH_CLEANUP = ("NEEDS", "TIMEOUT", "ENVIRONMENT")
_OF_CLEANUP = ("BUCKET", "PREFIX", "KEEP", "REMOTE")  # keys that stood beside ACTION
_SIZE = re.compile(r"\s*(\d+)\s*m(?:i?b)?\s*", re.I)
# What ARGS_DICT may hold for a DESTINATION, and the key that it is now.
_IN_DICTIONARY = {
    "local": {"LOCAL_BACKUP": "LOCAL_BACKUP"},
    "oss": {"BUCKET": "BUCKET_NAME"},
    "s3": {"BUCKET": "BUCKET_NAME"},
}
_LONGEST_DICT = 10_000  # characters of a dictionary that is written as text
_DEPTH = 2  # keys above one of PARAMETERS: below it values are plain JSON


@dataclass(frozen=True)
class Change:
    """One key that is read otherwise than it is written.

    where: file and line; path: the keys that lead to it
    text:  what becomes of it, without its value
    put:   the keys and values in its place; None where it stays as it is
    """

    where: str
    path: tuple[str, ...]
    text: str
    put: Mapping[str, Any] | None = None

    @property
    def warning(self) -> str:
        """Return the change as one line."""
        return f"{self.where}: {'.'.join(self.path)}: {self.text}"


def home(general: Entry) -> Path:
    """Return the folder of the modules, from GENERAL where it is set; it need not exist."""
    home_folder = general.value.get("HOME_FOLDER")
    if home_folder is None or not isinstance(home_folder.value, str) or not home_folder.value:
        return project.ROOT
    return Path(home_folder.folder, home_folder.value)


def module(keys: Keys, folder: Path) -> str:
    """Return the built-in module of a section ("storage/storage.py"); "" for any other."""

    def text(key: str) -> str:
        entry = keys.get(key)
        return entry.value if entry is not None and isinstance(entry.value, str) else ""

    if text("ACTION") == "load":
        part = f"{text('FROM')}/{text('FILENAME')}.py"
    else:
        part = f"{text('NAME')}/{text('EXECUTABLE') or text('NAME') + '.py'}"
    file = folder / part
    try:
        name = registry.name_of(file) if file.exists() else part
    except (OSError, ValueError):
        name = part
    return name if name in registry.MODULES else ""


def repeated(repeats: Sequence[tuple[str, Repeat]]) -> Iterator[Change]:
    """Yield a change for each key that repeats inside its section: the last value counts."""
    for where, repeat in repeats:
        text = f"occurs twice: the value of line {repeat.line} is used, not {repeat.first_line}"
        yield Change(where, repeat.path, text)


def changes(merged: Mapping[str, Entry], folder: Path) -> Iterator[Change]:
    """Return what is read differently in the sections of a config, in the order of the file."""
    has_user_defined = False
    for name, entry in merged.items():
        if name == "GENERAL" or name.startswith("__") or not isinstance(entry.value, dict):
            continue
        if notify.is_notify(name, entry):
            continue
        clean_up = _clean_up(name, entry, folder)
        if clean_up is not None:
            yield clean_up
            continue
        built_in = module(entry.value, folder)
        skipped = _skipped(name, entry)
        has_user_defined = has_user_defined or not (built_in or skipped)
        yield from skipped or _of_section(name, entry.value, built_in)
    if "GENERAL" in merged and not has_user_defined:
        yield from _of_general(merged["GENERAL"].value)


def _of_general(keys: Keys) -> Iterator[Change]:
    """Yield changes for unknown keys of GENERAL, which only user-defined modules would get."""
    declared = options.keys(General)
    for key, entry in keys.items():
        if key not in declared and not key.startswith("__") and _is_spare(key, entry):
            yield Change(entry.where, ("GENERAL", key), "unknown key, ignored", {})


def general_key(key: str, entry: Entry) -> None:
    """Refuse an unknown key of GENERAL that is a typo, or an option of the command line."""
    location = f"{entry.where}: GENERAL.{key}"
    if key.upper().replace("_", "") == "LOGLEVEL":
        raise ConfigError(f"{location}: unknown key", "Set the log level with -l, as in -l info.")
    declared = list(options.keys(General))
    near = difflib.get_close_matches(key.upper(), declared, 1, NEAR)
    if near:
        raise ConfigError(f"{location}: unknown key", f"Did you mean {near[0]}?")


def misplaced(key: str, entry: Entry) -> list[ConfigError]:
    """Return the error for a key of a built-in module in GENERAL; nothing for any other key."""
    owner = next((path for path in registry.MODULES if key in _declared(path)), "")
    if not owner:
        return []
    folder = Path(owner).parent
    problem = f"{entry.where}: GENERAL.{key}: is a key of the module {folder}"
    return [ConfigError(problem, f"Move it into PARAMETERS of the section that uses {folder}.")]


def _declared(path: str) -> Sequence[str]:
    return tuple(options.keys(registry.declaration(project.ROOT / path)))


def _is_spare(key: str, entry: Entry) -> bool:
    try:
        general_key(key, entry)
    except ConfigError:
        return False
    return not misplaced(key, entry)


def _clean_up(name: str, entry: Entry, folder: Path) -> Change | None:
    """Return the change for a documented CLEANUP section; None for any other section.

    Its keys stand beside ACTION, or there is none.
    """
    keys: Keys = entry.value
    is_cleanup = module(keys, folder) == _CLEANUP_MODULE
    action = keys.get("ACTION")
    bare = (action is None or action.value in ("", None)) and (
        "KEEP" in keys or name.lower() == _CLEANUP
    )
    if not (bare or (is_cleanup and not set(_OF_CLEANUP).isdisjoint(keys))):
        return None
    old_parameters = keys.get("PARAMETERS")
    parameters: Keys = (
        dict(old_parameters.value)
        if old_parameters is not None and isinstance(old_parameters.value, dict)
        else {}
    )
    old = ("BUCKET", "PREFIX", "KEEP")
    parameters |= {key: replace(keys[key], value=plain(keys[key])) for key in old if key in keys}
    parameters = {key: held for key, held in parameters.items() if held.value not in ("", None)}
    why = ""
    if not parameters.get("KEEP") or not parameters["KEEP"].value:
        why = "it has no KEEP"
    elif not os.path.exists(folder / _CLEANUP_MODULE):  # noqa: PTH110  (closed: False)
        why = f"HOME_FOLDER has no {_CLEANUP_MODULE}"
    if why:
        text = f"the section is skipped: {why}, so nothing is removed from a store"
        return Change(entry.where, (name,), text, {})
    kept_keys = {key: held for key, held in keys.items() if key in _KEPT_WITH_CLEANUP}
    section = {
        "ACTION": Entry("execute", entry.where, entry.folder),
        "NAME": Entry(_CLEANUP, entry.where, entry.folder),
        **kept_keys,
        "PARAMETERS": Entry(parameters, entry.where, entry.folder),
    }
    text = "is read as a section of the module cleanup: it removes runs that KEEP does not keep"
    return Change(entry.where, (name,), text, {name: section})


def _skipped(name: str, entry: Entry) -> list[Change]:
    """Return the change for a section without ACTION."""
    keys: Keys = entry.value
    action = keys.get("ACTION")
    typo = any(nearest(key, ("ACTION",)) for key in keys if key != "ACTION")
    if action is None and not typo:
        why = "it has no ACTION"
    elif action is not None and action.value in ("", None):
        why = "its ACTION is empty"
    else:
        why = ""
    return [Change(entry.where, (name,), f"the section is skipped: {why}", {})] if why else []


def no_section_left(path: Path, changes: Sequence[Change]) -> ConfigError:
    """Return the error for a config of which no section runs."""
    skipped = [change for change in changes if len(change.path) == 1]
    if skipped:
        problem = f"{skipped[0].where}: {skipped[0].path[0]}.ACTION is missing"
        return ConfigError(problem, 'Set ACTION to "execute" or "load": no other section runs.')
    hint = 'Add at least a source and a store: sections with an "ACTION".'
    return ConfigError(f"{path}:1: no section besides GENERAL", hint)


def _of_section(name: str, keys: Keys, built_in: str) -> Iterator[Change]:
    declaration = registry.declaration(project.ROOT / built_in) if built_in else None
    for key, entry in keys.items():
        path = (name, key)
        if key in ("EXECUTABLE", "EXECUTE_WITH") and entry.value in ("", None):
            yield Change(entry.where, path, "is empty: the default is used", {})
        elif key == "PARAMETERS" and entry.value in ("", None):
            yield Change(entry.where, path, "is empty: the module gets its defaults", {})
        elif key == "PARAMETERS" and declaration is not None and isinstance(entry.value, dict):
            yield from _of_parameters(name, entry.value, built_in, declaration)
        elif _ignored(key, SECTION_KEYS) and key not in (
            options.keys(declaration) if declaration else ()
        ):
            yield Change(entry.where, path, "unknown key, ignored", {})


def _ignored(key: str, known: Sequence[str]) -> bool:
    """Return whether a key is unknown and no typo of a known one; the old program ignored it."""
    return key not in known and not key.startswith("__") and not nearest(key, known)


def _of_parameters(
    name: str, keys: Keys, built_in: str, declaration: type[Declaration]
) -> Iterator[Change]:
    declared = tuple(options.keys(declaration))
    texts = {key: str(entry.value) for key, entry in keys.items()}
    foreign = options.foreign_keys(declaration, texts)
    chosen = options.is_chosen(declaration, texts)  # otherwise that is what is rejected
    for key, entry in keys.items():
        path = (name, "PARAMETERS", key)
        if built_in == _STORAGE and key == "ACTION":
            yield _upload(entry, path)
        elif (
            built_in == _STORAGE and key == "ARGS_DICT" and (key in foreign or key not in declared)
        ):
            yield from _arguments(entry, path, keys)
        elif built_in == _ENCRYPTION and key == "FILE_SIZE":
            yield from _file_size(entry, path)
        elif key in foreign:
            yield _of_another(declaration, entry, path, texts)
        elif _ignored(key, declared) or not (key in declared or chosen):
            yield Change(entry.where, path, "unknown key, ignored", {})


def _of_another(
    declaration: type[Declaration], entry: Entry, path: tuple[str, ...], texts: Mapping[str, str]
) -> Change:
    """Return the change for a key of another variant. Raises ConfigError where none is chosen."""
    choice, values = options.variants(declaration)
    if choice not in texts:
        fitting = [value for value, one in values.items() if path[-1] in options.keys(one)]
        raise ConfigError(
            f"{entry.where}: {'.'.join(path)}: is a key of {choice} {' or '.join(fitting)}",
            f"Set {choice}.",
        )
    return Change(entry.where, path, f"is not used with {choice} {texts[choice]}", {})


def _upload(entry: Entry, path: tuple[str, ...]) -> Change:
    """Return the change for ACTION of the storage module, which only ever stored."""
    if str(entry.value or "upload").lower() != "upload":
        raise ConfigError(
            f"{entry.where}: {'.'.join(path)}: {entry.value!r}: invalid value",
            "Remove the key: a store only stores.",
        )
    return Change(entry.where, path, "is no longer needed: a store only stores", {})


def _arguments(entry: Entry, path: tuple[str, ...], keys: Keys) -> Iterator[Change]:
    """Yield the change for ARGS_DICT, a dictionary as text, mostly of keys of the section."""
    destination = keys["DESTINATION"].value if "DESTINATION" in keys else "local"
    key_names = _IN_DICTIONARY.get(str(destination))
    if key_names is None:  # DESTINATION itself is rejected
        yield Change(entry.where, path, f"is not used with DESTINATION {destination}", {})
        return
    values = _dictionary(entry.value)
    if values is None or not set(values) <= set(key_names):
        raise ConfigError(
            f"{entry.where}: {'.'.join(path)}: invalid value",
            "With this DESTINATION it is a dictionary with no other key than "
            f"{', '.join(key_names)}.",
        )
    put = {key_names[key]: value for key, value in values.items() if key_names[key] not in keys}
    if not values:
        yield Change(entry.where, path, "is empty: it is ignored", {})
    elif not put:
        names = " and ".join(key_names[key] for key in values)
        yield Change(entry.where, path, f"is ignored: {names} is also set", {})
    else:
        yield Change(
            entry.where, path, f"is read as {', '.join(put)}, which is a key of its own now", put
        )


def _dictionary(value: object) -> dict[str, str] | None:
    """Return the texts by key of a dictionary, also of one written as text; None for others."""
    if isinstance(value, str) and len(value) <= _LONGEST_DICT:
        try:
            value = ast.literal_eval(value.strip() or "{}")
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(value, dict):
        return None
    texts = {key: held for key, held in value.items() if isinstance(held, str)}
    return (
        texts if len(texts) == len(value) and all(isinstance(key, str) for key in texts) else None
    )


def _file_size(entry: Entry, path: tuple[str, ...]) -> Iterator[Change]:
    """Yield the change for a FILE_SIZE with the unit, as in 5M: it is a number of MiB."""
    size = _SIZE.fullmatch(entry.value) if isinstance(entry.value, str) else None
    if size:
        text = f"is read as {int(size[1])}: the number of MiB is written without a unit"
        yield Change(entry.where, path, text, {"FILE_SIZE": size[1]})


def applied(keys: Keys, change: Change, *, commented: bool = False) -> Keys:
    """Return the keys with one change made. commented: a `__` key beside it describes it."""
    if not change.path or change.path[0] not in keys:
        return keys
    name, *below = change.path
    entry = keys[name]
    if below and isinstance(entry.value, dict) and isinstance(entry.value.get(below[0]), Entry):
        inner = applied(entry.value, replace(change, path=tuple(below)), commented=commented)
        return {**keys, name: replace(entry, value=inner)}
    put = None if below else change.put
    result: Keys = {}
    for key, held in keys.items():
        if key == name and commented:
            result |= _comment(keys, name, held, change)
        if key != name or put is None:
            result[key] = held
        else:
            result |= {new: replace(held, value=value) for new, value in put.items()}
    return result


def _comment(keys: Keys, name: str, entry: Entry, change: Change) -> Keys:
    """Return the comment for a change: a section that is skipped stays as a comment as a whole."""
    key = f"__{name}"
    number = 1
    while key in keys:
        number += 1
        key = f"__{name}_{number}"
    text = f"migrated: {change.text}"
    old = plain(entry)
    if change.put is None or change.put == {name: old}:
        return {key: replace(entry, value=text)}
    if isinstance(old, dict):
        return {key: replace(entry, value={"__migrated": change.text, **old})}
    return {key: replace(entry, value=[text, old])}


def plain(entry: Entry) -> Any:  # noqa: ANN401  (any JSON value)
    """Return a value as JSON holds it, without places."""
    if isinstance(entry.value, dict):
        return {
            key: plain(held) if isinstance(held, Entry) else held
            for key, held in entry.value.items()
        }
    return entry.value
