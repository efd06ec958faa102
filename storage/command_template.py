"""Command lines of the user's own, with fields: `tool put %(OBJECTIVES)s/%(file)s %(HOSTNAME)s`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tools.base.errors import ConfigError

_FIELD = re.compile(r"%(?:\(([^()%]+)\)s|(%))")


@dataclass(frozen=True)
class Template:
    """The arguments of a command line. They are split before fields are filled, without a shell."""

    arguments: tuple[str, ...]

    @classmethod
    def parse(cls, key: str, text: str, fields: Collection[str]) -> Template:
        """Return a template. Raises ConfigError.

        key: for messages. fields: those that it may use; `%%` is a percent sign.
        """
        try:
            arguments = tuple(shlex.split(text))
        except ValueError as error:
            raise ConfigError(f"{key}: {str(error).lower()}", "Check its quotes.") from None
        if not arguments:
            raise ConfigError(f"{key}: is empty", "Set it to a program and its arguments.")
        for word in arguments:
            used = {match[1] for match in _FIELD.finditer(word)} - {None}
            unknown = sorted(used - set(fields))
            if unknown:
                raise ConfigError(
                    f"{key}: %({unknown[0]})s: unknown field", f"Choose from: {', '.join(fields)}."
                )
            if "%" in _FIELD.sub("", word):
                raise ConfigError(f"{key}: a percent sign that begins no field", "Write it as %%.")
        return cls(arguments)

    def uses(self, field: str) -> bool:
        """Return whether a field stands in it."""
        return any(match[1] == field for word in self.arguments for match in _FIELD.finditer(word))

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Return the command line, each field replaced by its value."""
        return [
            _FIELD.sub(lambda match: values[match[1]] if match[1] else "%", word)
            for word in self.arguments
        ]
