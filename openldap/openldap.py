"""Back up OpenLDAP: its configuration and each of its databases, as LDIF by slapcat. A plugin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import dump, os_works, process
from tools.errors import ConfigError, SourceError
from tools.item import Ended, Item, Told
from tools.options import Words, option

KIND = "openldap"
_CONFIG = "0"  # the number of cn=config (slapcat(8))
_DATABASE = re.compile(
    r"^dn: olcDatabase=\{(\d+)\}(?!monitor|config|frontend|null|ldap|meta|relay)", re.M
)


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    config_folder: Path = option("cn=config as slapd keeps it", default=Path("/etc/ldap/slapd.d"))
    databases: Words = option(
        "numbers of databases; default: the configuration (0) and all that hold data", default=()
    )
    slapcat: str = option("the dump program", default="/usr/sbin/slapcat")
    hostname: str = option("name of this server, in names of staged files", default="")
    destination: Path | None = option(
        "staged: PREFIX_FOLDER is made in it; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged: folder of the dumps", default="openldap")
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))
    allow_root: bool = option("run as root all the same", default=False)

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        for word in self.databases:
            if not word.isdigit():
                raise ConfigError(f"DATABASES: {word} is no number of a database", "See slapcat.")


def _words(given: Options, number: str) -> list[str]:
    if not given.config_folder.is_dir():
        raise ConfigError(
            f"CONFIG_FOLDER: there is no folder {given.config_folder}",
            "slapd.conf must be converted first (slaptest -f ... -F ...).",
        )
    program = dump.program(given.slapcat, "slapcat")
    return [program, "-F", str(given.config_folder), "-n", number, "-o", "ldif-wrap=no"]


def _numbers(given: Options) -> list[str]:
    """The databases that are meant. Raises SourceError."""
    if given.databases:
        return list(given.databases)
    text = b"".join(process.output(_words(given, _CONFIG))).decode("utf-8", "replace")
    found = _DATABASE.findall(text)
    if not found:
        raise SourceError("the configuration of slapd names no database", "Look at CONFIG_FOLDER.")
    return [_CONFIG, *found]


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """Each database by its number, the configuration first."""
    del told
    os_works.refuse_root(given.allow_root)
    return tuple(
        Item(number, KIND, lambda _head: ".ldif", one.read, one.ended)
        for number in _numbers(given)
        for one in (_Database(_words(given, number)),)
    )


class _Database:
    """One database."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._entries = 0

    def read(self) -> Iterator[bytes]:
        """The LDIF; each entry ends with an empty line (RFC 2849)."""
        self._entries = 0
        tail = b"\n"
        for chunk in process.output(self._words):
            text = tail + chunk
            self._entries += text.count(b"\ndn:") - tail.count(b"\ndn:")
            tail = text[-3:]
            yield chunk
        if not self._entries or not tail.endswith(b"\n\n"):
            raise SourceError("slapcat wrote no whole entries", "Its database may be empty.")

    def ended(self) -> Ended:
        """What is worth knowing of the dump."""
        return Ended(facts={"entries": str(self._entries)})


def test(given: Options) -> tuple[str, ...]:
    """What would be dumped."""
    os_works.refuse_root(given.allow_root)
    return (f"databases {', '.join(_numbers(given))} in {given.config_folder}",)


class OpenLDAPBackup(dump.Plugin):
    """The plugin class: leaves the LDIF of each database in PREFIX_FOLDER."""

    declared = Options
    section = "OPENLDAP"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)
