"""Restore a dump into a server: it is first read to its end, then loaded into a database."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
from collections.abc import Generator, Iterator, Mapping

from mysql_backup import (
    binlog_replay,
    changed_values,
    deferred_views,
    definers,
    dump_check,
    dump_reader,
    loading,
    mysql_server,
    name_references,
)
from tools.base.errors import BackupError, StoreError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import stream
from tools.flow.facts import MysqlFacts
from tools.modules import contracts

# Errors for a missing database, table, column or routine, or for a view that refers to one.
_MISSING_OBJECT = re.compile(r"ERROR (?:1049|1054|1146|1305|1356) ")
_RESTORE_REFERENCES = (
    "Restore the databases, users and definers that these objects refer to as well."
)
_OWNED_BY_RESTORER = (
    "triggers, routines, events and views are now owned by the restoring user, who may not set "
    "another definer: events are disabled, routines and views run as their callers"
)


def restore_database(  # noqa: PLR0913  (by name)
    target: mysql_server.MySQLConnection,
    name: str,
    old: str,
    facts: MysqlFacts,
    again: contracts.Again,
    *,
    size: int,
    overwrite: bool,
    directories: bool = True,
    replay: binlog_replay.Replay | None = None,
) -> contracts.Steps:
    """Load a dump of `old` into the database `name`, which is created if it does not exist.

    All data is read and checked before anything is sent to the server. If the server then rejects
    something, a database that was created here is dropped. A second step, if needed, creates the
    views, which may refer to other databases and grants, and replays the binary logs after the
    dump. Raises StoreError, WouldOverwriteError.
    """
    exists = name in mysql_server.server_info(target).databases
    if exists and not overwrite and not mysql_server.is_empty(target, name):
        raise mysql_server.WouldOverwriteError(
            f"database {name} is not empty",
            "Choose another name with --to-database, or use --overwrite to replace the tables "
            "that the dump contains and keep the others.",
        )
    measured = loading.LongestLine()
    warnings: tuple[str, ...] = ()
    with stream.closed(again()) as chunks:
        dump = dump_check.checked(measured.read(chunks), old, name)
        if old != name:
            warnings = name_references.find_references(dump, old)
        else:
            collections.deque(dump, maxlen=0)
    if replay is not None:
        replay.check_name(name)
        replay.check_logs()
    new_database = _NewDatabase(target, name, facts, exists, measured.needed, directories)
    with _dropped_on_error(target, name, exists=exists):
        try:
            reader, owner_warnings = new_database.fill(old, again)
        except StoreError as error:
            if not _MISSING_OBJECT.search(error.hint):
                raise
            # the default of a column may be a sequence of a database that is restored later
            yield Result(Status.OK, f"waiting for another database: {error.hint}")
            reader, owner_warnings = new_database.fill(old, again)
        loaded = _load_result(target, name, size, (*warnings, *owner_warnings))
        if reader.views.by_name or replay:
            yield loaded
            loaded = yield from _finish(target, reader, replay)
    missing = tuple(
        f"definer {one} does not exist" for one in definers.missing_definers(target, name)
    )
    if not missing:
        return loaded
    return dataclasses.replace(
        loaded,
        status=Status.INCOMPLETE,
        hint=_RESTORE_REFERENCES,
        warnings=(*loaded.warnings, *missing),
    )


@dataclasses.dataclass(frozen=True)
class _NewDatabase:
    """The database of a restore.

    needed: bytes of the longest statement of the dump. directories: see DumpReader
    """

    target: mysql_server.MySQLConnection
    name: str
    facts: MysqlFacts
    exists: bool
    needed: int
    directories: bool

    def fill(
        self, old: str, again: contracts.Again
    ) -> tuple[dump_reader.DumpReader, tuple[str, ...]]:
        """Create it if it does not exist, and load all but the views. Raises StoreError."""
        with loading.raised_packet_limit(self.target, self.needed):
            if not self.exists:
                self.target.query(
                    f"DROP DATABASE IF EXISTS {mysql_server.quote_identifier(self.name)}"
                )
                name = mysql_server.quote_identifier(self.name)
                self.target.query(f"CREATE DATABASE {name}{_charset_clause(self.facts)}")
            reader = dump_reader.DumpReader(
                old, self.name, self.facts, directories=self.directories
            )
            return _load_tables(self.target, reader, again)


@contextlib.contextmanager
def _dropped_on_error(
    target: mysql_server.MySQLConnection, name: str, *, exists: bool
) -> Iterator[None]:
    """Drop a database that did not exist before, if the block fails."""
    try:
        yield
    except BaseException:
        if not exists:
            with contextlib.suppress(BackupError):
                target.query(f"DROP DATABASE IF EXISTS {mysql_server.quote_identifier(name)}")
        raise


def _load_tables(
    target: mysql_server.MySQLConnection, reader: dump_reader.DumpReader, again: contracts.Again
) -> tuple[dump_reader.DumpReader, tuple[str, ...]]:
    """Load all but the views; return the reader, which has them, and warnings."""
    values = changed_values.ChangedValues(directories=reader.directories)
    try:
        with stream.closed(again()) as chunks:
            loaded = reader.read(chunks)
            loading.load(target, loaded, reader.new, "--show-warnings", take=values.take)
    except StoreError as error:
        if reader.owned_by_restorer or definers.DENIED not in error.hint:
            raise
        owned_reader = dump_reader.DumpReader(
            reader.old,
            reader.new,
            reader.facts,
            owned_by_restorer=True,
            directories=reader.directories,
        )
        reader, warnings = _load_tables(target, owned_reader, again)
        return reader, (_OWNED_BY_RESTORER, *warnings)
    return reader, values.warnings()


def _load_result(
    target: mysql_server.MySQLConnection, name: str, size: int, warnings: tuple[str, ...]
) -> Result:
    number, rows = mysql_server.count_tables_and_rows(target, name)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"database {name}: {count(number, 'table')}, {count(rows, 'row')}",
        items=1,
        bytes=size,
        warnings=warnings,
    )


def _finish(
    target: mysql_server.MySQLConnection,
    reader: dump_reader.DumpReader,
    replay: binlog_replay.Replay | None,
) -> contracts.Steps:
    """Create the views and replay the binary logs. Raises StoreError, WouldOverwriteError."""
    summary: list[str] = []
    warnings: tuple[str, ...] = ()
    hint = ""
    if all_views := reader.views.by_name:
        was_owned = reader.owned_by_restorer
        failed = yield from _restore_views(target, reader)
        warnings = (_OWNED_BY_RESTORER,) if reader.owned_by_restorer and not was_owned else ()
        warnings += tuple(f"view {view} was not created: {error}" for view, error in failed.items())
        summary.append(_views_summary(all_views, failed))
        hint = _RESTORE_REFERENCES if failed else ""
    if replay:
        logs = replay.apply(target, reader.new)
        number, rows = mysql_server.count_tables_and_rows(target, reader.new)
        summary.append(f"{logs} replayed: {count(number, 'table')}, {count(rows, 'row')}")
        warnings += replay.warnings()
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, ", ".join(summary), hint, warnings=warnings)


def _views_summary(all_views: Mapping[str, deferred_views.View], failed: Mapping[str, str]) -> str:
    return f"{len(all_views) - len(failed)} of {count(len(all_views), 'view')}"


def _restore_views(
    target: mysql_server.MySQLConnection, reader: dump_reader.DumpReader
) -> Generator[Result, None, dict[str, str]]:
    """Create the views; return those that failed, with their errors.

    Views of several databases may refer to each other, so as long as views are created in any
    database, failed ones are retried. Raises StoreError.
    """
    all_views = reader.views.by_name
    failed = dict.fromkeys(all_views, "")
    seen = -1
    while failed and seen != deferred_views.created.number:
        failed = _create_views(target, reader, failed)
        seen = deferred_views.created.number
        if not any(map(_MISSING_OBJECT.match, failed.values())):
            break
        yield Result(Status.OK, f"{_views_summary(all_views, failed)}; waiting for the others")
    return failed


def _create_views(
    target: mysql_server.MySQLConnection,
    reader: dump_reader.DumpReader,
    requested: Mapping[str, str],
) -> dict[str, str]:
    """Create views until no more of them succeed; return those that failed, with their errors."""
    failed = dict(requested)
    while failed:
        stderr_lines: list[str] = []
        one_by_one = deferred_views.in_dependency_order(reader.views.by_name, failed)
        script = deferred_views.Script(
            reader.head, one_by_one, owned_by_restorer=reader.owned_by_restorer
        )
        loading.load(target, script.chunks(), reader.new, "--force", notice=stderr_lines.append)
        still_failed: dict[str, str] = script.failed_views(stderr_lines)
        deferred_views.created.number += len(failed) - len(still_failed)
        denied = any(error.startswith(definers.DENIED) for error in still_failed.values())
        if len(still_failed) == len(failed) and (reader.owned_by_restorer or not denied):
            return still_failed
        reader.owned_by_restorer = reader.owned_by_restorer or denied
        failed = still_failed
    return {}


def _charset_clause(facts: MysqlFacts) -> str:
    """Return the clauses for character set and collation; only values that can be names."""
    clause = ""
    for word, name in ((" CHARACTER SET ", facts.charset), (" COLLATE ", facts.collation)):
        if name.isidentifier():
            clause += word + name
    return clause
