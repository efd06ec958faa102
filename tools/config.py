"""conf.json: read once, checked whole before anything runs, every error with file, line and key."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import house, mask, options, plugin
from tools.declarations import SECTION_KEYS, General, SectionKeys
from tools.errors import ConfigError
from tools.included import Entry, Files, Keys
from tools.secret import Secret
from tools.values import (
    anchored,
    check_key,
    choice,
    filled,
    one_line,
    refuse_unknown,
    trouble,
)

_NEAR = 0.8  # how alike an unknown key of GENERAL must be to a known one to be a slip
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SECTION = re.compile(r"[^/\x00-\x1f\x7f.\s-][^/\x00-\x1f\x7f]*")  # it stands in names of files
_LONGEST_SECTION = 100  # bytes
_STREAM = {"source": "source", "filter": "stage", "store": "store"}  # of STREAM: the kind


@dataclass(frozen=True)
class Section:
    """One section, ready to run.

    where:       file and line of its key
    action:      "execute" or "load"
    file:        the executable or the plugin's file, absolute
    interpreter: "" for load
    parameters:  JSON values; keys of built-in modules by their preferred names
    kind:        source, stage, store or check; "" for a module of the user's own, unless
                 its STREAM says what it is in a streamed run
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

    @property
    def digest(self) -> str:
        """SHA-256 of what was configured, secrets left out: two runs of one config share it."""
        told = {
            "GENERAL": _public(self.handed),
            **{entry.name: [str(entry.file), _public(entry.parameters)] for entry in self.sections},
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def load(path: Path, *, insecure: bool = False) -> Config:
    """Read and check a config with all that it includes.

    insecure: accept files that somebody else could change. Raises ConfigError.
    """
    try:
        return _Loader(insecure).load(path)
    except ConfigError as error:
        raise ConfigError(one_line(str(error)), one_line(error.hint)) from None


def report_address(path: Path, *, insecure: bool = False) -> tuple[str, str, Path] | None:
    """HOSTNAME, report address and WORK_FOLDER of a config that may be broken elsewhere.

    None where they cannot be read, or where somebody else could have written them: reports
    that wait in WORK_FOLDER would go to that address.
    """
    files = Files(insecure)
    try:
        try:
            general = files.merged(path)["GENERAL"].value
        except ConfigError:  # what it includes may be what is broken
            general = files.own(path)["GENERAL"].value
        texts = {
            key: options.to_text(anchored(General, key, general[key]))
            for key in ("HOSTNAME", "MESSAGE_CONFIG_COMMAND", "WORK_FOLDER")
            if key in general
        }
        read = options.fill(General, {"HOSTNAME": "unknown", **texts})
    except (ConfigError, KeyError):
        return None
    if not read.message_config_command:
        return None
    return read.hostname, read.message_config_command, read.work_folder


def _public(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: mask.text(options.to_text(mask.structure(v, key)))
        for key, v in given.items()
        if not mask.secretive(key)
    }


def _check_flow(sections: Sequence[Section]) -> None:
    """In a streamed run every item goes through every stage: twice the same one is a mistake."""
    stages = [section for section in sections if section.kind == "stage"]
    for number, section in enumerate(stages):
        before = [other.file for other in stages[:number]]
        if section.declaration is not None and section.file in before:
            raise ConfigError(
                f"{section.where}: {section.name}: is the second {section.file.parent.name}",
                "Every item flows through every stage: leave one out.",
            )
        encrypted = [file for file in before if file.parent.name == "encryption"]
        if section.declaration is not None and encrypted:
            raise ConfigError(
                f"{section.where}: {section.name}: comes after the encryption",
                "What is encrypted cannot be compressed: move it before.",
            )


def _check_order(sections: Sequence[Section]) -> None:
    """In a staged run sections work one after the other: a source after all stores is lost."""
    kinds = [section.kind for section in sections]
    if "store" not in kinds:
        return
    last = len(kinds) - 1 - kinds[::-1].index("store")
    for section in sections[last + 1 :]:
        if section.kind == "source":
            raise ConfigError(
                f"{section.where}: {section.name}: comes after {sections[last].name}",
                'Nothing would store it: move it before, or set "STREAM": "True" in GENERAL.',
            )


class _Loader:
    """Reads one config and what it includes."""

    def __init__(self, insecure: bool) -> None:
        self.files = Files(insecure)
        self.warnings: list[str] = []
        self.places: dict[str, str] = {}  # of the keys of GENERAL

    def load(self, path: Path) -> Config:
        merged = self.files.merged(path)
        if "GENERAL" not in merged:
            raise ConfigError(
                f"{path}:1: the section GENERAL is missing", "It holds at least HOSTNAME."
            )
        general, handed = self.general(merged.pop("GENERAL"))
        sections: list[Section] = []
        for name, entry in merged.items():
            sections.append(
                self.section(name, entry, (general, handed), [s.name for s in sections])
            )
        if not sections:
            raise ConfigError(
                f"{path}:1: there is no section beside GENERAL", "Nothing would be run."
            )
        if general.stream:
            _check_flow(sections)
        else:
            _check_order(sections)
        if not any(section.kind in ("store", "") for section in sections):
            self.warnings.append(f"{path}: no section stores anything")
        return Config(path.resolve(), general, handed, tuple(sections), tuple(self.warnings))

    # --- GENERAL

    def general(self, section: Entry) -> tuple[General, dict[str, Any]]:
        known = options.keys(General)
        entries: Keys = section.value
        handed: dict[str, Any] = {}
        for key, entry in entries.items():
            if key not in known:
                self.unknown_general(key, entry, known)
            self.places[key] = f"{entry.where}: GENERAL.{key}"
            handed[key] = anchored(General, key, entry, self.places[key])
        texts = {key: options.to_text(value) for key, value in handed.items() if key in known}
        if "DISK_SPACE_THRESHOLD" in texts:
            texts["DISK_SPACE_THRESHOLD"] = texts["DISK_SPACE_THRESHOLD"].removesuffix("%")
        general: General = filled(General, texts, self.places, f"{section.where}: GENERAL")
        home = general.home_folder or plugin.ROOT
        for key, folder in (("HOME_FOLDER", home), ("WORK_FOLDER", general.work_folder)):
            handed[key] = handed.get(key) or str(folder)
        why = trouble(home, stat.S_ISDIR)
        if why:
            place = self.places.get("HOME_FOLDER", f"{section.where}: GENERAL.HOME_FOLDER")
            raise ConfigError(f"{place}: {home} is no folder{why}", "It holds the code.")
        return dataclasses.replace(general, home_folder=home), handed

    def unknown_general(self, key: str, entry: Entry, known: Iterable[str]) -> None:
        """Refuse a slip; hand on what may be meant for a module of the user's own."""
        near = difflib.get_close_matches(key.upper(), known, 1, _NEAR)
        if near:
            raise ConfigError(
                f"{entry.where}: GENERAL.{key}: unknown key", f"Did you mean {near[0]}?"
            )
        check_key(key, entry, "GENERAL")
        self.warnings.append(
            f"{entry.where}: GENERAL.{key} is unknown here; it is handed to the modules"
        )
        self.warn_of_literal(f"{entry.where}: GENERAL.{key}", key, entry.value, None)

    # --- a section

    @staticmethod
    def check_stream(called: str, read: SectionKeys, kind: str, general: General) -> None:
        """Refuse a part in the stream where there is none to take."""
        if kind or read.action != "execute":
            raise ConfigError(
                f"{called}: is for programs of your own", "Built-in modules know what they are."
            )
        if not general.stream:
            raise ConfigError(
                f"{called}: this run is not streamed", 'Set "STREAM": "True" in GENERAL.'
            )

    def section(
        self, name: str, entry: Entry, general: tuple[General, dict[str, Any]], earlier: list[str]
    ) -> Section:
        if not _SECTION.fullmatch(name) or len(os.fsencode(name)) > _LONGEST_SECTION:
            raise ConfigError(
                f"{entry.where}: {name!r} cannot be the name of a section",
                "It stands in names of files: no /, no control character, no dot in front.",
            )
        keys: Keys = entry.value
        for key, given in keys.items():
            refuse_unknown(key, given, SECTION_KEYS, name)
        texts = {
            {"FROM": "FROM_", "CLASS": "CLASS_"}.get(key, key): options.to_text(given.value)
            for key, given in keys.items()
            if key != "PARAMETERS"
        }
        if "ACTION" not in keys:
            raise ConfigError(f"{entry.where}: {name}.ACTION is missing", "It is execute or load.")
        places = {key: f"{given.where}: {name}.{key}" for key, given in keys.items()}
        read: SectionKeys = filled(SectionKeys, texts, places, f"{entry.where}: {name}")
        choice(read.action, ("execute", "load"), keys, name, "ACTION")
        choice(read.on_error, ("continue", "stop"), keys, name, "ON_ERROR")
        choice(read.parameters_mode, ("", "flat"), keys, name, "PARAMETERS_MODE")
        for needed in read.needs:
            if needed not in earlier:
                hint = f"Earlier sections: {', '.join(earlier) or 'none'}."
                raise ConfigError(
                    f"{keys['NEEDS'].where}: {name}.NEEDS: no earlier section {needed}", hint
                )
        choice(read.stream, ("", *_STREAM), keys, name, "STREAM")
        file = self.file(name, entry, read, general[0])
        kind = house.kind(file)
        declaration = house.declaration(file) if kind else None
        if read.stream:
            self.check_stream(f"{keys['STREAM'].where}: {name}.STREAM", read, kind, general[0])
            kind = _STREAM[read.stream]
        section = Section(
            name=name,
            where=entry.where,
            action=read.action,
            file=file,
            interpreter=read.execute_with if read.action == "execute" else "",
            class_name=read.class_,
            parameters=self.parameters(name, entry, declaration, general[1]),
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
                    f"{at}: {name}.{key}: {what}", f"A section with ACTION {read.action} needs it."
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
        why = trouble(file, stat.S_ISREG)
        if why:
            hint = f"A module is a folder in HOME_FOLDER ({general.home_folder})."
            raise ConfigError(f"{entry.where}: {name}: there is no module {file}{why}", hint)
        self.files.secure(file)
        return file

    def parameters(
        self, name: str, section: Entry, declaration: type[Any] | None, handed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The PARAMETERS of a section, checked against what a built-in module declares."""
        given: Entry | None = section.value.get("PARAMETERS")
        if given is not None and not isinstance(given.value, dict):
            raise ConfigError(f"{given.where}: {name}.PARAMETERS: must be an object")
        entries: Keys = given.value if given is not None else {}
        called = f"{name}.PARAMETERS"
        places = dict(self.places)
        found: dict[str, Any] = {}
        for key, entry in entries.items():
            places[key] = f"{entry.where}: {called}.{key}"
            check_key(key, entry, called)
            if declaration is None:
                found[key] = entry.value
            elif not self.outdone(key, entries, declaration, called):
                preferred = options.canonical(declaration, key)
                found[preferred] = anchored(declaration, key, entry, places[key])
            self.warn_of_literal(places[key], key, entry.value, declaration)
        if declaration is not None:
            known = options.keys(declaration)
            texts = {k: options.to_text(v) for k, v in {**handed, **found}.items() if k in known}
            filled(declaration, texts, places, f"{(given or section).where}: {called}")
        return found

    def outdone(self, key: str, entries: Keys, declaration: type[Any], called: str) -> bool:
        """Whether the key is an old name, and the preferred one is given beside it."""
        where = entries[key].where
        refuse_unknown(key, entries[key], options.keys(declaration), called)
        preferred = options.canonical(declaration, key)
        if preferred == key or preferred not in entries:
            return False
        self.warnings.append(f"{where}: {called}.{key} is not used: {preferred} is given, too")
        return True

    def warn_of_literal(
        self, called: str, key: str, value: object, declaration: type[Any] | None
    ) -> None:
        """A secret that stands in the config itself works, with a warning."""
        if not isinstance(value, str) or not value or value.startswith(("env:", "file:")):
            return
        kind = (
            options.kinds(declaration).get(options.canonical(declaration, key).lower())
            if declaration
            else None
        )
        if kind is Secret:
            Secret(value)
        elif not mask.secretive(key):
            return
        self.warnings.append(f"{called} holds a secret; better is env:NAME or file:/path")
