"""Load a dump so that its code never runs with the privileges of a superuser.

Rows are loaded by a temporary role. A superuser creates everything else: while it does, functions
are replaced, except where the server itself acts as the owner of a table in a security-restricted
operation (CREATE INDEX, REFRESH MATERIALIZED VIEW). What needs the functions is created by the
temporary role.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from postgres import dump_loading, pg_server, replaced_code, restore_errors, search_path
from postgres.dump_loading import Dump, LoadResult
from postgres.loading_role import LoadingRole
from tools.base.errors import BackupError, StoreError
from tools.flow import stream

_ENTRY = re.compile(r"(\d+); (\d+) \d+ (.*)")  # of the list of a dump: number, catalog, label
_ROWS = ("TABLE DATA ", "SEQUENCE SET ", "BLOBS ")
_FIRST = ("INDEX ", "CONSTRAINT ", "STATISTICS ")  # of the section post-data
_RETRYABLE = tuple(one for one in dump_loading.RETRYABLE if one != "CHECK CONSTRAINT ")
_ATTACH, _FOREIGN, _CHECK = "TABLE ATTACH ", "FK CONSTRAINT ", "CHECK CONSTRAINT "
_ERROR = re.compile(r"^(?:psql: )?ERROR:\s+")


@dataclass(frozen=True)
class _Entries:
    """The entries of a dump, number and label, by when they are restored.

    before: tables and the like; attach: partitions; acl: privileges; rows; first: indexes;
    checks, keys: constraints; after: the rest; last: event triggers
    """

    before: dict[str, str]
    attach: dict[str, str]
    acl: dict[str, str]
    rows: dict[str, str]
    first: dict[str, str]
    checks: dict[str, str]
    keys: dict[str, str]
    after: dict[str, str]
    last: dict[str, str]


class GuardedLoad:
    """Loads of one dump into one server, by a superuser and the temporary role."""

    def __init__(self, role: LoadingRole) -> None:
        """See the module."""
        self._role = role
        self._blocked: set[str] = set()  # tables that the role must create

    def at_once(
        self, target: pg_server.PostgresConnection, name: str, dump: Dump, options: Sequence[str]
    ) -> LoadResult:
        """Load the dump with its CHECK constraints. Raises StoreError."""
        return self._load(_Load(target, self._role, name, dump, options), lenient=False)

    def in_steps(
        self, target: pg_server.PostgresConnection, name: str, dump: Dump, options: Sequence[str]
    ) -> LoadResult:
        """Load the rows without CHECK constraints, then add those. Raises StoreError.

        Functions use the search_path of the source meanwhile.
        """
        return self._load(_Load(target, self._role, name, dump, options), lenient=True)

    def _load(self, load: _Load, *, lenient: bool) -> LoadResult:
        self._role.connect(load.name)
        try:
            load.create_tables(self._blocked)
        except restore_errors.BlockedError as error:
            if self._blocked.issuperset(error.entries):
                raise StoreError(str(error), error.hint) from None
            self._blocked.update(error.entries)
            raise
        load.restore(load.entries.acl)
        with contextlib.ExitStack() as stack:
            if lenient:
                functions = search_path.lenient_functions(load.target, load.name, load.path)
                load.load_rows_without_checks(stack.enter_context(functions))
            else:
                load.load_rows()
            load.create_the_rest()
        if load.result.left_out.left_out:
            args = (load.target, load.name, load.dump, load.result)
            with replaced_code.replaced(load.target, load.name, replaced_code.NONE):
                dump_loading.retry_failed(*args, retryable=_RETRYABLE)
        self._role.grant(load.name)  # for counting
        return load.result


class _Load:
    """One load into an empty database."""

    def __init__(
        self,
        target: pg_server.PostgresConnection,
        role: LoadingRole,
        name: str,
        dump: Dump,
        options: Sequence[str],
    ) -> None:
        self.target, self.role, self.name, self.dump = target, role, name, dump
        self._options = options
        self.path = dump.search_path
        self.entries = _sorted_entries(target, dump)
        self.result = LoadResult(restore_errors.RestoreErrors(), remaining=tuple(self.entries.last))

    def restore(self, selected: Collection[str]) -> restore_errors.RestoreErrors:
        """Restore entries as the superuser; return those that are blocked."""
        return self._restored(self.target, selected, *self._options)

    def _restored(
        self, connection: pg_server.PostgresConnection, selected: Collection[str], *options: str
    ) -> restore_errors.RestoreErrors:
        if not selected:
            return restore_errors.RestoreErrors()
        errors = dump_loading.restore_list(connection, self.name, self.dump, selected, *options)
        self.result.left_out.left_out += errors.left_out
        return errors

    # --- tables

    def create_tables(self, blocked: Collection[str]) -> None:
        """Create everything before the rows. Raises BlockedError if more tables are blocked."""
        waiting: list[str] = []
        for entry, label in self.entries.before.items():
            if entry in blocked:
                self._restore_replaced(waiting)
                waiting = []
                self._create_table(entry, label)
            else:
                waiting.append(entry)
        self._restore_replaced(waiting)
        self._attach()

    def _restore_replaced(
        self, selected: Collection[str], functions: str = replaced_code.ALL
    ) -> restore_errors.RestoreErrors:
        if not selected:
            return restore_errors.RestoreErrors()
        with replaced_code.replaced(self.target, self.name, functions):
            return self.restore(selected)

    def _create_table(self, entry: str, label: str) -> None:
        """Let the role create a table. Privileges are not restored yet: no SECURITY DEFINER."""
        with (
            replaced_code.replaced(self.target, self.name, replaced_code.DEFINERS),
            self.role.creating(self.name, label.removeprefix("TABLE ")),
        ):
            options = ("--no-owner", *self._options)
            self._restored(self.role.login, {entry}, *options)

    def _attach(self) -> None:
        """Attach partitions, by the role if the key or a CHECK constraint calls a function."""
        for one in self._restore_replaced(self.entries.attach).blocked:
            parent = one.command.removeprefix("ALTER TABLE ONLY ").partition(" ATTACH ")[0]
            label = self.entries.attach[one.entry].removeprefix(_ATTACH)
            with (
                replaced_code.replaced(self.target, self.name, replaced_code.DEFINERS),
                self.role.owning(
                    self.name,
                    self.role.find_named(self.name, "TABLE", parent),
                    self.role.find(self.name, label),
                ),
            ):
                self._restored(self.role.login, {one.entry}, "--no-owner", *self._options)

    # --- rows

    def load_rows(self) -> None:
        """Load the rows as the role; those of extensions' own tables as the superuser.

        The rows of some extensions have power (pg_cron), and no code of a user is in their tables.
        Raises RowsError.
        """
        own = self._rows_of_extensions()
        self.role.grant(self.name)
        self._load_rows(self.role.login, [one for one in self.entries.rows if one not in own])
        self._load_rows(self.target, own)

    def _load_rows(
        self, connection: pg_server.PostgresConnection, selected: Collection[str]
    ) -> None:
        if not selected:
            return
        with stream.closed(self.dump.again()) as chunks:
            errors = dump_loading.restore_list(
                connection, self.name, self.dump, selected, chunks=chunks
            )
        self.result.left_out.left_out += errors.left_out

    def _rows_of_extensions(self) -> list[str]:
        expression = pg_server.hex_expression("nspname || ' ' || relname")
        rows = self.target.sql(
            f"SELECT {expression} FROM pg_depend d JOIN pg_class r ON r.oid = objid "
            "JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND relkind IN ('r', 'p', 'S')",
            database=self.name,
            columns=1,
        )
        begins = [f"{kind}{pg_server.decode_hex(row[0])} " for kind in _ROWS for row in rows]
        return [one for one, label in self.entries.rows.items() if label.startswith((*begins,))]

    def load_rows_without_checks(self, lenient: search_path.LenientDatabase) -> None:
        """Load the rows without CHECK constraints, and let the role add those."""
        lenient.drop_checks()
        self.load_rows()
        with replaced_code.replaced(self.target, self.name):
            checks, failed = lenient.add_checks_unvalidated()
        self.result.warnings += failed
        for check in checks:
            self._validate(check)

    def _validate(self, check: search_path.Check) -> None:
        statement = f"ALTER {check.kind} {check.holder} VALIDATE CONSTRAINT {check.name}"
        holder = self.role.find_named(self.name, check.kind, check.holder)
        with self.role.owning(self.name, holder):
            try:
                self.role.login.sql("SET search_path = ''", statement, database=self.name)
            except BackupError as error:
                reason = _ERROR.sub("", error.hint or str(error)).partition("\n")[0]
                line = f"{reason}: constraint {check.name} of {check.holder} is now NOT VALID"
                self.result.warnings += (line,)

    # --- what needs the rows

    def create_the_rest(self) -> None:
        """Create indexes, constraints and the rest, without event triggers."""
        self._restore_replaced(self.entries.first, replaced_code.NONE)
        for entry, label in self.entries.checks.items():
            self._constrain(entry, label.removeprefix(_CHECK))
        blocked = self._restore_replaced(self.entries.keys).blocked
        for one in blocked:
            self._constrain(one.entry, self.entries.keys[one.entry].removeprefix(_FOREIGN))
        if self.result.left_out.left_out:
            dump_loading.add_foreign_keys(self.target, self.name, self.dump, self.result)
        self._restore_replaced(self.entries.after, replaced_code.NONE)

    def _constrain(self, entry: str, label: str) -> None:
        """Let the role add a constraint to a table. label: begins with schema and table"""
        self.role.grant(self.name)
        with self.role.owning(self.name, self.role.find(self.name, label)):
            self._restored(self.role.login, {entry}, "--no-owner")


def finish(
    target: pg_server.PostgresConnection,
    name: str,
    dump: Dump,
    loaded: LoadResult,
    role: LoadingRole,
) -> tuple[str, ...]:
    """Remove the role from the complete database, and create event triggers; return warnings."""
    warnings = role.remove()
    if loaded.remaining:
        errors = dump_loading.restore_list(target, name, dump, loaded.remaining)
        loaded.left_out.left_out += errors.left_out
    return warnings


def _sorted_entries(target: pg_server.PostgresConnection, dump: Dump) -> _Entries:
    groups: dict[str, dict[str, str]] = {
        key: {}
        for key in _Entries.__dataclass_fields__  # one for each field
    }
    for section in ("pre-data", "data", "post-data"):
        lines = dump_loading.list_entries(target, dump.head, f"--section={section}")
        for match in filter(None, map(_ENTRY.match, lines)):
            groups[_group(section, match[2], match[3])][match[1]] = match[3]
    return _Entries(**groups)


def _group(section: str, catalog: str, label: str) -> str:
    """Return when an entry is restored: the name of a field of _Entries."""
    if catalog == "0" and label.startswith("ACL "):
        return "acl"
    if section == "pre-data":
        return "attach" if catalog == "0" and label.startswith(_ATTACH) else "before"
    if section == "data" and label.startswith(_ROWS):
        return "rows"
    if "EVENT TRIGGER " in label:
        return "last"
    kinds = {_CHECK: "checks", _FOREIGN: "keys"} | dict.fromkeys(_FIRST, "first")
    return next((group for kind, group in kinds.items() if label.startswith(kind)), "after")
