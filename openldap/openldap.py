"""Back up OpenLDAP: its configuration and each database as LDIF, with slapcat. A plugin."""

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
from tools.base import finding, foreign
from tools.base.errors import BackupError, ConfigError, SourceError
from tools.base.finding import Finding
from tools.flow import dump_stream, process, stream
from tools.flow.facts import OpenldapFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import database_plugin, executable
from tools.modules.options import Strings, option

KIND = "openldap"
_CONFIG_NUMBER = "0"  # the number of cn=config (slapcat(8))


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    config_folder: Path = option(
        "configuration directory of slapd (slapd.d)", default=Path("/etc/ldap/slapd.d")
    )
    databases: Strings = option(
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
        """Raise ConfigError for a value that is not a database number."""
        for word in self.databases:
            if foreign.number(word) is None:
                raise ConfigError(
                    f"DATABASES: {word}: not a database number",
                    "Run `slapcat -n 0` to see which numbers exist (olcDatabase).",
                )


def _slapcat_command(options: Options, number: str) -> list[str]:
    if not options.config_folder.is_dir():
        raise ConfigError(
            f"CONFIG_FOLDER: {options.config_folder}: no such directory",
            "Convert slapd.conf first: slaptest -f slapd.conf -F slapd.d",
        )
    program = dump_stream.program(options.slapcat, "slapcat")
    # -g: each database by itself; a database that is glued to it is a separate item.
    return [program, "-F", str(options.config_folder), "-g", "-n", number, "-o", "ldif-wrap=no"]


def _configured_databases(options: Options) -> tuple[databases.Database, ...]:
    """Return the databases of the configuration. Raises SourceError.

    If DATABASES is set, only suffixes are needed, and an unreadable configuration is ignored.
    """
    command = _slapcat_command(options, _CONFIG_NUMBER)
    found_databases: tuple[databases.Database, ...] = ()
    with contextlib.suppress(*([SourceError] if options.databases else [])):
        text = b"".join(process.output(command)).decode("utf-8", "replace")
        found_databases = databases.parse(text)
    if not found_databases and not options.databases:
        raise SourceError(
            f"{options.config_folder}: no database in the slapd configuration",
            "Set CONFIG_FOLDER to the slapd.d folder of the server.",
        )
    return found_databases


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return each database as an item, named after its number; the configuration is first."""
    del context
    os_works.refuse_root(options.allow_root)
    return tuple(
        Item(database.number, KIND, lambda _head: ".ldif", database.read, database.ended)
        for database in _chosen(options)
    )


def _chosen(options: Options) -> "list[_Database]":
    """Return the databases to dump; the configuration has a note on those without data."""
    configured = {str(database.number): database for database in _configured_databases(options)}
    without = [database.label for database in configured.values() if not database.has_data]
    notes = {_CONFIG_NUMBER: [f"{name}: no data of its own, not dumped" for name in without]}
    numbers = [number for number, database in configured.items() if database.has_data]
    if not options.databases and not any(int(number) > 0 for number in numbers):
        notes[_CONFIG_NUMBER].append("no database in the configuration has data")
    chosen = options.databases or dict.fromkeys((_CONFIG_NUMBER, *numbers))
    return [_Database(options, n, configured.get(n), notes.get(n, ())) for n in chosen]


class _Database:
    """One database."""

    def __init__(
        self,
        options: Options,
        number: str,
        database: databases.Database | None,
        notes: Sequence[str],
    ) -> None:
        self.number = number
        self._options = options
        self._database = database
        self._notes = tuple(notes)
        self._entries = 0

    @property
    def label(self) -> str:
        """Return its name in messages."""
        return f"database {self._database.label if self._database else self.number}"

    def read(self) -> Iterator[bytes]:
        """Yield the LDIF; each entry ends with an empty line (RFC 2849). Raises SourceError."""
        self._entries = 0
        tail = b"\n"
        written = False
        for chunk in process.output(_slapcat_command(self._options, self.number)):
            text = tail + chunk
            self._entries += text.count(b"\ndn:") - tail.count(b"\ndn:")
            tail = text[-3:]
            written = True
            yield chunk
        complete = self._entries and tail.endswith(b"\n\n")
        if not complete and (written or self.number == _CONFIG_NUMBER):
            raise SourceError(
                f"{self.label}: no complete entry in the output of slapcat",
                f"Check the output of: slapcat -F {self._options.config_folder} -n {self.number}",
            )

    def ended(self) -> ItemReport:
        """Return notes and facts of the dump."""
        suffixes = self._database.suffixes if self._database else ()
        facts = OpenldapFacts(self._entries, "; ".join(suffixes))
        empty = () if self._entries else (f"{self.label}: no entries",)
        return ItemReport(notes=(*self._notes, *empty), facts=facts)

    def read_beginning(self) -> None:
        """Read the beginning of a dump. Raises BackupError if slapcat fails."""
        with stream.closed(process.output(_slapcat_command(self._options, self.number))) as chunks:
            next(chunks, b"")


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the databases that would be dumped, and a finding for each that cannot be."""
    os_works.refuse_root(options.allow_root)
    chosen = _chosen(options)
    numbers = ", ".join(database.number for database in chosen)
    findings: list[str | Finding] = [f"databases {numbers} in {options.config_folder}"]
    for database in chosen:
        try:
            database.read_beginning()
        except BackupError as error:
            findings.append(finding.bad(f"{database.label}: {error}", error.hint))
    return tuple(findings)


class OpenLDAPBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes the LDIF of each database to PREFIX_FOLDER."""

    declared = Options
    section = "OPENLDAP"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
