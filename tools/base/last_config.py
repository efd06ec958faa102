"""What the last report reads of conf.json, with the standard library alone.

Python 3.6 can read and run this file: it keeps to the grammar and the library of that version.
"""

import json
import os

from tools.base import environments

MOST_BYTES = 1 << 20  # of a file, and of an answer
_MOST_FILES = 100  # that a config includes


class Config:
    """What the report needs of conf.json, however wrong the rest of it is."""

    def __init__(self, path: str, insecure: bool) -> None:
        self._insecure = insecure
        self._files = 0
        self.secrets = []  # type: list[str]
        merged = self._merged(path)
        self.general = merged.get("GENERAL", {})
        channels = merged.get("NOTIFY", {})
        is_section = "ACTION" in channels  # a section of the user that has this name
        self.channels = {} if is_section else channels  # type: dict[str, object]
        self.hostname = one_line(str(self.general.get("HOSTNAME") or "unknown"))
        self.path = path

    def _merged(self, path: str) -> "dict[str, dict[str, object]]":
        """Return the sections of a file, merged over those of the files that it includes."""
        self._files += 1
        if self._files > _MOST_FILES:
            raise OSError("%s: INCLUDE: too many files" % path)
        table = json.loads(self.read(path))
        if not isinstance(table, dict):
            raise ValueError("%s: not a JSON object" % path)
        sections = {}  # type: dict[str, dict[str, object]]
        include = table.get("INCLUDE", [])
        names = include.split() if isinstance(include, str) else include
        for name in names if isinstance(names, list) else []:
            try:
                below = self._merged(os.path.join(os.path.dirname(path), str(name)))
            except (OSError, ValueError):  # it may be what is broken
                continue
            for section, keys in below.items():
                sections.setdefault(section, {}).update(keys)
        for section, keys in table.items():
            if isinstance(keys, dict):
                sections.setdefault(section, {}).update(keys)
        return sections

    def read(self, path: str) -> str:
        """Return the text of a file that nobody else could have changed."""
        trouble = "" if self._insecure else environments.unsafe(path)
        if trouble:
            raise OSError(trouble)
        if not os.path.isfile(path):
            raise OSError("%s: not a regular file" % path)
        with open(path, encoding="utf-8-sig") as file:
            return file.read(MOST_BYTES)

    def secret(self, value: object) -> str:
        """Return what a value stands for that may be a reference (env:NAME, file:/path)."""
        text = "" if value is None else str(value)
        kind, _, target = text.partition(":")
        if kind == "env":
            text = os.environ.get(target, "")
            if not text:
                raise OSError("the variable %s is not set" % target)
        elif kind == "file":
            text = self.read(target).replace("\r\n", "\n").rstrip("\n")
        if len(text) > 3:  # noqa: PLR2004  (as masking: a shorter one would hide every text)
            self.secrets.append(text)
        return text

    def masked(self, text: str) -> str:
        """Return a text without any secret that was read so far."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def one_line(text: str) -> str:
    """Return a text that can be shown: control characters replaced, bounded."""
    return "".join(c if c.isprintable() else "?" for c in text[:4096])
