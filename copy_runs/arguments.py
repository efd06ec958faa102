"""The command line of copy_runs.py, and the checks of it before anything is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools.base import project, run_ids
from tools.base.errors import ConfigError
from tools.catalog.location import Source
from tools.commands import store_arguments

CONF = store_arguments.CONF
SELECTORS = MISSING, NEWEST, ALL = "missing", "newest", "all"


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="copy_runs.py",
        description="Copy runs from one store to another, byte for byte and without any key.",
        epilog="A copy that was cancelled or killed is continued by the next call. "
        "Nothing is ever overwritten or removed.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    parser.add_argument("-c", "--config", type=Path, help=f"conf.json (default: {CONF})")
    _add_stores(parser)
    store_arguments.add_limits(parser.add_argument_group("rates"), "download", "upload")
    store_arguments.add_signers(parser.add_argument_group("which runs are trusted"))
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be copied; write nothing"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on standard output"
    )
    parser.add_argument(
        "--insecure-permissions",
        action="store_true",
        help="skip the permission check of config and code",
    )
    return parser.parse_args(argv)


def _add_stores(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is copied")
    for name, source in (("from", "the store that has the runs"), ("to", "the store to fill")):
        group.add_argument(
            f"--{name}",
            dest=f"{name}_store",
            metavar="SECTION|URL",
            default="",
            help=f"{source}: a store section of the config, or any store by its URL",
        )
        group.add_argument(
            f"--{name}-endpoint",
            metavar="URL",
            default="",
            help="with the URL of a bucket: its server, where that is not the usual one",
        )
    group.add_argument(
        "--catch-up",
        action="store_true",
        help="give each store of the config the recent runs that another one has and it missed",
    )
    group.add_argument(
        "--runs",
        nargs="+",
        metavar="RUN",
        default=[MISSING],
        help='run IDs; or "missing" (default): those that the target has no manifest of; '
        '"newest": the newest complete run of each config; "all": also check the runs that are '
        "there, and fill in parts that they lack",
    )
    group.add_argument(
        "--hostname",
        default="",
        help="host whose runs are copied (default: HOSTNAME of the config, else all)",
    )


def check(options: argparse.Namespace) -> None:
    """Set the default config. Raises ConfigError for arguments that contradict each other."""
    if options.catch_up:
        _check_catch_up(options)
    elif not (options.from_store and options.to_store):
        raise ConfigError(
            "--from and --to are required, or --catch-up",
            "Name two stores: sections of the config, or URLs.",
        )
    _check_runs(options.runs)
    named = [options.from_store, options.to_store]
    if options.config is None and (options.catch_up or not all("://" in one for one in named)):
        if not CONF.exists():
            raise ConfigError(
                f"no config given, and {CONF}: no such file or directory",
                "Use -c CONFIG, or name both stores by their URLs.",
            )
        options.config = CONF


def _check_catch_up(options: argparse.Namespace) -> None:
    others = ("from_store", "to_store", "from_endpoint", "to_endpoint", "hostname")
    used = [name for name in others if getattr(options, name)]
    used += ["runs"] if options.runs != [MISSING] else []
    if used:
        argument = used[0].removesuffix("_store").replace("_", "-")
        raise ConfigError(
            f"--catch-up cannot be combined with --{argument}",
            "It uses all stores of the config and its HOSTNAME.",
        )


def _check_runs(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in SELECTORS and not run_ids.is_run_id(name)]
    if unknown or (len(names) > 1 and any(name in SELECTORS for name in names)):
        raise ConfigError(
            f"--runs {' '.join(names)}: neither {', '.join(SELECTORS)} nor run IDs",
            "Use one of these words, or run IDs as restore.py --list shows them.",
        )


def source(options: argparse.Namespace, store: str, endpoint: str) -> Source:
    """Return where one of the two stores is."""
    return Source(
        options.config,
        store,
        hostname=options.hostname,
        insecure_permissions=options.insecure_permissions,
        signer=options.signer,
        allow_unsigned=options.allow_unsigned,
        endpoint=endpoint,
        limits=store_arguments.limits(options),
    )
