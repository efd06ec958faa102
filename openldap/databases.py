"""The databases of a slapd, from its configuration as LDIF (RFC 2849, slapd-config(5))."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_NUMBERED = re.compile(r"\{(-?\d+)\}(\w+)")  # olcDatabase: {1}mdb
# Backends without entries of their own: what they show lies elsewhere, or nowhere.
_WITHOUT_DATA = {
    *("frontend", "monitor", "null", "ldap", "meta", "asyncmeta", "relay", "dnssrv"),
    *("passwd", "perl", "shell", "sock", "sql"),
}


@dataclass(frozen=True)
class Database:
    """One database of the configuration.

    number: as slapcat -n takes it; backend: mdb, ldap ...; suffixes: the DNs it answers for
    """

    number: int
    backend: str
    suffixes: tuple[str, ...] = ()

    @property
    def has_data(self) -> bool:
        """Whether slapcat can give its entries; of an unknown backend it must."""
        return self.backend not in _WITHOUT_DATA and self.number >= 0

    @property
    def shown(self) -> str:
        """Return how messages name it: {1}mdb (dc=example,dc=org)."""
        suffixes = f" ({', '.join(self.suffixes)})" if self.suffixes else ""
        return f"{{{self.number}}}{self.backend}{suffixes}"


def parse(ldif: str) -> tuple[Database, ...]:
    """Return the databases of cn=config, which stands as number 0, in their order.

    ldif: the whole of cn=config, its lines not wrapped (slapcat -o ldif-wrap=no)
    """
    databases = []
    for entry in re.split(r"\n{2,}", ldif):
        attributes = [_attribute(line) for line in entry.splitlines()]
        named = [value for name, value in attributes if name == "olcdatabase"]
        overlay = any(name == "olcoverlay" for name, _ in attributes)
        match = _NUMBERED.fullmatch(named[0]) if named and not overlay else None
        if match:
            suffixes = tuple(value for name, value in attributes if name == "olcsuffix")
            databases.append(Database(int(match[1]), match[2].lower(), suffixes))
    return tuple(sorted(databases, key=lambda database: database.number))


def _attribute(line: str) -> tuple[str, str]:
    """A line as the attribute's name in lower case, without options, and its value."""
    name, _, value = line.partition(":")
    if value.startswith(":"):
        try:
            value = base64.b64decode(value[1:], validate=False).decode("utf-8", "backslashreplace")
        except binascii.Error:
            value = ""
    return name.partition(";")[0].lower(), value.strip(" ")
