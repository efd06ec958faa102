"""Back up OpenLDAP: its configuration and each of its databases, as LDIF by slapcat. A plugin."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openldap import databases
from tools import os_works
from tools.base import finding
from tools.base.errors import BackupError, ConfigError, SourceError
from tools.base.finding import Finding
from tools.flow import dump_stream, process, stream
from tools.flow.item import Ended, Item, Told
from tools.modules import database_plugin, executable
from tools.modules.options import Words, option

KIND = "openldap"
_CONFIG = "0"  # the number of cn=config (slapcat(8))


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    config_folder: Path = option(
        "configuration directory of slapd (slapd.d)", default=Path("/etc/ldap/slapd.d")
    )
    databases: Words = option(
        "database numbers; default: the configuration (0) and every database with data", default=()
    )
    slapcat: str = option("path of slapcat", default="/usr/sbin/slapcat")
    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the dumps", default="openldap")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        for word in self.databases:
            if not word.isdigit():
                raise ConfigError(
                    f"DATABASES: {word}: not a database number",
                    "Run `slapcat -n 0` to see which numbers exist (olcDatabase).",
                )


def _words(given: Options, number: str) -> list[str]:
    if not given.config_folder.is_dir():
        raise ConfigError(
            f"CONFIG_FOLDER: {given.config_folder}: no such directory",
            "Convert slapd.conf first: slaptest -f slapd.conf -F slapd.d",
        )
    program = dump_stream.program(given.slapcat, "slapcat")
    # -g: each database by itself; what is glued to it is an item of its own.
    return [program, "-F", str(given.config_folder), "-g", "-n", number, "-o", "ldif-wrap=no"]


def _configured(given: Options) -> tuple[databases.Database, ...]:
    """The databases of the configuration. Raises SourceError.

    With DATABASES it is asked for their suffixes only, and need not answer.
    """
    words = _words(given, _CONFIG)
    found: tuple[databases.Database, ...] = ()
    with contextlib.suppress(*([SourceError] if given.databases else [])):
        text = b"".join(process.output(words)).decode("utf-8", "replace")
        found = databases.parse(text)
    if not found and not given.databases:
        raise SourceError(
            f"{given.config_folder}: no database in the slapd configuration",
            "Set CONFIG_FOLDER to the slapd.d folder of the server.",
        )
    return found


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """Each database by its number, the configuration first."""
    del told
    os_works.refuse_root(given.allow_root)
    return tuple(
        Item(one.number, KIND, lambda _head: ".ldif", one.read, one.ended) for one in _chosen(given)
    )


def _chosen(given: Options) -> list[_Database]:
    """The databases that are meant; of those without data the configuration has a note."""
    configured = {str(database.number): database for database in _configured(given)}
    without = [database.shown for database in configured.values() if not database.has_data]
    notes = {_CONFIG: [f"{name}: no data of its own, not dumped" for name in without]}
    numbers = [number for number, database in configured.items() if database.has_data]
    if not given.databases and not any(int(number) > 0 for number in numbers):
        notes[_CONFIG].append("no database in the configuration has data")
    chosen = given.databases or dict.fromkeys((_CONFIG, *numbers))
    return [_Database(given, n, configured.get(n), notes.get(n, ())) for n in chosen]


class _Database:
    """One database."""

    def __init__(
        self,
        given: Options,
        number: str,
        database: databases.Database | None,
        notes: Sequence[str],
    ) -> None:
        self.number = number
        self._given = given
        self._database = database
        self._notes = tuple(notes)
        self._entries = 0

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"database {self._database.shown if self._database else self.number}"

    def read(self) -> Iterator[bytes]:
        """The LDIF; each entry ends with an empty line (RFC 2849)."""
        self._entries = 0
        tail = b"\n"
        written = False
        for chunk in process.output(_words(self._given, self.number)):
            text = tail + chunk
            self._entries += text.count(b"\ndn:") - tail.count(b"\ndn:")
            tail = text[-3:]
            written = True
            yield chunk
        whole = self._entries and tail.endswith(b"\n\n")
        if not whole and (written or self.number == _CONFIG):
            raise SourceError(
                f"{self.label}: no complete entry in the output of slapcat",
                f"Check the output of: slapcat -F {self._given.config_folder} -n {self.number}",
            )

    def ended(self) -> Ended:
        """What is worth knowing of the dump."""
        facts = {"entries": str(self._entries)}
        if self._database and self._database.suffixes:
            facts["suffix"] = "; ".join(self._database.suffixes)
        empty = () if self._entries else (f"{self.label}: no entries",)
        return Ended(notes=(*self._notes, *empty), facts=facts)

    def begun(self) -> None:
        """Read the beginning of a dump. Raises BackupError where slapcat cannot give it."""
        with stream.closed(process.output(_words(self._given, self.number))) as chunks:
            next(chunks, b"")


def test(given: Options) -> tuple[str | Finding, ...]:
    """Return what would be dumped, and what cannot be."""
    os_works.refuse_root(given.allow_root)
    chosen = _chosen(given)
    numbers = ", ".join(one.number for one in chosen)
    found: list[str | Finding] = [f"databases {numbers} in {given.config_folder}"]
    for one in chosen:
        try:
            one.begun()
        except BackupError as error:
            found.append(finding.bad(f"{one.label}: {error}", error.hint))
    return tuple(found)


class OpenLDAPBackup(database_plugin.Plugin):
    """The plugin class: leaves the LDIF of each database in PREFIX_FOLDER."""

    declared = Options
    section = "OPENLDAP"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
