"""conf.json: read once, checked whole before anything runs, every error with file, line and key."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import house, jsontext, mask, options, plugin
from tools.declarations import SECTION_KEYS, General, SectionKeys
from tools.errors import ConfigError
from tools.included import Entry, Files, Keys
from tools.options import Paths
from tools.secret import Secret

_NEAR = 0.8  # how alike an unknown key of GENERAL must be to a known one to be a slip
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Section:
    """One section, ready to run.

    where:       file and line of its key
    action:      "execute" or "load"
    file:        the executable or the plugin's file, absolute
    interpreter: "" for load
    parameters:  JSON values; keys of built-in modules by their preferred names
    kind:        source, stage, store or check for a built-in module, "" for one of the user's
    declaration: the Options of a built-in module
    """

    name: str
    where: str
    action: str
    file: Path
    interpreter: str = ""
    class_name: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flat: bool = False
    needs: tuple[str, ...] = ()
    on_error: str = "continue"
    timeout: float | None = None
    environment: tuple[str, ...] = ()
    kind: str = ""
    declaration: type[Any] | None = None


@dataclass(frozen=True)
class Config:
    """A config that has been checked.

    handed: every key of GENERAL, as every module gets it; paths absolute
    """

    path: Path
    general: General
    handed: Mapping[str, Any]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()


def load(path: Path, *, insecure: bool = False) -> Config:
    """Read and check a config with all that it includes.

    insecure: accept files that somebody else could change. Raises ConfigError.
    """
    return _Loader(insecure).load(path)


def report_address(path: Path) -> tuple[str, str, Path] | None:
    """HOSTNAME, report address and WORK_FOLDER of a config that may be broken elsewhere."""
    try:
        general = Files(insecure=True).merged(path)["GENERAL"].value
        values = {
            key: options.to_text(jsontext.plain(entry.value)) for key, entry in general.items()
        }
        known = {key: values[key] for key in values if key in options.keys(General)}
        read = options.fill(General, known)
    except (ConfigError, OSError, KeyError, AttributeError):
        return None
    if not read.message_config_command:
        return None
    return read.hostname, read.message_config_command, path.resolve().parent / read.work_folder


class _Loader:
    """Reads one config and what it includes."""

    def __init__(self, insecure: bool) -> None:
        self.files = Files(insecure)
        self.warnings: list[str] = []

    def load(self, path: Path) -> Config:
        merged = self.files.merged(path)
        if "GENERAL" not in merged:
            raise ConfigError(
                f"{path}:1: the section GENERAL is missing", "It holds at least HOSTNAME."
            )
        general, handed = self.general(merged.pop("GENERAL").value)
        sections: list[Section] = []
        for name, entry in merged.items():
            sections.append(
                self.section(name, entry, (general, handed), [s.name for s in sections])
            )
        if not sections:
            raise ConfigError(
                f"{path}:1: there is no section beside GENERAL", "Nothing would be run."
            )
        if not any(section.kind in ("store", "") for section in sections):
            self.warnings.append(f"{path}: no section stores anything")
        return Config(path.resolve(), general, handed, tuple(sections), tuple(self.warnings))

    # --- GENERAL

    def general(self, entries: Keys) -> tuple[General, dict[str, Any]]:
        known = options.keys(General)
        handed: dict[str, Any] = {}
        for key, entry in entries.items():
            _refuse_stream(key, entry, "GENERAL")
            if key not in known:
                self.unknown_general(key, entry, known)
            handed[key] = _anchored(General, key, entry)
        texts = {k: options.to_text(v).removesuffix("%") for k, v in handed.items() if k in known}
        general = _filled(General, texts, entries, "GENERAL")
        home = general.home_folder or plugin.ROOT
        handed.setdefault("HOME_FOLDER", str(home))
        handed.setdefault("WORK_FOLDER", str(general.work_folder))
        if not home.is_dir():
            where = entries["HOME_FOLDER"].where
            raise ConfigError(
                f"{where}: GENERAL.HOME_FOLDER: {home} is no folder", "It holds the code."
            )
        return dataclasses.replace(general, home_folder=home), handed

    def unknown_general(self, key: str, entry: Entry, known: Iterable[str]) -> None:
        """Refuse a slip; hand on what may be meant for a module of the user's own."""
        near = difflib.get_close_matches(key.upper(), known, 1, _NEAR)
        if near:
            raise ConfigError(
                f"{entry.where}: GENERAL.{key}: unknown key", f"Did you mean {near[0]}?"
            )
        _check_key(key, entry, "GENERAL")
        self.warnings.append(
            f"{entry.where}: GENERAL.{key} is unknown here; it is handed to the modules"
        )

    # --- a section

    def section(
        self, name: str, entry: Entry, general: tuple[General, dict[str, Any]], earlier: list[str]
    ) -> Section:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{entry.where}: {name!r} cannot be the name of a section", "Use A-Z, 0-9, _."
            )
        keys: Keys = entry.value
        for key, given in keys.items():
            _refuse_stream(key, given, name)
            _refuse_unknown(key, given, SECTION_KEYS, name)
        texts = {
            {"FROM": "FROM_", "CLASS": "CLASS_"}.get(key, key): options.to_text(given.value)
            for key, given in keys.items()
            if key != "PARAMETERS"
        }
        if "ACTION" not in keys:
            raise ConfigError(f"{entry.where}: {name}.ACTION is missing", "It is execute or load.")
        read = _filled(SectionKeys, texts, keys, name)
        _choice(read.action, ("execute", "load"), keys, name, "ACTION")
        _choice(read.on_error, ("continue", "stop"), keys, name, "ON_ERROR")
        _choice(read.parameters_mode, ("", "flat"), keys, name, "PARAMETERS_MODE")
        for needed in read.needs:
            if needed not in earlier:
                hint = f"Earlier sections: {', '.join(earlier) or 'none'}."
                raise ConfigError(
                    f"{keys['NEEDS'].where}: {name}.NEEDS: no earlier section {needed}", hint
                )
        file = self.file(name, entry, read, general[0])
        kind = house.kind(file)
        declaration = house.declaration(file) if kind else None
        section = Section(
            name=name,
            where=entry.where,
            action=read.action,
            file=file,
            interpreter=read.execute_with if read.action == "execute" else "",
            class_name=read.class_,
            parameters=self.parameters(name, keys, declaration, general[1]),
            flat=read.parameters_mode == "flat",
            needs=read.needs,
            on_error=read.on_error,
            timeout=read.timeout,
            environment=read.environment,
            kind=kind,
            declaration=declaration,
        )
        if section.flat and kind:
            raise ConfigError(
                f"{entry.where}: {name}.PARAMETERS_MODE: flat is for modules of your own"
            )
        return section

    def file(self, name: str, entry: Entry, read: SectionKeys, general: General) -> Path:
        """The file that a section runs; it must exist, and nobody else may write it."""
        wanted = ("NAME",) if read.action == "execute" else ("FROM", "FILENAME", "CLASS")
        given = {
            "NAME": read.name,
            "FROM": read.from_,
            "FILENAME": read.filename,
            "CLASS": read.class_,
        }
        for key in wanted:
            if not _NAME.fullmatch(given[key]):
                at = entry.value[key].where if key in entry.value else entry.where
                what = f"{given[key]!r} is no name" if given[key] else "is missing"
                raise ConfigError(
                    f"{at}: {name}.{key}: {what}", f"An {read.action} section needs it."
                )
        if read.action == "execute":
            part = f"{read.name}/{read.executable or read.name + '.py'}"
        else:
            part = f"{read.from_}/{read.filename}.py"
        if read.executable and not _NAME.fullmatch(read.executable):
            raise ConfigError(
                f"{entry.value['EXECUTABLE'].where}: {name}.EXECUTABLE: must be a plain name"
            )
        file = Path(str(general.home_folder)) / part
        if not file.is_file():
            hint = f"A module is a folder in HOME_FOLDER ({general.home_folder})."
            raise ConfigError(f"{entry.where}: {name}: there is no module {file}", hint)
        self.files.secure(file)
        return file

    def parameters(
        self, name: str, keys: Keys, declaration: type[Any] | None, handed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The PARAMETERS of a section, checked against what a built-in module declares."""
        given = keys.get("PARAMETERS")
        if given is not None and not isinstance(given.value, dict):
            raise ConfigError(f"{given.where}: {name}.PARAMETERS: must be an object")
        entries: Keys = given.value if given is not None else {}
        called = f"{name}.PARAMETERS"
        found: dict[str, Any] = {}
        for key, entry in entries.items():
            _check_key(key, entry, called)
            _refuse_stream(key, entry, called)
            value = jsontext.plain(entry.value)
            if declaration is None:
                found[key] = value
            else:
                _refuse_unknown(key, entry, options.keys(declaration), called)
                found[options.canonical(declaration, key)] = _anchored(declaration, key, entry)
            self.warn_of_literal(f"{entry.where}: {called}.{key}", key, value, declaration)
        if declaration is not None:
            known = options.keys(declaration)
            texts = {k: options.to_text(v) for k, v in {**handed, **found}.items() if k in known}
            _filled(declaration, texts, entries or keys, called, keys)
        return found

    def warn_of_literal(
        self, called: str, key: str, value: object, declaration: type[Any] | None
    ) -> None:
        """A secret that stands in the config itself works, with a warning."""
        if not isinstance(value, str) or not value or value.startswith(("env:", "file:")):
            return
        if declaration is not None and options.kinds(declaration).get(key.lower()) is Secret:
            Secret(value)
        elif not mask.secretive(key):
            return
        self.warnings.append(f"{called} holds a secret; better is env:NAME or file:/path")


def _anchored(declaration: type[Any], key: str, entry: Entry) -> Any:  # noqa: ANN401  (JSON value)
    """The value with its paths made absolute, from the folder of the file that holds it."""
    value = jsontext.plain(entry.value)
    kind = options.kinds(declaration).get(options.canonical(declaration, key).lower())
    if kind in (Path, Path | None) and isinstance(value, str) and value:
        return os.path.normpath(entry.folder / value)
    if kind in (Paths, Paths | None) and isinstance(value, str | list):
        words = options.words(value) if isinstance(value, str) else value
        if all(isinstance(word, str) for word in words):
            return [os.path.normpath(entry.folder / word) for word in words]
    return value


def _filled(
    declaration: type[Any],
    texts: Mapping[str, str],
    entries: Keys,
    called: str,
    near: Keys | None = None,
) -> Any:  # noqa: ANN401  (an instance of the declaration)
    """options.fill, with file, line and key in whatever it raises."""
    first = next(iter({**(near or {}), **entries}.values()), None)

    def place(key: str) -> str:
        entry = entries.get(key, first)
        return f"{entry.where}: {called}" if entry is not None else called

    def named(key: str) -> str:
        return f"{place(key.rstrip('_'))}.{key.rstrip('_')}"

    try:
        return options.fill(declaration, texts, named)
    except ConfigError as error:
        text = str(error)
        if f"{called}." in text:
            raise
        key = text.partition(":")[0]
        raise ConfigError(f"{place(key)}.{text}", error.hint) from None


def _refuse_unknown(key: str, entry: Entry, known: Iterable[str], called: str) -> None:
    if key in known:
        return
    near = difflib.get_close_matches(key.upper(), known, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"{entry.where}: {called}.{key}: unknown key", hint)


def _refuse_stream(key: str, entry: Entry, called: str) -> None:
    if key == "STREAM":
        raise ConfigError(
            f"{entry.where}: {called}.STREAM: streamed runs are not built yet", "Leave the key out."
        )


def _check_key(key: str, entry: Entry, called: str) -> None:
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{entry.where}: {called}.{key!r}: no key", "Use A-Z, 0-9 and _.")


def _choice(value: str, allowed: tuple[str, ...], keys: Keys, name: str, key: str) -> None:
    if value not in allowed:
        near = ", ".join(word for word in allowed if word)
        raise ConfigError(
            f"{keys[key].where}: {name}.{key}: {value!r} is not known", f"Known: {near}."
        )
