"""Values that must not be seen: they print as stars until someone says reveal()."""

from __future__ import annotations

import os
from pathlib import Path

from tools import mask
from tools.errors import ConfigError


class Secret:
    """A reference ("env:NAME", "file:PATH") or a literal; resolved where it is used."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        if reference and not self.is_reference:
            mask.add(reference)

    def __repr__(self) -> str:
        return "***" if self._reference else ""

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._reference)

    @property
    def is_reference(self) -> bool:
        """Whether it only says where the secret is."""
        return self._reference.startswith(("env:", "file:"))

    def reveal(self) -> str:
        """The secret itself, from now on masked in everything that is shown.

        Raises ConfigError where the variable or the file is not to be had.
        """
        secret = self._resolved()
        mask.add(secret)
        return secret

    def _resolved(self) -> str:
        kind, _, rest = self._reference.partition(":")
        if kind == "env":
            try:
                return os.environ[rest]
            except KeyError:
                raise ConfigError(
                    f"secret env:{rest} is not set",
                    hint=f"Set the variable {rest} for this program.",
                ) from None
        if kind == "file":
            try:
                return Path(rest).read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"secret file:{rest} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}",
                    hint="The file must exist and be readable by the user that runs the backup.",
                ) from None
        return self._reference
