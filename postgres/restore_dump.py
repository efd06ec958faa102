"""Restore a dump into a server: into a temporary database, which is renamed when it is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postgres import (
    database_properties,
    dump_loading,
    guarded_load,
    libraries,
    loading_role,
    pg_server,
    remains,
)
from tools.base.errors import BackupError, ConfigError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow.facts import PostgresFacts

Properties = Callable[[pg_server.PostgresConnection, str, dump_loading.Dump], tuple[str, ...]]


@dataclass(frozen=True)
class StoredDatabase:
    """A stored dump: its facts, its bytes from the beginning, and the rest of the database.

    properties: restores settings, privileges and comment of the database; returns its warnings
    """

    facts: PostgresFacts
    again: Callable[[], Iterator[bytes]]
    properties: Properties


def restore_database(
    target: pg_server.PostgresConnection,
    name: str,
    stored: StoredDatabase,
    *,
    overwrite: bool,
    tablespaces: bool,
) -> Result:
    """Load a dump into the database `name`; tablespaces: whether its tablespaces are used.

    The dump is loaded into a new database with a temporary name, which is renamed when its rows
    are counted. The old database is dropped last, when the new one accepts connections. On any
    failure the new one is dropped and the old one is unchanged. Objects that the server rejects
    are left out and named, but never rows. Raises StoreError, ConfigError.
    """
    target = pg_server.outside_of(target, name)  # a database in use cannot be renamed
    exists = pg_server.exists(target, name)
    if exists and not overwrite and not pg_server.is_empty(target, name):
        raise ConfigError(
            f"database {name} is not empty",
            "Choose another name with --to-database, or use --overwrite to replace the whole "
            "database.",
        )
    left = remains.sweep(target, name)
    new, old = (f"{word}_{uuid.uuid4().hex[:12]}" for word in (remains.NEW, remains.OLD))
    opened = dump_loading.open_dump(target, stored.facts, stored.again)
    with opened as dump, _dropped_on_error(target, new):
        loaded, (table_count, row_count) = _load(target, new, dump, tablespaces=tablespaces)
        with _swapped(target, name, new, old if exists else ""):
            warnings = (*loaded.warnings, *loaded.left_out.warnings())
            database_properties.open_to_all(target, name)
            warnings += database_properties.set_owner(target, name, stored.facts)
            warnings += stored.properties(target, name, dump)
            warnings += (*libraries.reset_unloadable(target, name),)
            warnings += (*database_properties.make_connectable(target, name),)
            remains.unmark_database(target, name)
    if exists:
        warnings += _drop_replaced(target, old)
    with contextlib.suppress(BackupError):  # the database is restored
        left = left.then(remains.sweep(target, name))
    warnings = (*left.warnings, *warnings)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"database {name}: {count(table_count, 'table')}, {count(row_count, 'row')}"
        f"{loaded.note}{left.note}",
        loaded.left_out.hint(),
        items=1,
        warnings=warnings,
    )


def _load(
    target: pg_server.PostgresConnection, new: str, dump: dump_loading.Dump, *, tablespaces: bool
) -> tuple[dump_loading.LoadResult, tuple[int, int]]:
    """Load a dump into a new database; return the result, and its numbers of tables and rows."""
    with contextlib.suppress(loading_role.LoginError), loading_role.created(target) as role:
        if role is not None:
            return _guarded(target, new, dump, role, tablespaces=tablespaces)
    loaded = dump_loading.load_database(target, new, dump, tablespaces=tablespaces)
    loaded.note = loading_role.code_note(target, new)
    return loaded, pg_server.count_tables_and_rows(target, new)


def _guarded(
    target: pg_server.PostgresConnection,
    new: str,
    dump: dump_loading.Dump,
    role: loading_role.LoadingRole,
    *,
    tablespaces: bool,
) -> tuple[dump_loading.LoadResult, tuple[int, int]]:
    """Load a dump so that its code does not run with the privileges of a superuser."""
    guard = guarded_load.GuardedLoad(role)
    loaded = dump_loading.load_database(
        target, new, dump, tablespaces=tablespaces, ways=(guard.at_once, guard.in_steps)
    )
    warnings = guarded_load.finish(target, new, dump, loaded, role)
    return dataclasses.replace(loaded, warnings=(*loaded.warnings, *warnings)), guard.numbers


@contextlib.contextmanager
def _dropped_on_error(target: pg_server.PostgresConnection, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(BackupError):
            _drop(target, name)
        raise


@contextlib.contextmanager
def _swapped(target: pg_server.PostgresConnection, name: str, new: str, old: str) -> Iterator[None]:
    """Give the name to the new database and rename the old one; undo both on an exception."""
    if old:
        target.sql(_rename_statement(name, old))
        remains.mark_database(target, old)
    try:
        target.sql(_rename_statement(new, name))
        try:
            yield
        except BaseException:
            target.sql(_rename_statement(name, new))
            raise
    except BaseException:
        if old:
            target.sql(_rename_statement(old, name))
            remains.unmark_database(target, name)
        raise


def _rename_statement(name: str, to: str) -> str:
    old, new = map(pg_server.quote_identifier, (name, to))
    return f"ALTER DATABASE {old} RENAME TO {new}"


def _drop_replaced(target: pg_server.PostgresConnection, old: str) -> tuple[str, ...]:
    """Drop the replaced database; return a warning if that fails."""
    try:
        _drop(target, old)
    except BackupError as error:
        return (f"the replaced database was not dropped, it is {old}: {error.hint or error}",)
    return ()


def _drop(target: pg_server.PostgresConnection, name: str) -> None:
    """Drop a database if it exists, also a template."""
    if pg_server.exists(target, name):
        with contextlib.suppress(BackupError):  # only an owner may; DROP then reports it
            target.sql(f"ALTER DATABASE {pg_server.quote_identifier(name)} IS_TEMPLATE false")
    target.sql(f"DROP DATABASE IF EXISTS {pg_server.quote_identifier(name)}")
