"""Databases into a server: which items go there, in which order, and which module restores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tools.base.errors import ConfigError
from tools.flow.item_record import StoredItem as Item
from tools.modules import loader, registry
from tools.modules.contracts import Again, Server, Steps

SECOND_STEP_LABEL = "rest of"  # precedes the name of an item in its later steps


def select_databases(items: Sequence[Item], database: str = "") -> list[Item]:
    """Return the items that a server takes, users and roles first.

    database: the new name of the one item that is selected; "" to keep the names
    Raises ConfigError where there is none, or where they came from several servers.
    """
    databases = [item for item in items if registry.kind(item.kind).to_server]
    if database:
        databases = [item for item in databases if not is_shared(item)]
        if len(databases) != 1:
            raise ConfigError(
                f"--to-database: {len(databases)} databases are selected", "Select one with --item."
            )
    if not databases:
        raise ConfigError(
            "--to-host: no database is selected", "Use --show RUN to list the items of a run."
        )
    servers = sorted(set(map(source_server, databases)))
    if len(servers) > 1:
        raise ConfigError(
            f"--to-host: the selected items come from {len(servers)} servers "
            f"({', '.join(servers)})",
            "Restore one server at a time: --section NAME, or --item 'users@3306' --item '3306/*'.",
        )
    return sorted(databases, key=is_shared, reverse=True)


def target_label(item: Item, server: Server) -> str:
    """Return where an item goes, as messages show it: HOST:PORT/DATABASE."""
    port = f":{server.port}" if server.port else ""
    name = server.database or item.name.partition("/")[2] or item.name
    separator = ": " if server.host.startswith("/") else "/"  # a socket, or a folder of sockets
    return f"{server.host}{port}{separator}{name}"


def restore_item(
    item: Item, again: Again, server: Server, check: Callable[[], None] = lambda: None
) -> Steps:
    """Restore one item into the server. Raises BackupError or OSError.

    check: raises ManifestError where the item must not be restored, before anything is done
    """
    check()
    module = loader.restorer(registry.file_of_kind(item.kind))
    return (yield from module.restore_to_server(item, again, server))


def is_shared(item: Item) -> bool:
    """Return whether all databases of a server share the item: users@3306, roles@5432."""
    return "@" in item.name.partition("/")[0]


def source_server(item: Item) -> str:
    """Return section and port of the server that an item came from."""
    return f"{item.section} {item.name.partition('/')[0].rpartition('@')[2]}"
