"""The command line of restore.py, and the checks of it before anything is read."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from restore import archive_checks
from tools.base import foreign, project
from tools.base.errors import ConfigError
from tools.catalog.location import Source
from tools.commands import store_arguments
from tools.modules.contracts import Server

CONF = store_arguments.CONF
KEY = store_arguments.KEY  # the default key file

_READABLE = "Name a file that this user can read."
_KEY = f"{_READABLE} A new key decrypts no existing backup."
_LEVELS = ("presence", "sha256", "full")


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="restore.py",
        description="List, verify and restore the runs that backup.py stored.",
        epilog="All times are UTC. Existing files and databases are kept unless --overwrite is "
        "given.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    _add_actions(parser)
    _add_location(parser)
    _add_selection(parser)
    _add_server(parser)
    parser.add_argument("--no-report", action="store_true", help="do not send a report")
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on standard output"
    )
    parser.add_argument(
        "--insecure-permissions",
        action="store_true",
        help="skip the permission check of config and code",
    )
    return parser.parse_args(argv)


def _add_actions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--list", action="store_true", help="list all runs")
    group.add_argument("--show", metavar="RUN", help="show the items, parts and warnings of a run")
    group.add_argument(
        "--verify",
        metavar="RUN",
        help='check that a run can be restored: RUN, "latest", a UTC date or "all"',
    )
    group.add_argument(
        "--restore", metavar="RUN", help='restore a run: RUN, "latest" or a UTC date'
    )


def _add_location(parser: argparse.ArgumentParser) -> None:
    group = store_arguments.add(parser, "store and key (from a config, or given here)")
    store_arguments.add_limits(group, "download")
    store_arguments.add_key(group)
    store_arguments.add_signers(group)
    group.add_argument(
        "--allow-special",
        action="store_true",
        help="with --allow-unsigned: also restore device nodes, set-user-ID and set-group-ID bits "
        "and capabilities from a run that no known signer has signed",
    )
    group.add_argument(
        "--allow-unencrypted",
        action="store_true",
        help="also restore items that are not encrypted, although the config encrypts or a key "
        "is given",
    )
    group.add_argument(
        "--newest",
        type=int,
        default=0,
        metavar="N",
        help="number of the newest run that was reported: fail where the store has only older ones",
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to restore")
    group.add_argument("--section", default="", help="only items of this section")
    group.add_argument(
        "--item", action="append", default=[], help="only this item; * and ? allowed; repeatable"
    )
    group.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="GLOB",
        help="only files that match; a pattern begins at / or matches at any depth, ** crosses "
        "folders; repeatable",
    )
    group.add_argument(
        "--destination", type=Path, help="folder to restore into; must be new or empty"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="allow a destination or database that is not empty; replaces files of the same name",
    )
    group.add_argument(
        "--level", choices=_LEVELS, default="full", help="depth of --verify (default: full)"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="list what would be restored; write nothing"
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("restore databases into a server instead of files")
    group.add_argument(
        "--to-host",
        default="",
        metavar="HOST",
        help="host name, or the Unix socket or its directory",
    )
    group.add_argument(
        "--to-port", type=int, metavar="PORT", help="port (default: that of the client)"
    )
    group.add_argument("--to-user", default="", metavar="USER", help="user name that restores")
    group.add_argument(
        "--to-credentials",
        type=Path,
        metavar="FILE",
        help="login: MySQL option file, .pgpass file, or MongoDB password file",
    )
    group.add_argument(
        "--to-database", default="", metavar="NAME", help="restore under this name (one item only)"
    )
    group.add_argument(
        "--until",
        default="",
        metavar="WHEN",
        help="MySQL/MariaDB: replay binary logs up to this UTC time, position or GTID",
    )
    group.add_argument(
        "--no-tablespaces",
        action="store_true",
        help="restore into the default tablespace; MySQL: without DATA DIRECTORY",
    )


def check(options: argparse.Namespace) -> None:
    """Set the default config. Raises ConfigError for arguments that contradict each other."""
    archive_checks.Patterns(options.path)
    _check_files(options)
    if options.restore:
        _check_target(options)
    store_arguments.settle(options, CONF, "--key-file FILE")


def _check_files(options: argparse.Namespace) -> None:
    """Raise ConfigError for a key file or option file that cannot be read.

    Otherwise "no signer is known", and its hint, would be the first that is said of it.
    """
    needless = options.verify and options.level != "full"  # no key is needed for that
    for name, hint in (("key_file", _KEY), ("to_credentials", _READABLE)):
        if (path := getattr(options, name)) is not None and not (needless and hint == _KEY):
            try:
                foreign.beginning(path, 0)
            except OSError as error:
                argument = f"--{name.replace('_', '-')}"
                problem = f"{argument}: {path}: {(error.strerror or 'cannot be read').lower()}"
                raise ConfigError(problem, hint) from None


def _check_target(options: argparse.Namespace) -> None:
    """Raise ConfigError where the arguments do not name the target of a restore."""
    if options.to_host and (options.destination or options.path):
        raise ConfigError(
            "--to-host cannot be combined with --destination or --path",
            "Remove --destination and --path.",
        )
    if not (options.to_host or options.destination or options.dry_run):
        raise ConfigError(
            "--restore requires --destination or --to-host",
            "Choose a new or empty folder, or a server with --to-host.",
        )
    of_server = ("until", "to_port", "to_user", "to_credentials", "to_database", "no_tablespaces")
    used = [name for name in of_server if getattr(options, name)]
    if used and not options.to_host:
        raise ConfigError(
            f"--{used[0].replace('_', '-')} requires --to-host",
            "Add --to-host, for example --to-host 127.0.0.1.",
        )


def source(options: argparse.Namespace) -> Source:
    """Return where the backups are read from."""
    base = store_arguments.source(options)
    return dataclasses.replace(
        base,
        key_file=options.key_file,
        passphrase=options.passphrase,
        allow_unencrypted=options.allow_unencrypted,
    )


def server(options: argparse.Namespace) -> Server:
    """Return the server to restore into."""
    return Server(
        host=options.to_host,
        port=options.to_port,
        user=options.to_user,
        credentials=options.to_credentials.absolute() if options.to_credentials else None,
        database=options.to_database,
        overwrite=options.overwrite,
        until=options.until,
        tablespaces=not options.no_tablespaces,
    )
