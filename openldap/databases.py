"""Read the databases of slapd from its configuration as LDIF (RFC 2849, slapd-config(5))."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from tools.base import foreign

_NUMBERED = re.compile(r"\{(-?\d+)\}(\w+)")  # olcDatabase: {1}mdb
# Backends without entries of their own.
_WITHOUT_DATA = {
    *("frontend", "monitor", "null", "ldap", "meta", "asyncmeta", "relay", "dnssrv"),
    *("passwd", "perl", "shell", "sock", "sql"),
}


@dataclass(frozen=True)
class Database:
    """One database of the configuration.

    number: for slapcat -n; backend: mdb, ldap ...; suffixes: base DNs of its entries
    """

    number: int
    backend: str
    suffixes: tuple[str, ...] = ()

    @property
    def has_data(self) -> bool:
        """Return whether slapcat can dump its entries; True for unknown backends."""
        return self.backend not in _WITHOUT_DATA and self.number >= 0

    @property
    def label(self) -> str:
        """Return its name in messages: {1}mdb (dc=example,dc=org)."""
        suffixes = f" ({', '.join(self.suffixes)})" if self.suffixes else ""
        return f"{{{self.number}}}{self.backend}{suffixes}"


def parse(ldif: str) -> tuple[Database, ...]:
    """Return the databases of cn=config (number 0), sorted by number.

    ldif: all of cn=config without wrapped lines (slapcat -o ldif-wrap=no)
    """
    databases = []
    for entry in re.split(r"\n{2,}", ldif):
        attributes = [_attribute(line) for line in foreign.lines(entry)]
        names = [value for name, value in attributes if name == "olcdatabase"]
        overlay = any(name == "olcoverlay" for name, _ in attributes)
        match = _NUMBERED.fullmatch(names[0]) if names and not overlay else None
        if match:
            suffixes = tuple(value for name, value in attributes if name == "olcsuffix")
            databases.append(Database(int(match[1]), match[2].lower(), suffixes))
    return tuple(sorted(databases, key=lambda database: database.number))


def _attribute(line: str) -> tuple[str, str]:
    """Return the name of the attribute in lower case, without options, and its value."""
    name, _, value = line.partition(":")
    if value.startswith(":"):
        try:
            value = base64.b64decode(value[1:], validate=False).decode("utf-8", "backslashreplace")
        except binascii.Error:
            value = ""
    return name.partition(";")[0].lower(), value.strip(" ")
