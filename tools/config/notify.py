"""The section NOTIFY of a config: read and checked, or what of it can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.base import masking
from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.config.include import Entry, Keys
from tools.config.notify_keys import TYPES, ChannelKeys
from tools.config.paths import anchored
from tools.config.validation import filled, literal_secret, refuse_unknown
from tools.modules import options

NAME = "NOTIFY"
_CHANNEL = re.compile(r"[A-Za-z0-9_-]{1,50}")
_TAKEN = ("brt",)  # the channel of MESSAGE_CONFIG_COMMAND
_MOST = 20  # channels
_PUBLIC = ("URL",)  # a secret that people write into the config knowingly


@dataclass(frozen=True)
class NotifyChannel:
    """One channel of NOTIFY. location: its file, line and key"""

    name: str
    keys: ChannelKeys
    location: str

    def description(self) -> str:
        """Return type, target and outcomes, without secrets."""
        return f"{self.keys.type} to {self.keys.target()} on {', '.join(self.keys.on)}"

    def learn(self) -> None:
        """Mask its secrets from now on; what cannot be read is reported where it is used."""
        for value in vars(self.keys).values():
            if isinstance(value, Secret):
                value.try_to_learn()
        for text in self.keys.secrets():
            masking.add(text)


def is_notify(name: str, entry: Entry) -> bool:
    """Return whether a first-level key is this section: one with ACTION is the user's."""
    return name == NAME and isinstance(entry.value, Mapping) and "ACTION" not in entry.value


def take(
    merged: dict[str, Entry], warnings: list[str]
) -> tuple[tuple[NotifyChannel, ...], list[ConfigError]]:
    """Take NOTIFY out of a config; return its channels, and an error for each that is wrong.

    warnings: gets one for each secret in the config itself
    """
    channels: list[NotifyChannel] = []
    errors = _misspelt(merged)
    for name, entry in _entries(merged):
        try:
            channels.append(_channel(name, entry, warnings))
        except ConfigError as error:
            errors.append(error)
    if len(channels) > _MOST:
        errors.append(ConfigError(f"{merged[NAME].where}: {NAME}: more than {_MOST} channels"))
    if NAME in merged and is_notify(NAME, merged[NAME]):
        del merged[NAME]
    return tuple(channels), errors


def _misspelt(merged: Mapping[str, Entry]) -> list[ConfigError]:
    """Return an error for each other section that holds channels: it would be skipped."""
    return [
        ConfigError(f"{entry.where}: {name}: holds channels of NOTIFY", f"Rename it to {NAME}.")
        for name, entry in merged.items()
        if name not in (NAME, "GENERAL") and not name.startswith("__") and _holds_channels(entry)
    ]


def _holds_channels(entry: Entry) -> bool:
    """Return whether a section without ACTION holds an object with a TYPE of ours."""
    if not isinstance(entry.value, dict) or "ACTION" in entry.value:
        return False
    objects = (held.value for held in entry.value.values() if isinstance(held.value, dict))
    return any(held.get("TYPE") in TYPES for held in objects if isinstance(held.get("TYPE"), str))


def readable(merged: Mapping[str, Entry]) -> tuple[NotifyChannel, ...]:
    """Return the channels that are right, of a config that may be broken anywhere."""
    channels = []
    for name, entry in _entries(merged):
        try:
            channels.append(_channel(name, entry, []))
        except ConfigError:
            continue
    return tuple(channels[:_MOST])


def _entries(merged: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    if NAME in merged and is_notify(NAME, merged[NAME]):
        for name, entry in merged[NAME].value.items():
            if not name.startswith("__"):
                yield name, entry


def _channel(name: str, entry: Entry, warnings: list[str]) -> NotifyChannel:
    path = f"{NAME}.{name}"
    location = f"{entry.where}: {path}"
    if not _CHANNEL.fullmatch(name) or name in _TAKEN:
        raise ConfigError(
            f"{entry.where}: {NAME}: {name!r}: invalid name of a channel",
            "Use 1 to 50 letters, digits, hyphens and underscores, and not brt.",
        )
    if not isinstance(entry.value, dict):
        raise ConfigError(
            f"{location}: must be an object", f'For example: "{name}": {{"TYPE": "email", ...}}.'
        )
    keys: Keys = {key: held for key, held in entry.value.items() if not key.startswith("__")}
    declaration = _declaration(keys, location)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    declared = options.keys(declaration)
    for key, held in keys.items():
        refuse_unknown(key, held, declared, path)
        places[key] = f"{held.where}: {path}.{key}"
        values[key] = anchored(declaration, key, held, places[key])
        if key not in _PUBLIC:
            warnings += literal_secret(places[key], key, held.value, declaration)
    values["TYPE"] = values["TYPE"].lower()
    settings: ChannelKeys = filled(declaration, values, places, location)
    channel = NotifyChannel(name, settings, location)
    channel.learn()
    return channel


def _declaration(keys: Keys, location: str) -> type[ChannelKeys]:
    """Return the keys of the type that TYPE names."""
    choose = f"Choose from: {', '.join(TYPES)}."
    if "TYPE" not in keys:
        raise ConfigError(f"{location}.TYPE is missing", choose)
    choice = keys["TYPE"]
    word = choice.value.lower() if isinstance(choice.value, str) else ""
    if word not in TYPES:
        where = f"{choice.where}: {location.partition(': ')[2]}.TYPE"
        quoted = f"{masking.quoted(choice.value)}: " if isinstance(choice.value, str) else ""
        raise ConfigError(f"{where}: {quoted}unknown type of channel", choose)
    return TYPES[word]
