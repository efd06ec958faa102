"""Load conf.json: read once and checked completely; errors name file, line and key."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.base import project
from tools.base.errors import ConfigError
from tools.base.real_path import resolved
from tools.config import general as general_section
from tools.config import legacy, notify, program_file, run_mode, selection
from tools.config.declarations import REPORT_KEYS, SECTION_KEYS, General, SectionKeys
from tools.config.include import Entry, Files, Keys
from tools.config.model import Config, Section
from tools.config.notify import NotifyChannel
from tools.config.paths import anchored
from tools.config.validation import (
    check_key,
    choice,
    filled,
    literal_secret,
    one_line,
    refuse_misplaced,
    refuse_unknown,
    trouble,
)
from tools.modules import options, registry
from tools.modules.json_values import Switch
from tools.modules.options import Declaration

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SECTION = re.compile(r"[^/\x00-\x1f\x7f.\s-][^/\x00-\x1f\x7f]*")  # it is part of file names
_LONGEST_SECTION = 100  # bytes
_FLAT = "flat is only for user-defined modules"
_STREAM = {"source": "source", "filter": "stage", "store": "store"}  # of STREAM: the kind


def load(path: Path, *, insecure: bool = False) -> Config:
    """Read and check a config with all that it includes.

    insecure: accept files that somebody else could change. Raises ConfigError.
    """
    try:
        return _Loader(insecure).load(path)
    except ConfigError as error:
        raise _printable(error) from None


def checked(path: Path, merged: dict[str, Entry]) -> Config:
    """Check sections that have been read already, as `load` does; permissions do not matter."""
    try:
        return _Loader(insecure=True).loaded(path, merged)
    except ConfigError as error:
        raise _printable(error) from None


def _printable(error: ConfigError) -> ConfigError:
    """Return the error in printable lines."""
    fix = error.fix if one_line(error.fix) == error.fix else ""  # a part is another command
    printable = ConfigError(one_line(str(error)), one_line(error.hint), fix)
    printable.others = tuple(_printable(other) for other in error.others)
    return printable


@dataclass(frozen=True)
class ReportSettings:
    """What a report needs of a config that may be broken elsewhere.

    general: with the keys that are right; the others have their defaults
    work_folder: where reports wait; None if its key is wrong
    """

    general: General
    channels: tuple[NotifyChannel, ...]
    work_folder: Path | None

    @property
    def enabled(self) -> bool:
        """Return whether anything is to be made of a run: a report or metrics."""
        general = self.general
        return bool(self.channels or general.message_config_command or general.metrics_file)


def report_settings(path: Path, *, insecure: bool = False) -> ReportSettings | None:
    """Return what a report needs of a config, from a config that may be broken elsewhere.

    Return None if it cannot be read, or if another user could have written it: reports that wait
    in WORK_FOLDER would go to that address.
    """
    files = Files(insecure)
    try:
        try:
            merged = files.merged(path)
        except ConfigError:  # what it includes may be what is broken
            merged = files.unmerged(path)
    except ConfigError:
        return None
    general, bad = _readable(merged.get("GENERAL"))
    work_folder = None if "WORK_FOLDER" in bad else general.work_folder
    return ReportSettings(general, notify.readable(merged), work_folder)


def _readable(section: Entry | None) -> tuple[General, set[str]]:
    """Return GENERAL with the keys that reports need, and those of them that are wrong."""
    keys: Keys = section.value if section is not None and isinstance(section.value, dict) else {}
    values: dict[str, Any] = {"HOSTNAME": "unknown", "MESSAGE_CONFIG_WAIT": "1"}
    bad: set[str] = set()
    for key in REPORT_KEYS:
        if key not in keys:
            continue
        try:
            value = anchored(General, key, keys[key])
            filled(General, {**values, key: value}, {}, "GENERAL")
        except ConfigError:
            bad.add(key)
        else:
            values[key] = value
    return filled(General, values, {}, "GENERAL"), bad


class _Loader:
    """Reads one config and what it includes."""

    def __init__(self, insecure: bool) -> None:
        self.files = Files(insecure)
        self.warnings: list[str] = []
        self.places: dict[str, str] = {}  # of the keys of GENERAL

    def load(self, path: Path) -> Config:
        return self.loaded(path, self.files.merged(path))

    def loaded(self, path: Path, merged: dict[str, Entry]) -> Config:
        """Check the sections of a file."""
        main = general_section.read(path, merged)
        self.places = dict(main.places)
        channels, errors = notify.take(merged, self.warnings)
        changes = [*legacy.repeated(self.files.repeats), *legacy.changes(merged, main.home)]
        for change in changes:
            merged = legacy.applied(merged, change)
            self.warnings.append(change.warning)
        general, handed = main.adapted(merged.pop("GENERAL"), self.warnings)
        sections = self.sections(merged, (general, handed), errors)
        if main.misplaced:  # after the values of the wrong type
            raise main.misplaced[0]
        if not sections:
            raise legacy.no_section_left(path, changes)
        warnings = tuple(map(one_line, self.warnings))
        config = Config(resolved(path), general, handed, tuple(sections), warnings, notify=channels)
        config = dataclasses.replace(config, mode=run_mode.of_config(config))
        run_mode.refuse_staged_roles(sections, config.mode)
        selection.check_order(sections, streamed=config.mode.streamed)
        return config

    def sections(
        self,
        merged: Mapping[str, Entry],
        general: tuple[General, dict[str, Any]],
        errors: list[ConfigError],
    ) -> list[Section]:
        """Read every section; the errors of several sections are reported together.

        errors: those of NOTIFY
        """
        sections: list[Section] = []
        names = list(merged)
        for number, (name, entry) in enumerate(merged.items()):
            try:
                sections.append(self.section(name, entry, general, names[:number]))
            except ConfigError as error:
                errors.append(error)
        if errors:
            errors[0].others = tuple(errors[1:])
            raise errors[0]
        return sections

    # --- a section

    @staticmethod
    def check_stream(location: str, read: SectionKeys, kind: str, general: General) -> None:
        """Reject STREAM for a built-in module, and in a staged run."""
        if kind or read.action != "execute":
            raise ConfigError(
                f"{location}: only for user-defined modules", "Remove STREAM from this section."
            )
        if general.stream is Switch.FALSE:
            raise ConfigError(
                f"{location}: STREAM of GENERAL is False",
                "Remove STREAM from GENERAL, or from this section.",
            )

    def section(
        self, name: str, entry: Entry, general: tuple[General, dict[str, Any]], earlier: list[str]
    ) -> Section:
        if not _SECTION.fullmatch(name) or len(os.fsencode(name)) > _LONGEST_SECTION:
            raise ConfigError(
                f"{entry.where}: {name!r}: invalid section name",
                "Use at most 100 bytes without / and control characters. Do not begin with a "
                "dot, a dash or a space.",
            )
        keys: Keys = entry.value
        built_in = legacy.module(keys, Path(str(general[0].home_folder)))
        for key, key_entry in keys.items():
            if built_in and key not in SECTION_KEYS:
                refuse_misplaced(
                    key, key_entry, registry.declaration(project.ROOT / built_in), name
                )
            refuse_unknown(key, key_entry, SECTION_KEYS, name)
        values = {key: key_entry.value for key, key_entry in keys.items() if key != "PARAMETERS"}
        if "ACTION" not in keys:
            raise ConfigError(
                f"{entry.where}: {name}.ACTION is missing", 'Set ACTION to "execute" or "load".'
            )
        places = {key: f"{key_entry.where}: {name}.{key}" for key, key_entry in keys.items()}
        read: SectionKeys = filled(SectionKeys, values, places, f"{entry.where}: {name}")
        choice(read.action, ("execute", "load"), keys, name, "ACTION")
        choice(read.on_error, ("continue", "stop"), keys, name, "ON_ERROR")
        choice(read.parameters_mode, ("", "flat"), keys, name, "PARAMETERS_MODE")
        for needed in read.needs:
            if needed not in earlier:
                hint = (
                    f"Name an earlier section: {', '.join(earlier)}."
                    if earlier
                    else f"Move {name} after the section that it needs."
                )
                raise ConfigError(
                    f"{keys['NEEDS'].where}: {name}.NEEDS: no section {needed} before this one",
                    hint,
                )
        choice(read.stream, ("", *_STREAM), keys, name, "STREAM")
        file = self.file(name, entry, read, general[0])
        row = registry.row(file)
        kind = row.role if row else ""
        declaration = registry.declaration(file) if row else None
        if read.stream:
            self.check_stream(f"{keys['STREAM'].where}: {name}.STREAM", read, kind, general[0])
            kind = _STREAM[read.stream]
        if not read.required and kind not in ("store", ""):
            raise ConfigError(f"{keys['REQUIRED'].where}: {name}.REQUIRED: is a key of stores")
        parameters, places = self.parameters(name, entry, declaration, general[1])
        section = Section(
            name=name,
            where=entry.where,
            action=read.action,
            file=file,
            interpreter=_interpreter(read, file, chosen=bool(row or values.get("EXECUTE_WITH"))),
            class_name=read.class_,
            parameters=parameters,
            places=places,
            flat=read.parameters_mode == "flat",
            needs=read.needs,
            on_error=read.on_error,
            timeout=read.timeout,
            environment=read.environment,
            required=read.required,
            hooks=read.hooks,
            kind=kind,
            declaration=declaration,
            thresholds=_thresholds(read),
        )
        if section.flat and kind:
            raise ConfigError(
                f"{keys['PARAMETERS_MODE'].where}: {name}.PARAMETERS_MODE: "
                + ("flat and STREAM exclude each other" if read.stream else _FLAT),
                "Remove PARAMETERS_MODE.",
            )
        return section

    def file(self, name: str, entry: Entry, read: SectionKeys, general: General) -> Path:
        """Return the file that a section runs; it must exist, and no other user may write it."""
        name_keys = ("NAME",) if read.action == "execute" else ("FROM", "FILENAME", "CLASS")
        names = {
            "NAME": read.name,
            "FROM": read.from_,
            "FILENAME": read.filename,
            "CLASS": read.class_,
        }
        for key in name_keys:
            if not _NAME.fullmatch(names[key]):
                at = entry.value[key].where if key in entry.value else entry.where
                problem = f"{names[key]!r}: invalid name" if names[key] else "is missing"
                raise ConfigError(
                    f"{at}: {name}.{key}: {problem}", f"Set it: ACTION {read.action} requires it."
                )
        if read.action == "execute":
            part = f"{read.name}/{read.executable or read.name + '.py'}"
        else:
            part = f"{read.from_}/{read.filename}.py"
        if read.executable and not _NAME.fullmatch(read.executable):
            raise ConfigError(
                f"{entry.value['EXECUTABLE'].where}: {name}.EXECUTABLE: must be a file name",
                "Name a file in the folder NAME, without a folder.",
            )
        file = Path(str(general.home_folder)) / part
        why = trouble(file, stat.S_ISREG)
        if why:
            home = f"HOME_FOLDER ({general.home_folder})"
            hint = (
                f"Remove HOME_FOLDER, or copy the built-in modules to {general.home_folder}: all "
                "modules are looked for below it."
                if os.path.isfile(project.ROOT / part)  # noqa: PTH113  (it does not raise)
                else f"Put the module into a folder below {home}, or correct the name."
            )
            raise ConfigError(f"{entry.where}: {name}: no such module: {file}{why}", hint)
        self.files.secure(file)
        return file

    def parameters(
        self,
        name: str,
        section: Entry,
        declaration: type[Declaration] | None,
        handed: Mapping[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the PARAMETERS of a section, checked against what a built-in module declares.

        Also return the file and line of each key, those of GENERAL included.
        """
        parameters_entry: Entry | None = section.value.get("PARAMETERS")
        if parameters_entry is not None and not isinstance(parameters_entry.value, dict):
            raise ConfigError(f"{parameters_entry.where}: {name}.PARAMETERS: must be an object")
        entries: Keys = parameters_entry.value if parameters_entry is not None else {}
        parent = f"{name}.PARAMETERS"
        places = dict(self.places)
        parameters: dict[str, Any] = {}
        for key, entry in entries.items():
            places[key] = f"{entry.where}: {parent}.{key}"
            check_key(key, entry, parent)
            if declaration is None:
                parameters[key] = entry.value
            elif not self.outdone(key, entries, declaration, parent):
                preferred = options.canonical(declaration, key)
                parameters[preferred] = anchored(declaration, key, entry, places[key])
            self.warnings += literal_secret(places[key], key, entry.value, declaration)
        if declaration is not None:
            declared_keys = options.keys(declaration)
            values = {k: v for k, v in {**handed, **parameters}.items() if k in declared_keys}
            filled(declaration, values, places, f"{(parameters_entry or section).where}: {parent}")
        return parameters, places

    def outdone(self, key: str, entries: Keys, declaration: type[Declaration], parent: str) -> bool:
        """Return whether the key is an old name, and the preferred one is also set."""
        where = entries[key].where
        refuse_unknown(key, entries[key], options.keys(declaration), parent)
        preferred = options.canonical(declaration, key)
        if preferred == key or preferred not in entries:
            return False
        self.warnings.append(f"{where}: {parent}.{key} is ignored: {preferred} is also set")
        return True


def _thresholds(read: SectionKeys) -> dict[str, float]:
    """Return the thresholds of the anomaly guard that a section sets, by their names there."""
    thresholds = {
        "shrink": read.anomaly_shrink,
        "ratio": read.anomaly_ratio,
        "growth": read.anomaly_growth,
        "duration": read.anomaly_duration,
    }
    return {name: value for name, value in thresholds.items() if value is not None}


def _interpreter(read: SectionKeys, file: Path, *, chosen: bool) -> str:
    """Return the interpreter of a section; "" where nothing but the file itself is started."""
    direct = not chosen and program_file.read(file).is_direct
    return read.execute_with if read.action == "execute" and not direct else ""
