"""The command line of restore.py, and what is checked of it before anything is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from restore import members
from tools.base import project
from tools.base.errors import ConfigError

CONF = Path("/etc/nc-backup-py/conf.json")
KEY = Path("/etc/nc-backup-py/key_file")  # the usual key file

_LEVELS = ("presence", "sha256", "full")


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="restore.py",
        description="List, verify and restore what backup.py stored.",
        epilog="Times are UTC. Nothing is ever overwritten unless --overwrite says so.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="the runs that there are")
    what.add_argument("--show", metavar="RUN", help="one run, its items and parts")
    what.add_argument("--verify", metavar="RUN", help='a run, "latest" or "all"')
    what.add_argument("--restore", metavar="RUN", help='a run, "latest", or a date')
    where = parser.add_argument_group("where from: a config, or a store and a key")
    where.add_argument(
        "-c", "--config", type=Path, help=f"conf.json of the backup; default: {CONF}"
    )
    where.add_argument("--store", metavar="SECTION", default="", help="which store of the config")
    where.add_argument("--local-backup", type=Path, help="folder of a local store")
    where.add_argument("--hostname", default="", help="whose runs; default: the config's")
    where.add_argument(
        "--key-file",
        type=Path,
        help=f"the identity that opens the backup; default: the config's, else {KEY}",
    )
    where.add_argument("--passphrase", default="", help="env:NAME or file:/path, instead of a key")
    which = parser.add_argument_group("what of it")
    which.add_argument("--section", default="", help="only the items of this section")
    which.add_argument("--item", action="append", default=[], help="only these items")
    which.add_argument(
        "--path", action="append", default=[], metavar="GLOB", help="only these files"
    )
    which.add_argument("--destination", type=Path, help="a new or empty folder")
    which.add_argument("--overwrite", action="store_true", help="a folder that is not empty")
    which.add_argument("--level", choices=_LEVELS, default="full", help="of --verify")
    which.add_argument("--dry-run", action="store_true", help="show what would be written")
    to = parser.add_argument_group("databases into a server, instead of files")
    to.add_argument(
        "--to-host", default="", metavar="HOST", help="a name, or a socket or its folder"
    )
    to.add_argument("--to-port", type=int, metavar="PORT", help="its port; default: the client's")
    to.add_argument("--to-user", default="", metavar="USER", help="who restores")
    to.add_argument("--to-credentials", type=Path, metavar="FILE", help="logins of the client")
    to.add_argument("--to-database", default="", metavar="NAME", help="another name")
    to.add_argument(
        "--until", default="", metavar="WHEN", help="MySQL: before this time, position or GTID"
    )
    to.add_argument(
        "--no-tablespaces", action="store_true", help="PostgreSQL: all into the server's usual one"
    )
    parser.add_argument("--no-report", action="store_true", help="tell no report server")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--insecure-permissions", action="store_true", help="as in backup.py")
    return parser.parse_args(argv)


def check(given: argparse.Namespace) -> None:
    """Fill in the usual config; raises ConfigError for arguments that cannot be meant."""
    members.Patterns(given.path)
    if given.config is None and given.local_backup is None:
        if not CONF.exists():
            raise ConfigError(
                f"no config and no store is named, and there is no {CONF}",
                "Name a config (-c FILE), or a store: --local-backup FOLDER --key-file FILE.",
            )
        given.config = CONF
