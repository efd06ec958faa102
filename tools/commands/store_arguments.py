"""The arguments of commands that select a store and the trusted signers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from tools.base.errors import ConfigError
from tools.catalog.location import Source
from tools.modules.options import Size, size

CONF = Path("/etc/nc-backup-py/conf.json")
KEY = Path("/etc/nc-backup-py/key_file")  # the default key file
_LEAST_RATE = 1024  # bytes a second, as of LIMIT_DOWNLOAD


Group = argparse._ArgumentGroup


def add(parser: argparse.ArgumentParser, title: str) -> Group:
    """Add a group with the arguments that name the store and the host; return the group."""
    group = parser.add_argument_group(title)
    group.add_argument(
        "-c", "--config", type=Path, help=f"conf.json of the backup (default: {CONF})"
    )
    group.add_argument(
        "--store",
        metavar="SECTION|URL",
        default="",
        help="store section of the config (default: the first that can be opened), or any store "
        "by its URL",
    )
    group.add_argument(
        "--endpoint",
        metavar="URL",
        default="",
        help="with the URL of a bucket: its server, where that is not the usual one",
    )
    group.add_argument("--local-backup", type=Path, help="folder of a local store")
    group.add_argument(
        "--hostname", default="", help="host whose runs are used (default: HOSTNAME of the config)"
    )
    return group


def add_key(group: Group) -> None:
    """Add the arguments that name the key to decrypt with."""
    group.add_argument(
        "--key-file",
        type=Path,
        help=f"age identity or old key file (default: KEY_FILE of the config, else {KEY})",
    )
    group.add_argument(
        "--passphrase",
        default="",
        help="passphrase as env:NAME or file:/path, instead of a key file",
    )


def add_signers(group: Group) -> None:
    """Add the arguments that select the trusted signers."""
    group.add_argument(
        "--signer",
        type=Path,
        metavar="FILE",
        help="known signers of runs (allowed_signers lines, or comments of a key file), beside "
        'those of the config and of the comment "# signer:" in the key file',
    )
    group.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="also use runs that no known signer has signed, if they are older than signed ones",
    )


def add_limits(group: Group, *directions: str) -> None:
    """Add the arguments that limit the rate of a store. directions: upload, download"""
    for direction in directions:
        group.add_argument(
            f"--limit-{direction}",
            type=_rate,
            metavar="RATE",
            help=f"bytes a second at most, 500K or 5M (default: LIMIT_{direction.upper()} of the "
            "config); local disks are not limited",
        )


def _rate(text: str) -> int:
    """Return bytes a second, as LIMIT_DOWNLOAD is written."""
    try:
        rate = size(text)
    except (ValueError, OverflowError):
        rate = Size(0)
    if rate < _LEAST_RATE:
        raise argparse.ArgumentTypeError(f"{text}: not a size of at least 1K (500K, 5M, 1G)")
    return rate


def limits(options: argparse.Namespace) -> Mapping[str, int]:
    """Return the limits that `add_limits` has asked for, by the keys of the config."""
    keys = ("limit_upload", "limit_download")
    rates = {key.upper(): getattr(options, key, None) for key in keys}
    return {key: rate for key, rate in rates.items() if rate is not None}


def source(options: argparse.Namespace) -> Source:
    """Return where the runs are, as far as `add` and `add_signers` have asked for it.

    They are there already: a missing folder is a disk that is not mounted.
    """
    return Source(
        options.config,
        options.store,
        options.local_backup,
        options.hostname,
        insecure_permissions=options.insecure_permissions,
        signer=options.signer,
        allow_unsigned=options.allow_unsigned,
        endpoint=options.endpoint,
        limits=limits(options),
        existing=True,
    )


def settle(options: argparse.Namespace, default: Path, others: str) -> None:
    """Set the default config where neither a config nor a store was given.

    others: further arguments that a store needs. Raises ConfigError where there is no default.
    """
    if options.config is not None or source(options).names_store:
        return
    if not default.exists():
        raise ConfigError(
            f"no config and no store given, and {default}: no such file or directory",
            "Use -c CONFIG; or --local-backup FOLDER, or --store with the URL of a store, with "
            f"{others}.",
        )
    options.config = default
