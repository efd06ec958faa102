"""The facts of a server in stored items: in its roles, of this version or an earlier one."""

from __future__ import annotations

import dataclasses
import re

from postgres import (
    database_properties,
    dump_loading,
    pg_server,
    server_facts,
    sql_items,
    statements,
)
from postgres.server_facts import ServerFacts
from postgres.statements import Statement
from tools.base.errors import BackupError, StoreError
from tools.flow import process, stream
from tools.flow.item_record import StoredItem
from tools.modules.contracts import Again, Following, Server

# Entries about the database itself in the list of a dump.
_ENTRY = re.compile(
    r"[0-9]+; [0-9]+ [0-9]+ (?:DATABASE(?: PROPERTIES)?|"
    r"(?:ACL|COMMENT|SECURITY LABEL) - DATABASE) "
)


def read(again: Again) -> tuple[ServerFacts, tuple[Statement, ...]]:
    """Return the facts of an item of roles, and more statements of an earlier version.

    Raises StoreError.
    """
    with stream.closed(again()) as chunks:
        content = server_facts.joined(chunks)
    if content.startswith(b"{"):
        return server_facts.from_bytes(content), ()
    item = sql_items.parse(content)
    return item.facts(), tuple(item.statements)


def restore_properties(
    item: StoredItem,
    server: Server,
    target: pg_server.PostgresConnection,
    name: str,
    dump: dump_loading.Dump,
) -> tuple[str, ...]:
    """Restore settings, privileges and comment of a database; return a warning for each failure.

    They are in the roles of the same run, or in the dump if an earlier version made it. name: of
    the database on the target.
    """
    source = item.name.partition("/")[2]
    try:
        roles = _roles_of(item, server)
        if roles is None:
            raise StoreError("the run has no item of roles")
        facts, _more = read(roles.again)
        if roles.item.ending == ".json":
            return database_properties.apply(target, name, source, facts)
        return _of_dump(target, name, dump, facts)
    except BackupError as error:
        reason = f"{error}: {error.hint}" if error.hint else str(error)
        return (f"database settings and privileges not restored: {reason}",)


def _roles_of(item: StoredItem, server: Server) -> Following | None:
    """Return the roles of the server and run of an item; None if the run has none."""
    name = f"roles@{item.name.partition('/')[0]}"
    run_id = ""
    for one in server.following():
        run_id = run_id or one.run_id
        if one.run_id != run_id:
            break
        if one.item.kind == pg_server.ROLES and one.item.name == name:
            return one
    return None


def _of_dump(
    target: pg_server.PostgresConnection,
    name: str,
    dump: dump_loading.Dump,
    facts: ServerFacts,
) -> tuple[str, ...]:
    """Restore what a dump says of the database itself: read as data, never run as it is."""
    stored = sql_items.parse(_database_sql(target, dump), name)
    failures = statements.run(target, stored.statements)
    facts = dataclasses.replace(facts, settings=tuple(stored.settings))
    warnings = database_properties.add_settings(target, name, name, facts)
    return (*(failure.line() for failure in failures), *warnings)


def _database_sql(target: pg_server.PostgresConnection, dump: dump_loading.Dump) -> bytes:
    """Return the SQL of a dump about the database itself, as pg_restore writes it."""
    program = target.programs.sibling("pg_restore")
    env = target.environment()
    listing = [program, "--create", "--list", str(dump.head)]
    lines = b"".join(process.output(listing, env=env, failure=StoreError)).split(b"\n")
    chosen = [line for line in lines if _ENTRY.match(line.decode("utf-8", "replace"))]
    list_file = dump.head.with_name("database-list")
    list_file.write_bytes(b"\n".join(chosen) + b"\n")
    script = [program, "--create", f"--use-list={list_file}", "--file=-", str(dump.head)]
    return b"".join(process.output(script, env=env, failure=StoreError))
