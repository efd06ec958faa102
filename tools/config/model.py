"""A config that has been read and checked: its sections, ready to run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.base import masking
from tools.config.declarations import General, Hooks
from tools.config.notify import NotifyChannel
from tools.flow.anomaly import Thresholds
from tools.modules import options
from tools.modules.options import Declaration


@dataclass(frozen=True)
class Section:
    """One section, ready to run.

    where:       file and line of its key
    action:      "execute" or "load"
    file:        the executable or the plugin's file, absolute
    interpreter: "" for load, and for a program that is started directly
    parameters:  JSON values; keys of built-in modules by their preferred names
    required:    of a store: whether the run counts as stored only with it
    kind:        source, stage, store, check or cleanup; "" for a module of the user's own, unless
                 its STREAM says what it is in a streamed run
    declaration: the Options of a built-in module
    places:      file, line and name of each key of PARAMETERS and GENERAL, for messages
    thresholds:  those of the anomaly guard that differ from GENERAL
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
    required: bool = True
    kind: str = ""
    declaration: type[Declaration] | None = None
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    hooks: Hooks = dataclasses.field(default_factory=Hooks)


@dataclass(frozen=True)
class RunMode:
    """Return whether a run is streamed, and why."""

    streamed: bool
    reason: str

    @property
    def name(self) -> str:
        """Return the name that manifests use."""
        return "streamed" if self.streamed else "staged"


@dataclass(frozen=True)
class Config:
    """A config that has been checked.

    handed: every key of GENERAL, as every module gets it; paths absolute
    mode:   how it runs, as far as the config says
    notify: the channels that get notifications of a run, beside the report server
    """

    path: Path
    general: General
    handed: Mapping[str, Any]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    mode: RunMode = RunMode(False, "")
    notify: tuple[NotifyChannel, ...] = ()

    def thresholds(self, section: str) -> Thresholds | None:
        """Return those of the anomaly guard for a section; None where nothing is compared."""
        general = self.general
        if not general.shrink_check:
            return None
        defaults = Thresholds(
            general.anomaly_runs,
            general.anomaly_shrink,
            general.anomaly_ratio,
            general.anomaly_growth,
            general.anomaly_duration,
        )
        of_section = (one.thresholds for one in self.sections if one.name == section)
        return dataclasses.replace(defaults, **next(of_section, {}))  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the config without its secrets: two runs of one config share it."""
        identity = {
            "GENERAL": _public(self.handed),
            **{entry.name: [str(entry.file), _public(entry.parameters)] for entry in self.sections},
        }
        return hashlib.sha256(
            json.dumps(identity, sort_keys=True, default=str).encode()
        ).hexdigest()


def filled(section: Section, config: Config) -> Declaration:
    """Return the Options of a built-in section; its own keys win over those of GENERAL."""
    values = {**config.handed, **section.parameters}
    texts = options.texts(section.declaration, values)  # type: ignore[arg-type]
    return options.fill(section.declaration, texts)  # type: ignore[arg-type]


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: masking.text(options.to_text(masking.structure(v, key)))
        for key, v in values.items()
        if not masking.secretive(key)
    }
