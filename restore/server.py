"""Databases into a server: which items go there, in which order, and by whom."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from tools.base.errors import ConfigError
from tools.catalog.manifest import ManifestError
from tools.flow.item_record import StoredItem as Item
from tools.modules import loader, registry
from tools.modules.contracts import Again, Following, Server, Steps

REST = "rest of"  # begins the name of an item's later steps


def check(given: argparse.Namespace) -> None:
    """Raises ConfigError where the arguments do not say where a restore goes."""
    if not given.restore:
        return
    if given.to_host and (given.destination or given.path):
        raise ConfigError(
            "--to-host: databases go into a server, files into a folder",
            "Leave out --destination and --path.",
        )
    if not (given.to_host or given.destination or given.dry_run):
        raise ConfigError(
            "--restore needs --destination", "Name a new or empty folder, or a server: --to-host."
        )
    others = ("until", "to_port", "to_user", "to_credentials", "to_database", "no_tablespaces")
    if not given.to_host and any(getattr(given, name) for name in others):
        raise ConfigError(
            "--to-host is missing", "Name the server: 127.0.0.1, or the path of its socket."
        )


def chosen(items: Sequence[Item], given: argparse.Namespace) -> list[Item]:
    """Those that a server takes, users and roles first.

    Raises ConfigError where none does, or where they came from several servers.
    """
    found = [item for item in items if registry.kind(item.kind).into]
    if given.to_database:
        found = [item for item in found if not is_shared(item)]
        if len(found) != 1:
            raise ConfigError(
                f"--to-database: {len(found)} databases would get one name", "Name one by --item."
            )
    if not found:
        raise ConfigError(
            "--to-host: none of these items is a database", "--show lists what there is."
        )
    sources = sorted(set(map(source, found)))
    if len(sources) > 1:
        raise ConfigError(
            f"--to-host: these items come from {len(sources)} servers ({', '.join(sources)})",
            "One after the other: --section, --item 'users@3306' --item '3306/*'.",
        )
    return sorted(found, key=is_shared, reverse=True)


def goal(item: Item, given: argparse.Namespace) -> str:
    """Where an item goes, for people; "" where it goes into a folder."""
    if not given.to_host:
        return ""
    port = f":{given.to_port}" if given.to_port else ""
    name = given.to_database or item.name.partition("/")[2] or item.name
    separator = ": " if given.to_host.startswith("/") else "/"  # a socket, or a folder of sockets
    return f"{given.to_host}{port}{separator}{name}"


def into(
    item: Item,
    again: Again,
    given: argparse.Namespace,
    following: Callable[[], Iterator[Following]],
    options: object = None,
) -> Steps:
    """Restore one item into the server. Raises BackupError or OSError.

    options: those of its section, where the config has it.
    """
    with told(item):
        module = loader.restorer(registry.file_of_kind(item.kind))
        server = dataclasses.replace(_server(given, following), options=options)
        return (yield from module.into(item, again, server))


def _server(given: argparse.Namespace, following: Callable[[], Iterator[Following]]) -> Server:
    """What was said of the server."""
    return Server(
        host=given.to_host,
        port=given.to_port,
        user=given.to_user,
        credentials=given.to_credentials.absolute() if given.to_credentials else None,
        database=given.to_database,
        overwrite=given.overwrite,
        until=given.until,
        tablespaces=not given.no_tablespaces,
        following=following,
    )


def is_shared(item: Item) -> bool:
    """Whether an item is what all databases of a server share: users@3306, roles@5432."""
    return "@" in item.name.partition("/")[0]


def source(item: Item) -> str:
    """The section and the port of the server that an item came from: users@3306, 3306/shop."""
    return f"{item.section} {item.name.partition('/')[0].rpartition('@')[2]}"


@contextlib.contextmanager
def told(item: Item) -> Iterator[None]:
    """What the manifest says of an item is used: raises ManifestError where that cannot be."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise ManifestError(
            f"{item.called}: what its manifest says of it cannot be used ({error!r})",
            "It was altered, or a later version made it: use another copy, or that version.",
        ) from None
