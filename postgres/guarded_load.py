"""Load a dump so that its code never runs with the privileges of a superuser.

Rows are loaded by a temporary role. A superuser creates everything else: while it does, functions
are replaced, except where the server itself acts as the owner of a table in a security-restricted
operation (CREATE INDEX, REFRESH MATERIALIZED VIEW). What needs replaced code is created by the
temporary role.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from postgres import (
    dump_entries,
    dump_loading,
    holders,
    orphans,
    pg_server,
    replaced_code,
    restore_errors,
    search_path,
)
from postgres.dump_loading import Dump, LoadResult
from postgres.holders import Holder, longest, one_line
from postgres.loading_role import LoadingRole
from tools.base.errors import BackupError, StoreError
from tools.flow import stream

_TABLES = ("TABLE ", "FOREIGN TABLE ", "MATERIALIZED VIEW ", "DOMAIN ")
_SERVER = "SERVER - "
_CODE = ("FUNCTION ", "PROCEDURE ")
_RETRYABLE = tuple(one for one in dump_loading.RETRYABLE if one != "CHECK CONSTRAINT ")
_ERROR = re.compile(r"^(?:psql: )?ERROR:\s+")


class GuardedLoad:
    """Loads of one dump into one server, by a superuser and the temporary role."""

    def __init__(self, role: LoadingRole) -> None:
        """See the module."""
        self._role = role
        self._blocked: set[str] = set()  # tables that the role must create
        self.numbers = 0, 0  # of tables and rows

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
        except restore_errors.TablesError as error:
            if self._blocked.issuperset(error.entries) or dump_loading.missing_tablespace(error):
                raise StoreError(str(error), error.hint) from None
            self._blocked.update(error.entries)
            raise restore_errors.BlockedError(error.entries) from None
        load.restore_privileges()
        with contextlib.ExitStack() as stack:
            if lenient:
                functions = search_path.lenient_functions(load.target, load.name, load.path)
                load.load_rows_without_checks(stack.enter_context(functions))
            else:
                load.load_rows()
            load.create_the_rest()
        if load.result.left_out.left_out:
            args = (load.target, load.name, load.dump, load.result)
            with load.replaced(replaced_code.NONE, replaced_code.RAISE):
                dump_loading.retry_failed(*args, retryable=_RETRYABLE, skipped=load.orphans)
        self.numbers = load.numbers
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
        self.entries = dump_entries.read(target, dump)
        self._depends = dump_entries.dependencies(target, dump)
        self.numbers = 0, 0
        self._private: Mapping[str, frozenset[str]] = {}  # functions that tables need
        self.orphans: set[str] = set()  # entries of tables whose owner does not exist
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

    def restore_privileges(self) -> None:
        """Restore privileges; afterwards some functions are private."""
        labels = frozenset(self.entries.before.values())
        lines = orphans.make_invokers(self.target, self.name, labels, self.role.restorer)
        self.result.warnings += lines
        self._find_orphans()
        self.restore(self.entries.acl)
        self._private = self.role.needed(self.name)

    def _find_orphans(self) -> None:
        """Find indexes and materialized views of tables whose owner does not exist.

        The server would evaluate them as the superuser, who owns these tables.
        """
        functions = any(one.startswith(_CODE) for one in self.entries.before.values())
        later = [*(self.entries.first if functions else ()), *self.entries.views]
        labels = {entry: self._table_labels(entry) for entry in later}
        tables = self.role.find(self.name, *itertools.chain.from_iterable(labels.values()))
        orphan_tables = [one for one in tables if one.orphan]
        self.orphans = {
            entry
            for entry, texts in labels.items()
            if any(one.begins(text) for one in orphan_tables for text in texts)
            and (entry in self.entries.views or len(self._labels_of(entry)) > len(texts))
        }

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

    def replaced(
        self, functions: str, checks: str, *, volatile: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Replace code until the end of the block: see replaced_code."""
        return replaced_code.replaced(self.target, self.name, functions, checks, volatile=volatile)

    def _restore_replaced(
        self, selected: Collection[str], functions: str = replaced_code.ALL
    ) -> restore_errors.RestoreErrors:
        if not selected:
            return restore_errors.RestoreErrors()
        with self.replaced(functions, replaced_code.TRUE):
            return self.restore(selected)

    def _create_table(self, entry: str, label: str) -> None:
        """Let the role create a table. Privileges are not restored yet: no SECURITY DEFINER."""
        parents = self._tables_of(entry)
        servers = [one[len(_SERVER) :] for one in self._labels_of(entry) if one.startswith(_SERVER)]
        with (
            self.replaced(replaced_code.DEFINERS, replaced_code.KEEP),
            self.role.creating(self.name, label, *parents, servers=servers),
        ):
            options = ("--no-owner", *self._options)
            self._restored(self.role.login, {entry}, *options)

    def _attach(self) -> None:
        """Attach partitions, by the role if the key or a CHECK constraint calls a function."""
        for one in self._restore_replaced(self.entries.attach).blocked:
            with self.replaced(replaced_code.DEFINERS, replaced_code.KEEP):
                self._restore_as_owner(one.entry, self._tables_of(one.entry))

    def _restore_as_owner(
        self, entry: str, owned: Sequence[Holder], *, create: bool = False
    ) -> None:
        """Let the role restore an entry, as the owner of these tables or domains.

        create: whether it may create objects
        """
        functions = self._needed(owned)
        with (
            self.role.executing(self.name, functions),
            self.role.owning(self.name, *owned, create=create),
        ):
            self._restored(self.role.login, {entry}, "--no-owner", *self._options)

    def _tables_of(self, entry: str) -> list[Holder]:
        """Return the tables and domains that an entry depends on."""
        return self.role.find(self.name, *self._table_labels(entry))

    def _table_labels(self, entry: str) -> list[str]:
        """Return the labels of the tables and domains that an entry depends on."""
        kinds = (
            (label, next((k for k in _TABLES if label.startswith(k)), ""))
            for label in self._labels_of(entry)
        )
        return [label[len(kind) :] for label, kind in kinds if kind]

    def _labels_of(self, entry: str) -> list[str]:
        """Return the labels of what an entry depends on: tables and the like."""
        before = self.entries.before
        return [before[one] for one in self._depends.get(entry, ()) if one in before]

    def _altered(self, entry: str, label: str) -> list[Holder]:
        """Return what an index or constraint belongs to: a table or domain of the same owner.

        It may depend on tables and domains of other owners as well: those stay theirs.
        """
        owned = [one for one in self._tables_of(entry) if one.may_own(label)]
        if label.startswith("INDEX "):
            return [one for one in owned if one.kind == "TABLE"]
        kind = next(
            one
            for one in (dump_entries.CHECK, dump_entries.FOREIGN, *dump_entries.FIRST)
            if label.startswith(one)
        )
        return longest([one for one in owned if one.begins(label[len(kind) :])])

    def _needed(self, tables: Iterable[Holder]) -> frozenset[str]:
        """Return the private functions that the rows of tables need."""
        return frozenset().union(*(self._private.get(one.name, ()) for one in tables))

    # --- rows

    def load_rows(self) -> None:
        """Load and count the rows as the role; those of extensions' own tables as the superuser.

        Later, planning to count would evaluate predicates of indexes.

        The rows of some extensions have power (pg_cron), and no code of a user is in their tables.
        Raises RowsError.
        """
        self.role.grant(self.name)
        of_extensions = set(self._rows_of_extensions())
        groups: dict[frozenset[str], list[str]] = {}
        for entry in self.entries.rows:
            if entry not in of_extensions:
                functions = self._needed(self._tables_of(entry)) if self._private else frozenset()
                groups.setdefault(functions, []).append(entry)
        for functions, selected in groups.items():
            with self.role.executing(self.name, functions):
                self._load_rows(self.role.login, selected)
        self._load_rows(self.target, sorted(of_extensions, key=int))
        self.numbers = pg_server.count_tables_and_rows(self.role.login, self.name)

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

    def _rows_of_extensions(self) -> Iterator[str]:
        """Yield the entries of rows of extensions' tables and sequences.

        A label is ambiguous if names contain spaces: such rows are not the extension's.
        """
        columns = ("nspname || ' ' || relname", "d.objid IS NOT NULL")
        rows = self.target.sql(
            f"SELECT {', '.join(map(pg_server.hex_expression, columns))} FROM pg_class r "
            "JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_depend d ON "
            "classid = 'pg_class'::regclass AND d.objid = r.oid AND deptype = 'e' "
            "WHERE relkind IN ('r', 'p', 'S')",
            database=self.name,
            columns=2,
        )
        names = [(one_line(pg_server.decode_hex(name)), owned) for name, owned in rows]
        begins = {
            extension: tuple(
                f"{kind}{name} "
                for kind in dump_entries.ROWS
                for name, owned in names
                if pg_server.decode_hex(owned).startswith("t") == extension
            )
            for extension in (True, False)
        }
        for entry, label in self.entries.rows.items():
            if label.startswith(begins[True]) and not label.startswith(begins[False]):
                yield entry

    def load_rows_without_checks(self, lenient: search_path.LenientDatabase) -> None:
        """Load the rows without CHECK constraints, and let the role add those."""
        lenient.drop_checks()
        self.load_rows()
        with self.replaced(replaced_code.ALL, replaced_code.TRUE):
            checks, failed = lenient.add_checks_unvalidated()
        self.result.warnings += failed
        for check in checks:
            self._validate(check)

    def _validate(self, check: search_path.Check) -> None:
        statement = f"ALTER {check.kind} {check.holder} VALIDATE CONSTRAINT {check.name}"
        holder = holders.find_named(self.target, self.name, check.kind, check.holder)
        functions = self._needed([holder])
        with self.role.executing(self.name, functions), self.role.owning(self.name, holder):
            try:
                self.role.login.sql("SET search_path = ''", statement, database=self.name)
            except BackupError as error:
                reason = _ERROR.sub("", error.hint or str(error)).partition("\n")[0]
                line = f"{reason}: constraint {check.name} of {check.holder} is now NOT VALID"
                self.result.warnings += (line,)

    # --- what needs the rows

    def create_the_rest(self) -> None:
        """Create indexes, constraints and the rest, without event triggers."""
        self._create_indexes()
        if self.entries.indexes:
            with self.replaced(replaced_code.ALL, replaced_code.TRUE, volatile=True):
                self.restore(self.entries.indexes)
        for entry in self.entries.checks:
            self._constrain(entry, self.entries.checks)
        for one in self._restore_replaced(self.entries.keys).blocked:
            self._constrain(one.entry, self.entries.keys)
        if self.result.left_out.left_out:
            dump_loading.add_foreign_keys(self.target, self.name, self.dump, self.result)
        self._restore_replaced(self.entries.after, replaced_code.NONE)
        self._fill_views()

    def _fill_views(self) -> None:
        """Fill materialized views, in their order."""
        if not self.orphans.intersection(self.entries.views):
            self.restore(self.entries.views)
            return
        for entry in self.entries.views:
            if entry in self.orphans:
                self._restore_as_owner(entry, self._tables_of(entry))
            else:
                self.restore([entry])

    def _create_indexes(self) -> None:
        """Create indexes and their constraints, by the role if a domain is evaluated for one."""
        failed = self.result.left_out.left_out
        entries: Collection[str] = [one for one in self.entries.first if one not in self.orphans]
        while entries:
            number = len(failed)
            with self.replaced(replaced_code.NONE, replaced_code.RAISE):
                blocked = self.restore(entries).blocked
            entries = ()
            if blocked:  # what failed may have needed those
                entries = dict.fromkeys(one.entry for one in failed[number:])
                del failed[number:]
            for one in blocked:
                self._constrain(one.entry, self.entries.first, create=True)
        for entry in self.entries.first:
            if entry in self.orphans:
                self._constrain(entry, self.entries.first, create=True)

    def _constrain(self, entry: str, labels: Mapping[str, str], *, create: bool = False) -> None:
        """Let the role add a constraint to a table, or an index."""
        self._restore_as_owner(entry, self._altered(entry, labels[entry]), create=create)


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
